"""Tests of `espalier.study`."""
