"""Recovery: fine-tuning of pruned models with LoRA. Imports nothing, so that light code may name its modules."""
