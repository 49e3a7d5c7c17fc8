"""Recovery: fine-tuning of pruned models with LoRA. This module imports nothing, so it is cheap to import."""
