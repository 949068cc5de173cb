"""How long the filters, weighers and claim of a placement take: measured on real decisions, a few in a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from ...placement.decide.batch_decisions import Decisions
from ...placement.decide.engine import Engine
from ...placement.decide.signature import Signature
from ...placement.request.checks import check_request
from ...placement.types.errors import HostlerError
from ...placement.types.request import Request

SAMPLE_SECONDS: Final = 0.1
"""Between two samples at least, so that they cost little where there is much to do."""
SHARE: Final = 0.01
"""Of the time, at most, that samples may take from others."""
_STRIDE: Final = 7_919
"""A prime, so that samples fall on all positions of a run."""

Phases = Mapping[str, float]
"""Seconds by phase: compile, filters, weighers, claim."""


class PhaseSampler:
    """Measures one placement now and then. ``told`` is called with the method of the decision (``index`` or ``scan``)
    and the phases.

    The phases that the decision requires are run and measured before the engine decides: updating changed hosts, then
    searching the best. The engine then finds the first phase done and repeats the second. No answer depends on it.
    """

    def __init__(
        self,
        told: Callable[[str, Phases], None],
        *,
        every: float = SAMPLE_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._told, self._every, self._clock = told, every, clock
        self._next, self._turn = 0.0, 0

    def choose(self, count: int) -> int | None:
        """Position of the request to be measured in the next batch of ``count`` requests; None: none."""
        now = self._clock()
        if now < self._next or not count:
            return None
        self._next, self._turn = now + self._every, self._turn + _STRIDE
        return self._turn % count

    def place(self, engine: Engine, request: Request) -> Decisions:
        """``place_many`` of one request, not strict, measured."""
        clock = self._clock
        looked = clock()
        try:
            way, phases, repeated = self._looked(engine, request)
        except (HostlerError, ArithmeticError, LookupError, TypeError, ValueError):
            return engine.place_many((request,), strict=False)  # which has the error, or the refusal
        began = clock()
        self._next = max(self._next, began + (began - looked) / SHARE)
        decisions = engine.place_many((request,), strict=False)
        self._told(way, {**phases, "claim": max(clock() - began - repeated, 0.0)})
        return decisions

    def _looked(self, engine: Engine, request: Request) -> tuple[str, Phases, float]:
        """(method, phases before the claim, seconds of these that the decision repeats)."""
        clock, began = self._clock, self._clock()
        check_request(request)
        engine.advance(request.now)
        signature = engine._context.signature(request)
        compiled = clock()
        for _, results in signature.owner.row_judges:
            results.refresh()
        judged = clock()
        for values in signature.owner.row_values:
            values.cache.refresh()
        valued = clock()
        if engine._context.ranked_way(request) is None:
            way, (filters, weighers, repeated) = "scan", self._scanned(engine, request)
        else:
            way, (filters, weighers, repeated) = "index", self._ranked(engine, request, signature)
        filters, weighers = filters + judged - compiled, weighers + valued - judged
        return way, {"compile": compiled - began, "filters": filters, "weighers": weighers}, repeated

    def _ranked(self, engine: Engine, request: Request, signature: Signature) -> tuple[float, float, float]:
        clock, ranking, group = self._clock, signature.ranking, -1
        if isinstance(request.server_group, str):
            group = engine.fleet._group_id(request.server_group)
        began = clock()
        ranking.refresh()
        refreshed = clock()
        ranking.best(group, 1 + request.alternates)
        searched = clock() - refreshed
        return refreshed - began, searched, searched

    def _scanned(self, engine: Engine, request: Request) -> tuple[float, float, float]:
        began = self._clock()
        ranked = engine.rank(request)
        found = self._clock()
        assert ranked.scan is not None
        ranked.signature.ranking.score_rows(ranked.rows, ranked.scan.members(ranked.rows))
        weighed = self._clock() - found
        return max(found - began - weighed, 0.0), weighed, found - began
