"""Tests with a real pretrained model and real data."""
