"""Hosts chosen for instances that an outside Placement holds: the scan's choice and claims, with nothing kept in the
fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types.decision import Decision, ScorePart
from ..types.errors import InvalidValue
from ..types.request import Request
from ..types.validation import shown
from .claim import Claimed
from .context import DecisionContext
from .scan_placement import ScanPlacement

CandidateClaim = Callable[[str, str, Any], bool]
"""Called with (instance uuid, provider uuid, the candidate that is claimed there); False has the next host tried."""


class Choosing(ScanPlacement):
    """The scan of one request whose claims are made outside. One instance may be known to the fleet: it stays where it
    is, and counts there, as in Nova's scheduler while a guest moves. Several must be new."""

    def __init__(
        self,
        context: DecisionContext,
        request: Request,
        candidates: Mapping[str, Sequence[Any]],
        claim: CandidateClaim | None,
    ) -> None:
        if claim is not None and not callable(claim):
            raise InvalidValue(f"claim must be a function, got {shown(claim)}", field="claim")
        super().__init__(context, request, candidates)
        self._claim_candidate = claim

    def choose(self) -> Decision:
        """The decision; the fleet is afterwards what it was."""
        start = self.fleet._history.hold()
        try:
            return self.place()
        finally:
            self.fleet._history.go(start)

    def _claim_first(self, uuid: str, rows: NDArray[np.int32], weights: NDArray[np.float64]) -> Claimed | None:
        assert self.candidates is not None
        for position, row in enumerate(rows.tolist()):
            given = self.candidates[row]
            if not given or not self._claimed_outside(uuid, row, given[0]):
                continue
            allocations = self._allocations(uuid, row)
            assert allocations is not None, "what an outside Placement offers is not judged again"
            return self._take(uuid, row, float(weights[position]), allocations, self._parts(rows, position))
        return None

    def _claimed_outside(self, uuid: str, row: int, candidate: Any) -> bool:
        if self._claim_candidate is None:
            return True
        provider = self.fleet.uuid(row)
        done = self._claim_candidate(uuid, provider, candidate)
        if not isinstance(done, (bool, np.bool_)):
            raise InvalidValue(f"claim must return true or false, got {shown(done)}", field="claim")
        self.claims.append((uuid, provider, bool(done)))
        return bool(done)

    def _take(self, uuid: str, row: int, weight: float, allocations: Any, parts: tuple[ScorePart, ...]) -> Claimed:
        if len(self.request.instance_uuids) > 1:
            return super()._take(uuid, row, weight, allocations, parts)
        return Claimed(uuid, row, -1, weight, allocations.by_uuid(self.fleet), parts, allocations.mappings)

    def _clean_up(self, made: Sequence[Any]) -> None:
        if self._claim_candidate is not None:
            self.claims.extend((claimed.uuid, "delete", True) for claimed, *_ in made)


__all__ = ["CandidateClaim", "Choosing"]
