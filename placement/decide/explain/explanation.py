"""Explanations: per host the first refusing stage in words, what every weigher gave, and what would change the
answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...types.decision import Refusal, ScorePart
from ...types.errors import NoValidHost
from ...types.request import Request
from .counterfactuals import near_misses, without_weighers
from .reasons import Reasons
from .refusals import refusal

if TYPE_CHECKING:
    from ..engine import Engine
    from ..scan import Ranked, Scheduling


@dataclass(frozen=True, slots=True)
class HostReason:
    """Why one host was refused: ``stage`` is the first that did, ``reason`` says it in words with numbers."""

    host: str
    node: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class RankedHost:
    """One of the best hosts, with what each weigher gave it."""

    host: str
    node: str
    weight: float
    parts: tuple[ScorePart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The whole story of a request on the fleet as it is. ``removed`` counts by stage, in order; ``counterfactuals``
    say what would change the answer; ``refusal`` is set where no host passed."""

    considered: int
    removed: Mapping[str, int]
    top: tuple[RankedHost, ...]
    refused: tuple[HostReason, ...]
    counterfactuals: tuple[str, ...]
    refusal: Refusal | None

    def reason(self, node: str) -> HostReason | None:
        """Why ``node`` was refused; None if it passed or is no host here. O(hosts)."""
        return next((each for each in self.refused if each.node == node), None)


def explain(
    engine: Engine, request: Request, *, top: int, candidates: Mapping[str, Sequence[Any]] | None
) -> Explanation:
    """See ``Engine.explain``."""
    from ..scan import Scheduling

    try:
        scheduling = Scheduling(engine, request, candidates)
    except NoValidHost as error:
        ruled_out = Refusal(sentence=error.args[0], stage="request", hint=error.hint)
        return Explanation(considered=0, removed={}, top=(), refused=(), counterfactuals=(), refusal=ruled_out)
    ranked = scheduling.rank()
    return Explanation(
        considered=len(ranked.considered),
        removed=ranked.removed,
        top=_top(scheduling, ranked, top),
        refused=tuple(_refused(scheduling, ranked)),
        counterfactuals=(*without_weighers(scheduling, ranked), *near_misses(scheduling, ranked)),
        refusal=None if len(ranked.rows) else refusal(request, ranked, 0),
    )


def _top(scheduling: Scheduling, ranked: Ranked, top: int) -> tuple[RankedHost, ...]:
    fleet, rows = scheduling.fleet, ranked.rows
    columns = ranked.signature.ranking.parts(rows, scheduling.members(rows)) if len(rows) > 1 else []
    best = []
    for position, row in enumerate(rows[:top]):
        parts = tuple(
            ScorePart(weigher.name, float(raw[position]), float(normalised[position]), float(multiplier[position]))
            for weigher, (raw, normalised, multiplier) in zip(ranked.signature.weighers, columns, strict=bool(columns))
        )
        name = fleet.service_host(int(row)), fleet.name(int(row))
        best.append(RankedHost(*name, float(ranked.weights[position]), parts))
    return tuple(best)


def _refused(scheduling: Scheduling, ranked: Ranked) -> list[HostReason]:
    fleet, reasons = scheduling.fleet, Reasons(scheduling)
    refused = ranked.refusing_stages != 0
    return [
        HostReason(fleet.service_host(row), fleet.name(row), *reasons.of_refusal(row, stage))
        for row, stage in zip(
            ranked.considered[refused].tolist(), ranked.refusing_stages[refused].tolist(), strict=True
        )
    ]
