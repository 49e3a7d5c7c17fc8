"""Models: table of architectures, model folders, manifests, loading, GPUs, sizes and surgery."""
