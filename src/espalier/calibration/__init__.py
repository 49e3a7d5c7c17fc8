"""Measurements on calibration text: sequences, gradients, importance and priors."""
