"""Planning: from importances and priors to what each layer keeps. Needs numpy only."""
