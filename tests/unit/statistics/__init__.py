"""Tests of `espalier.statistics`."""
