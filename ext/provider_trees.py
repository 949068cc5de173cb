"""Whether provider trees have a candidate: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._provider_trees import TreeCounts
else:
    from .provider_trees_py import TreeCounts

__all__ = ["TreeCounts"]
