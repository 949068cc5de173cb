"""Decisions in MessagePack: the kernel, or its Python twin where HOSTLER_PURE=1 is set."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("HOSTLER_PURE", "") in ("", "0"):
    from ._packed_decisions import pack_decisions
else:
    from .packed_decisions_py import pack_decisions

__all__ = ["pack_decisions"]
