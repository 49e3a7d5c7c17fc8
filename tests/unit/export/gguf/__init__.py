"""Tests of `espalier.export.gguf`."""
