"""Tests on a GPU: `python -m pytest tests/gpu`. They need neither git nor Snakemake."""
