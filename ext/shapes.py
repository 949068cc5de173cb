"""Request shapes by number: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._shapes import Shapes
else:
    from .shapes_py import Shapes

__all__ = ["Shapes"]
