"""Espalier: structured-pruning sweeps of large language models.

The library that the workflow's scripts call. Importing it loads nothing else; `espalier.config` and
`espalier.study` import no torch.
"""

__version__ = "0.1.0"
