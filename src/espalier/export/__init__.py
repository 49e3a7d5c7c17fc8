"""Pruned models for other programs."""
