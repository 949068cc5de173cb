"""Request objects read into columns: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._gather import SpecTable, gather
else:
    from .gather_py import SpecTable, gather

__all__ = ["SpecTable", "gather"]
