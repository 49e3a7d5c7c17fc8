"""Tests of `espalier.calibration`."""
