"""Contention of CPUs: how often the guests of a host want more of its cores than a share of them, by what each uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.engine import Engine
from ...placement.types.request import RequestSpec
from ..trace.terms import Terms, Usage
from .holding import cpus_of
from .observer import Observer

THRESHOLDS: Final = (70, 80, 90, 100)
"""Percent of a host's cores."""
_NORMAL_95: Final = 1.6448536269514722
"""Standard deviations between the mean and the 95th percentile of a normal distribution."""
Real = NDArray[np.float64]


class Contention(Observer):
    """The CPU time that guests want, host by host. ``of``: what the guests of each spec number use, None where the
    trace does not tell; guests of whom nothing is known use what the mean guest does.

    A host's demand is taken for normally distributed, with the sum of its guests' means and variances: guests peak
    independently of each other.
    """

    def __init__(self, engine: Engine, terms: Sequence[Terms], specs: Sequence[RequestSpec]) -> None:
        self.engine = engine
        # CPUs that guests have for themselves are not shared.
        vcpus = [cpus_of(spec)[0] for spec in specs]
        told = [(each.usage, size) for each, size in zip(terms, vcpus, strict=True) if each.usage is not None]
        weight = max(1, sum(size for _, size in told))
        self._typical = Usage(
            mean=sum(usage.mean * size for usage, size in told) / weight,
            p95=sum(usage.p95 * size for usage, size in told) / weight,
        )
        self._by_spec = [
            self._wants(each.usage or self._typical, size) for each, size in zip(terms, vcpus, strict=True)
        ]
        self._at: dict[str, tuple[int, float, float]] = {}
        """Guest -> row, mean and variance of the cores that it wants."""
        self._mean: Real = np.zeros(0)
        self._variance: Real = np.zeros(0)
        self._host_s = 0.0
        self._above_s: Real = np.zeros(len(THRESHOLDS))

    @staticmethod
    def _wants(usage: Usage, vcpus: int) -> tuple[float, float]:
        deviation = max(0.0, usage.p95 - usage.mean) / _NORMAL_95 * vcpus
        return usage.mean * vcpus, deviation * deviation

    def came(self, uuid: str, row: int, spec: int) -> None:
        """A guest of a spec number has been placed on a row."""
        self._add(uuid, row, *self._by_spec[spec])

    def stand(self, uuid: str, row: int, spec: RequestSpec) -> None:
        """A guest of which nothing is known stands on a row."""
        self._add(uuid, row, *self._wants(self._typical, cpus_of(spec)[0]))

    def left(self, uuids: Sequence[str]) -> None:
        """Guests have left their hosts."""
        for uuid in uuids:
            if uuid in self._at:
                row, mean, variance = self._at.pop(uuid)
                self._mean[row] -= mean
                self._variance[row] -= variance

    def moved(self, uuid: str, row: int) -> None:
        """A guest is on another row now."""
        if uuid in self._at:
            _, mean, variance = self._at[uuid]
            self.left([uuid])
            self._add(uuid, row, mean, variance)

    def _add(self, uuid: str, row: int, mean: float, variance: float) -> None:
        if row >= len(self._mean):
            more = max(64, row + 1, 2 * len(self._mean)) - len(self._mean)
            self._mean, self._variance = (
                np.concatenate([each, np.zeros(more)]) for each in (self._mean, self._variance)
            )
        self._mean[row] += mean
        self._variance[row] += variance
        self._at[uuid] = row, mean, variance

    def passed(self, seconds: int, rows: NDArray[np.int64], cores: Real) -> None:
        """So much time has passed with the hosts of ``rows``, which have so many cores and run. O(hosts)."""
        if not seconds or not len(rows):
            return
        inside = rows < len(self._mean)
        mean, variance = np.zeros(len(rows)), np.zeros(len(rows))
        mean[inside], variance[inside] = self._mean[rows[inside]], self._variance[rows[inside]]
        self._host_s += seconds * len(rows)
        for number, percent in enumerate(THRESHOLDS):
            self._above_s[number] += seconds * float(_above(mean, variance, cores * (percent / 100)).sum())

    def percent(self) -> dict[str, float]:
        """Threshold in percent of the cores -> percent of the host-hours in which guests want more."""
        parts = 100.0 * self._above_s / max(self._host_s, 1.0)
        return {str(percent): round(part, 4) for percent, part in zip(THRESHOLDS, parts.tolist(), strict=True)}

    def state(self) -> dict[str, Any]:
        """What changes, as plain values, for a checkpoint."""
        return {"at": self._at, "host_s": self._host_s, "above_s": self._above_s.tolist()}

    def restore(self, at: Mapping[str, tuple[int, float, float]], host_s: float, above_s: Sequence[float]) -> None:
        """Go on from what ``state`` told."""
        self._mean, self._variance, self._at = np.zeros(0), np.zeros(0), {}
        for uuid, (row, mean, variance) in at.items():
            self._add(uuid, row, mean, variance)
        self._host_s, self._above_s = host_s, np.array(above_s)


def _above(mean: Real, variance: Real, limit: Real) -> Real:
    """Probability that a normal variable is above a limit; without variance, whether it is. Abramowitz and Stegun
    7.1.26: an error below 1.5e-7."""
    deviation = np.sqrt(np.maximum(variance, 0.0))
    still = deviation < 1e-9
    z = (limit - mean) / np.where(still, 1.0, deviation) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * np.abs(z))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * np.exp(-np.minimum(z * z, 700.0))
    found: Real = np.where(still, (mean > limit + 1e-9).astype(np.float64), np.where(z >= 0, tail, 1.0 - tail))
    return found
