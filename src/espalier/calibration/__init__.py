"""What is learnt from calibration text: sequences, gradients, importance and priors."""
