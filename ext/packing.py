"""Packing of items into bins: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._packing import bin_centric, empty_a_bin, first_fit
else:
    from .packing_py import bin_centric, empty_a_bin, first_fit

__all__ = ["bin_centric", "empty_a_bin", "first_fit"]
