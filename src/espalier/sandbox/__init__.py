"""The sandbox: a synthetic world, its texts and tasks, and tiny models trained on them."""
