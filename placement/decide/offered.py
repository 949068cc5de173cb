"""One request placed among allocation candidates that this fleet gave before, as Placement's API lists them: of each
host the first is taken that the filters leave and that there is still room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..types.decision import Decision
from ..types.errors import NoValidHost
from ..types.request import Request
from .claim import Allocations, offered
from .context import DecisionContext
from .placement import check_new, ruled_out
from .scan_placement import ScanPlacement


class OfferedPlacement(ScanPlacement):
    """The scan of one request whose candidates came with it. The fleet keeps the claims, so it is the fleet that knows
    whether there is room: hosts without a candidate that fits are not weighed; where there is no other host they are,
    and never claimed."""

    def __init__(self, context: DecisionContext, request: Request, candidates: Mapping[str, Sequence[Any]]) -> None:
        super().__init__(context, request, candidates)
        assert self.candidates is not None
        left: dict[int, Sequence[Any]] = {
            row: [each for each in given if self._offered(row, each)] for row, given in self.candidates.items()
        }
        self.candidates = {row: fitting for row, fitting in left.items() if fitting} or left

    def _allocations(self, uuid: str, row: int) -> Allocations | None:
        assert self.candidates is not None
        found = (self._offered(row, candidate) for candidate in self.candidates[row])
        return next((allocations for allocations in found if allocations is not None), None)

    def _offered(self, row: int, candidate: Any) -> Allocations | None:
        return offered(self.fleet, self.signature, row, candidate)


def place_offered(context: DecisionContext, request: Request, candidates: Mapping[str, Sequence[Any]]) -> Decision:
    """The decision on a request, prepared."""
    check_new(context.fleet, request.instance_uuids)
    try:
        return OfferedPlacement(context, request, candidates).place()
    except NoValidHost as error:
        return ruled_out(context, request, error)
