"""Pruned models as folders that transformers loads. See docs/export.md."""
