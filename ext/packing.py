"""Vector bin packing: the kernels, or their Python twins where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._packing import eliminate, fill_in_turn, fit_in_turn
else:
    from .packing_py import eliminate, fill_in_turn, fit_in_turn

__all__ = ["eliminate", "fill_in_turn", "fit_in_turn"]
