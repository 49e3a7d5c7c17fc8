"""Pruned models for other programs: folders that transformers loads, GGUF files. See docs/export.md, docs/gguf.md."""
