"""What only a GPU can show: `python -m pytest tests/gpu`, which needs neither git nor Snakemake."""
