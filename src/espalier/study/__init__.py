"""What the workflow's rules look up: inputs, params and targets, all from the config and never from a path."""

from espalier.study.catalogue import Catalogue

__all__ = ["Catalogue"]
