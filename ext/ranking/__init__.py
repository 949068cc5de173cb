"""Exact best hosts for one compiled request signature: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._beside import best_beside, set_aside
    from ._host_index import HostIndex
    from ._ranking import Ranking
else:
    from .beside_py import best_beside, set_aside
    from .ranking_py import HostIndex, Ranking

__all__ = ["HostIndex", "Ranking", "best_beside", "set_aside"]
