"""What a layer keeps of its experts. Imports no torch, because plans hold it."""

from __future__ import annotations

from typing import NamedTuple


class KeptExperts(NamedTuple):
    """What one layer keeps of its experts.

    Attributes:
        experts: Indices of the experts, in increasing order.
        channels: Indices of the channels of each of these experts, in increasing order, as many for each; None keeps
            all channels. Experts without channels compute zero.
    """

    experts: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...] | None = None
