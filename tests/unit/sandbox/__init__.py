"""Tests of `espalier.sandbox`."""
