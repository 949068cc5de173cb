"""The NUMA cells of all hosts of a fleet, by row: ``NumaTable`` is the kernel's table, or with HOSTLER_PURE=1 its
pure-Python twin. The rules are those of ``placement.numa``; a table only stores state. A row that was never set has no
cells.
"""

import os
from typing import TYPE_CHECKING

from .twin import NumaProgram

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from .kernel import KernelNumaTable as NumaTable
else:
    from .twin import PyNumaTable as NumaTable

__all__ = ["NumaProgram", "NumaTable"]
