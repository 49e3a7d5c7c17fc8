"""Planning: choose the groups that each layer keeps, from importances and priors. Does not import torch."""
