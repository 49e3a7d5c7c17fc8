"""Models: checking folders, manifests, loading, staging from the hub, linear layers on the CPU."""
