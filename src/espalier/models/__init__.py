"""Models: checking folders, manifests, loading, staging from the hub."""
