"""The fleet's consumers as arrays and back, and uuids in bulk: the kernel, or its Python twin where HOSTLER_PURE=1 is
set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._fleet_state import (
        consumers,
        consumers_on_rows,
        discard_uuids,
        find_uuids,
        listed_before,
        relist,
        renumber,
        set_consumers,
        used_ids,
    )
else:
    from .fleet_state_py import (
        consumers,
        consumers_on_rows,
        discard_uuids,
        find_uuids,
        listed_before,
        relist,
        renumber,
        set_consumers,
        used_ids,
    )

__all__ = [
    "consumers",
    "consumers_on_rows",
    "discard_uuids",
    "find_uuids",
    "listed_before",
    "relist",
    "renumber",
    "set_consumers",
    "used_ids",
]
