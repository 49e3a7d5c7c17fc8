"""Uncertainty of what a study finds; each definition in plain words in docs/statistics.md. Arrays in, results out."""
