"""Tests of `espalier.results`."""
