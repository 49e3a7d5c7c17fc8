"""Tests of `espalier.config`."""
