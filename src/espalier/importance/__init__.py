"""Importance of prunable groups: the pass over calibration text that feeds the criteria, and gradient statistics."""
