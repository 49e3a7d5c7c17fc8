"""What a plan means for those who serve the model: verdicts by target, and what pruning buys at inference."""
