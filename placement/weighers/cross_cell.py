"""The cell that an instance moves from. Source: Nova 33 CrossCellWeigher.

raw = +1 in the cell of the requested destination, -1 in another, if the request may move across cells; else 0;
multiplier cross_cell_move_weight_multiplier (1000000.0)
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import Weigher


class CrossCellWeigher(Weigher):
    """Keeps a move within its cell where a host there fits, before all else by default."""

    name: ClassVar[str] = "CrossCellWeigher"
    option: ClassVar[str] = "cross_cell_move_weight_multiplier"

    def applies(self, request: Request) -> bool:
        return _home_cell(request) is not None

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"cell_uuid"})

    def key(self, request: Request) -> Hashable:
        return _home_cell(request)

    def raw(self, host: HostState, request: Request) -> float:
        cell = _home_cell(request)
        if cell is None:
            return 0.0
        return 1.0 if host.cell_uuid == cell else -1.0

    def describe(self, host: HostState, request: Request, best: float | None = None) -> str:
        cell = _home_cell(request)
        if cell is None:
            return "the request does not move across cells"
        return f"in cell {host.cell_uuid}, the request is {'in it' if host.cell_uuid == cell else f'in {cell}'}"


def _home_cell(request: Request) -> str | None:
    """The cell to stay in, if the request may leave it."""
    destination = request.spec.requested_destination
    return destination.cell_uuid if destination is not None and destination.allow_cross_cell_move else None
