"""Hash tables for names and uuids, and uuids in text: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._tables import NameTable
    from ._uuids import UuidTable, format_many, format_uuid, make_many, parse_many, parse_uuid
else:
    from .tables_py import NameTable, UuidTable, format_many, format_uuid, make_many, parse_many, parse_uuid

__all__ = ["NameTable", "UuidTable", "format_many", "format_uuid", "make_many", "parse_many", "parse_uuid"]
