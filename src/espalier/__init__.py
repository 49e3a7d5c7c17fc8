"""Espalier: structured-pruning sweeps of large language models.

The scripts of the workflow call this library. Importing the package imports none of its modules. `espalier.config` and
`espalier.study` do not import torch.
"""

__version__ = "0.2.0"
