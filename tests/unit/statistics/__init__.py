"""Tests of espalier.statistics."""
