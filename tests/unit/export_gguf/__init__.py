"""GGUF files, against the models that they are made from."""
