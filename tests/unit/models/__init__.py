"""Tests of `espalier.models`."""
