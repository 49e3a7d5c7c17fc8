"""Everything that needs the network: models and datasets of a hub, and the lock file of the cache."""
