"""Recovery: fine-tuning of pruned models, with LoRA or of all weights. Imports nothing, so it is cheap to import."""
