"""Evaluation: tasks and perplexity through lm-evaluation-harness, with our own model class."""
