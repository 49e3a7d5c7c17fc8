"""What the rules of the workflow look up: inputs, params and targets, all from the config and never from a path."""
