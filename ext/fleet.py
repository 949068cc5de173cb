"""The fleet's columns, consumers and server groups: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._fleet import Columns
else:
    from .fleet_py import Columns

__all__ = ["Columns"]
