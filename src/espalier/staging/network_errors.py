"""Errors of the network that huggingface_hub passes on, from the HTTP library that the installed version uses."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

NETWORK_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    *(import_module(name).TransportError for name in ("httpx2", "httpx") if find_spec(name)),
)
"""Version 2 of huggingface_hub uses httpx2. Version 1, which transformers 5.17 needs, uses httpx."""
