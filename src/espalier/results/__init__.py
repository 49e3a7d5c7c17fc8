"""Tables of a study from the files of its experiments, and import of legacy results."""
