"""Work of the jobs of the workflow, their logs and failure records.

In this library, only this package reads the `snakemake` object of a script.
"""
