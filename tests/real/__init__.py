"""A real pretrained model on real data."""
