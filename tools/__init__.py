"""Generators of documents and schemas, and comparisons of runs. Not part of the wheel."""
