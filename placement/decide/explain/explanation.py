"""Explanations: per host the first refusing stage in words, what every weigher gave, and what would change the
answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ...fleet.fleet import Fleet
from ...types.decision import Counterfactual, Reason, ReasonCode, Refusal, ScorePart
from ...types.errors import NoValidHost
from ...types.ordered_sum import ordered_sum
from ...types.request import Request
from ..context import DecisionContext
from ..scan import Ranked, Scan
from .counterfactuals import near_misses, without_weighers
from .empty import Trial, fits_empty, fits_on_an_empty_fork
from .reasons import Reasons
from .refusals import code_of, refusal


@dataclass(frozen=True, slots=True)
class HostReason:
    """Why one host was refused: ``stage`` is the first that did, ``reason`` says it in words with numbers; the other
    fields are those of ``Reason``, for programs."""

    host: str
    node: str
    stage: str
    reason: str
    code: ReasonCode = "filter"
    resource: str | None = None
    asked: int | None = None
    limit: int | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RankedHost:
    """One of the best hosts, with what each weigher gave it."""

    host: str
    node: str
    weight: float
    parts: tuple[ScorePart, ...]

    @property
    def points(self) -> float:
        """The points of all weighers, added up from left to right. O(weighers)."""
        return ordered_sum(part.points for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The explanation of a request on the current fleet. ``removed`` counts by stage, in order; ``changes`` are what
    alone would change the answer, and ``counterfactuals`` the same in words; ``refusal`` is set where no host passed.
    ``fits_empty``: whether a host would pass if it were empty, where ``assume_empty`` asked."""

    considered: int
    removed: Mapping[str, int]
    top: tuple[RankedHost, ...]
    refused: tuple[HostReason, ...]
    counterfactuals: tuple[str, ...]
    refusal: Refusal | None
    changes: tuple[Counterfactual, ...] = ()
    fits_empty: bool | None = None

    @property
    def pivotal(self) -> tuple[Counterfactual, ...]:
        """The weighers without each of which another host would win, and that host."""
        return tuple(change for change in self.changes if change.code == "weigher")

    def reason(self, node: str) -> HostReason | None:
        """Why ``node`` was refused; None if it passed or is not a host. O(hosts)."""
        return next((each for each in self.refused if each.node == node), None)


def explain(
    context: DecisionContext,
    request: Request,
    *,
    top: int,
    candidates: Mapping[str, Sequence[Any]] | None,
    empty_fork: Callable[[], Trial] | None,
) -> Explanation:
    """See ``Engine.explain``. ``empty_fork``: an engine to try on, if asked whether the request fits an empty fleet."""
    try:
        scan = Scan(context, request, candidates)
    except NoValidHost as error:
        ruled_out = Refusal(sentence=error.args[0], stage="request", hint=error.hint, code="request")
        return Explanation(considered=0, removed={}, top=(), refused=(), counterfactuals=(), refusal=ruled_out)
    ranked = scan.rank()
    rows = None if scan.considers_all else ranked.considered
    changes = (*without_weighers(scan, ranked), *near_misses(scan, rows))
    refused = None if len(ranked.rows) else refusal(request, ranked, 0)
    empty = None
    if empty_fork is not None:
        empty = True if len(ranked.rows) else fits_empty(scan, rows)
        if empty is None:
            empty = fits_on_an_empty_fork(context, request, ranked, empty_fork)
        if refused is not None and refused.code == "refused":
            refused = msgspec.structs.replace(refused, code=code_of(empty), fits_empty=empty)
    return Explanation(
        considered=len(ranked.considered),
        removed=ranked.removed,
        top=_top(scan, ranked, top),
        refused=tuple(_refused(scan, ranked)),
        counterfactuals=tuple(change.text for change in changes),
        refusal=refused,
        changes=changes,
        fits_empty=empty,
    )


def _top(scan: Scan, ranked: Ranked, top: int) -> tuple[RankedHost, ...]:
    fleet, rows = scan.fleet, ranked.rows
    columns = ranked.signature.ranking.parts(rows, scan.members(rows)) if len(rows) > 1 else []
    best = []
    for position, row in enumerate(rows[:top]):
        parts = tuple(
            ScorePart(weigher.name, float(raw[position]), float(normalised[position]), float(multiplier[position]))
            for weigher, (raw, normalised, multiplier) in zip(ranked.signature.weighers, columns, strict=bool(columns))
        )
        name = fleet._service_host(int(row)), fleet.name(int(row))
        best.append(RankedHost(*name, float(ranked.weights[position]), parts))
    return tuple(best)


def _refused(scan: Scan, ranked: Ranked) -> list[HostReason]:
    fleet, reasons = scan.fleet, Reasons(scan)
    refused = ranked.refusing_stages != 0
    return [
        _host_reason(fleet, row, *reasons.of_refusal(row, stage))
        for row, stage in zip(
            ranked.considered[refused].tolist(), ranked.refusing_stages[refused].tolist(), strict=True
        )
    ]


def _host_reason(fleet: Fleet, row: int, stage: str, why: Reason) -> HostReason:
    return HostReason(fleet._service_host(row), fleet.name(row), stage, *why)
