"""Evaluation of models: tasks through lm-evaluation-harness, and perplexity. Both use packed scoring."""
