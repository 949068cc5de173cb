"""One request placed among allocation candidates that this fleet gave before, as Placement's API lists them: of each
host the first is taken that the filters leave and that there is still room for."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from ..types.decision import Decision
from ..types.errors import NoValidHost
from ..types.request import Request
from ..types.steps import finished, in_pieces
from .claim import Allocations, offered, room_for
from .context import DecisionContext
from .placement import check_new, ruled_out
from .scan_placement import ScanPlacement

LOOKED_AT: Final = 64
"""Candidates that are looked at in one step."""


class OfferedPlacement(ScanPlacement):
    """The scan of one request whose candidates came with it. The fleet keeps the claims, so it is the fleet that knows
    whether there is room: hosts without a candidate that fits are not weighed; where there is no other host they are,
    and never claimed."""

    def __init__(self, context: DecisionContext, request: Request, candidates: Mapping[str, Sequence[Any]]) -> None:
        super().__init__(context, request, candidates)
        self._offers = candidates

    def _anew(self) -> ScanPlacement:
        return OfferedPlacement(self.context, self._given, self._offers)

    def _placing(self) -> Generator[None, None, Decision]:
        yield from self._look()
        return (yield from super()._placing())

    def _look(self) -> Generator[None, None, None]:
        """Leave each host the candidates that there is room for. O(candidates), in steps."""
        assert self.candidates is not None
        left = dict[int, Sequence[Any]]()
        looked_at = 0
        for row, given in self.candidates.items():
            fitting = list[Any]()
            for some in in_pieces(given, LOOKED_AT):
                if looked_at + len(some) > LOOKED_AT:
                    yield
                    looked_at = 0
                looked_at += len(some)
                fitting += [each for each in some if room_for(self.fleet, row, each) is not None]
            left[row] = fitting
        self.candidates = {row: fitting for row, fitting in left.items() if fitting} or left

    def _allocations(self, uuid: str, row: int) -> Allocations | None:
        assert self.candidates is not None
        found = (offered(self.fleet, self.signature, row, candidate) for candidate in self.candidates[row])
        return next((allocations for allocations in found if allocations is not None), None)


def place_offered(context: DecisionContext, request: Request, candidates: Mapping[str, Sequence[Any]]) -> Decision:
    """The decision on a request, prepared."""
    return finished(place_offered_in_steps(context, request, candidates))


def place_offered_in_steps(
    context: DecisionContext, request: Request, candidates: Mapping[str, Sequence[Any]]
) -> Generator[None, None, Decision]:
    """The same in steps, between which others may use other versions of the fleet."""
    check_new(context.fleet, request.instance_uuids)
    try:
        return (yield from OfferedPlacement(context, request, candidates).placing())
    except NoValidHost as error:
        return ruled_out(context, request, error)
