"""Capacity of storage pools, and many placements in one call: the kernel, or its twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._pools import consume, derive, place
else:
    from .pools_py import consume, derive, place

__all__ = ["consume", "derive", "place"]
