"""Tests of `espalier.results.legacy`."""
