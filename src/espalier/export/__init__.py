"""Export of pruned models: folders that transformers loads and GGUF files. See docs/export.md and docs/gguf.md."""
