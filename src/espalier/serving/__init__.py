"""Serving and inference: which programs load a pruned model, and how fast pruned models run."""
