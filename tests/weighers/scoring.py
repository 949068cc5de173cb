"""The slow, obvious scorer: Nova 33's weights arithmetic in plain Python floats. It is the oracle of the fast ones.

    total(host) = 0.0 + sum over weighers, in order, of multiplier(host) * norm(raw(host))
    norm(raw)   = 0 if lo == hi, else (raw - lo) / (hi - lo), raw clamped to [minval, maxval] first
    lo, hi      = minval, maxval where the weigher sets them, else the least and greatest raw of the hosts compared

Nothing is cached, no form but the host form is used. O(hosts * weighers) calls of ``raw``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import HostState
from hostler.placement.types.request import Request
from hostler.placement.weighers.base import Weigher


@dataclass(frozen=True, slots=True)
class Part:
    """What one weigher adds to one host's score. ``raw`` is clamped, ``normalized`` is in 0..1 unless maxval is set."""

    weigher: str
    raw: float
    normalized: float
    multiplier: float

    @property
    def points(self) -> float:
        """The term that is added to the score."""
        return self.multiplier * self.normalized


class Scored(NamedTuple):
    """A host's place in the ranking: its index in the list that was scored, its score, and the parts, in order."""

    host_index: int
    total: float
    parts: tuple[Part, ...]


def score(hosts: Sequence[HostState], request: Request, weighers: Sequence[Weigher]) -> list[Scored]:
    """All hosts, best first; equal scores keep the order of ``hosts``.

    One host alone is not weighed: its score is 0.0 and it has no parts. Raises what a weigher raises, and InvalidValue
    if a raw value or multiplier is no finite number.
    """
    columns = [parts_of(weigher, hosts, request) for weigher in weighers] if len(hosts) > 1 else []
    scored = [_sum(index, tuple(column[index] for column in columns)) for index in range(len(hosts))]
    return sorted(scored, key=lambda one: one.total, reverse=True)


def parts_of(weigher: Weigher, hosts: Sequence[HostState], request: Request) -> list[Part]:
    """What ``weigher`` adds to each host's score, aligned with ``hosts``."""
    raws = [_clamp(weigher, _finite(weigher, "raw value", weigher.raw(host, request))) for host in hosts]
    multipliers = [_finite(weigher, "multiplier", weigher.host_multiplier(host)) for host in hosts]
    normalized = normalize(raws, weigher.minval, weigher.maxval)
    return [Part(weigher.name, *values) for values in zip(raws, normalized, multipliers, strict=True)]


def normalize(raws: Sequence[float], minval: float | None = None, maxval: float | None = None) -> list[float]:
    """Raw values brought to the range from ``minval`` (else their least) to ``maxval`` (else their greatest)."""
    if not raws:
        return []
    low = float(min(raws) if minval is None else minval)
    high = float(max(raws) if maxval is None else maxval)
    if low == high:
        return [0.0] * len(raws)
    return [(raw - low) / (high - low) for raw in raws]


def _clamp(weigher: Weigher, raw: float) -> float:
    if weigher.minval is not None and raw < weigher.minval:
        return weigher.minval
    if weigher.maxval is not None and raw > weigher.maxval:
        return weigher.maxval
    return raw


def _finite(weigher: Weigher, what: str, value: float) -> float:
    if not math.isfinite(value):
        raise InvalidValue(f"{weigher.name}: {what} is {value!r}, but must be a finite number", field=weigher.name)
    return value


def _sum(host_index: int, parts: tuple[Part, ...]) -> Scored:
    total = 0.0
    for part in parts:
        total += part.points
    return Scored(host_index, total, parts)
