"""Staging: download of models and datasets from a hub, and the lock file of the cache."""
