"""Scoring and filling of nodes by their devices: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._devices import fragmentation, place, score
    from ._host_scores import HostScores
else:
    from .devices_py import HostScores, fragmentation, place, score

BEST_FIT: Final = 0
DOT_PRODUCT: Final = 1
PACKING: Final = 2
CLUSTERING: Final = 3
FRAGMENTATION: Final = 4
RANDOM: Final = 5
MOST_DEVICES: Final = 64
WHOLE: Final = 1000
"""Thousandths of a device."""

__all__ = [
    "BEST_FIT",
    "CLUSTERING",
    "DOT_PRODUCT",
    "FRAGMENTATION",
    "MOST_DEVICES",
    "PACKING",
    "RANDOM",
    "WHOLE",
    "HostScores",
    "fragmentation",
    "place",
    "score",
]
