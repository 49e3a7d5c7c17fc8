"""Consolidated tables of a study, built from its result files and from imported legacy results."""
