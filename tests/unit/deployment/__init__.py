"""Tests of verdicts on targets and of measured inference."""
