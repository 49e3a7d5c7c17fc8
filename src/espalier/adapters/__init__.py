"""LoRA adapters of pruned models: attached, saved, told apart, merged."""
