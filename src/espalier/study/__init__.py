"""Look-ups for the rules of the workflow: inputs, params and targets, computed from the config."""
