"""Many placements and releases in one call: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._batch import find, place, place_alike, release
else:
    from .batch_py import find, place, place_alike, release

__all__ = ["find", "place", "place_alike", "release"]
