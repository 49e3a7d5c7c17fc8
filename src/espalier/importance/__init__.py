"""Importance of prunable groups: criteria, the pass over calibration text that feeds them, gradient statistics."""
