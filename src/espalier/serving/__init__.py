"""Which program loads a pruned model, and how fast pruned models run."""
