"""Many placements in one call where some take of nested providers: the kernel, or its Python twin where HOSTLER_PURE=1
is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._nested_batch import NestedShape, place
else:
    from .nested_batch_py import NestedShape, place

__all__ = ["NestedShape", "place"]
