"""Which rules alone keep rows out, and by how much: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._near_misses import HIDDEN, Rules
else:
    from .near_misses_py import HIDDEN, Rules

__all__ = ["HIDDEN", "Rules"]
