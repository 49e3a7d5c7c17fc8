"""Tests of `espalier.serving`."""
