"""One gradient pass over the calibration sequences: accumulation, importance of groups, statistics."""
