"""Tests of `espalier.evaluation`."""
