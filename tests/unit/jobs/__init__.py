"""Tests of `espalier.jobs`."""
