"""Tests of `espalier.staging`."""
