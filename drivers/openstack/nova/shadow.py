"""Shadow mode: the stock scheduler's choices beside Hostler's, on the same state, in a thread of their own. Imports
nothing of Nova."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ....placement.decide.engine import Engine
from ....placement.types.request import Request
from ..agreement import Compared, compare
from ..failures import Failures
from ..metrics import Metrics

LOG = logging.getLogger(__name__)
WAITING: Final = 64
"""Comparisons that may wait; further ones are dropped and counted."""


@dataclass(frozen=True, slots=True)
class Case:
    """One answer of stock's to compare. ``engine`` is a fork of the state that stock decided on; ``chosen``: uuid of
    the first host that it chose, None if it chose none."""

    engine: Engine
    request: Request
    candidates: Mapping[str, Sequence[Any]]
    chosen: str | None
    among: int = 1


class Shadow:
    """Compares cases one after the other. ``lock`` guards the engines, which share one fleet."""

    def __init__(self, lock: Any, metrics: Metrics, failures: Failures, *, log_differences: bool) -> None:
        self._lock, self._metrics, self._failures, self._log = lock, metrics, failures, log_differences
        self._cases: queue.Queue[Case | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None

    def submit(self, case: Case) -> None:
        """Have a case compared; it is dropped if too many wait. Does not block."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="hostler-shadow", daemon=True)
            self._thread.start()
        try:
            self._cases.put_nowait(case)
        except queue.Full:
            self._metrics.compared.labels("dropped").inc()

    def close(self) -> None:
        """Compare what waits, and end the thread."""
        if self._thread is not None and self._thread.is_alive():
            self._cases.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (case := self._cases.get()) is not None:
            try:
                self.compare(case)
            except Exception as error:  # one comparison must not end the thread that makes all of them
                self._metrics.compared.labels("error").inc()
                self._failures.note(error, "comparing an answer")

    def compare(self, case: Case) -> Compared:
        """Compare one case, count it, and log it if it differs."""
        with self._lock:
            begun = time.thread_time()
            ranked = case.engine.rank(case.request, candidates=case.candidates)
            fleet = case.engine.fleet
            weights = {
                fleet.uuid(row): weight
                for row, weight in zip(ranked.rows.tolist(), ranked.weights.tolist(), strict=True)
            }
            self._metrics.cpu.labels("hostler").inc(time.thread_time() - begun)
            compared = compare(weights, case.chosen, among=case.among)
            lines = [] if compared.agrees or not self._log else describe(case, compared)
        self._metrics.compared.labels(compared.result).inc()
        if lines:
            LOG.warning("%s", "; ".join(lines))
        return compared


def describe(case: Case, compared: Compared) -> list[str]:
    """The difference in words: what both chose, and why Hostler sees either as it does. O(hosts)."""
    fleet = case.engine.fleet
    explained = case.engine.explain(case.request, candidates=case.candidates, top=len(case.candidates))
    lines = [f"instance {case.request.instance_uuids[0]}: the answers differ ({compared.result})"]
    for who, uuid in (("stock", compared.chosen), ("Hostler", compared.best)):
        if uuid is None:
            lines.append(f"{who} found no host")
            continue
        if uuid not in case.candidates:
            lines.append(f"{who} chose {uuid}, which is no candidate here")
            continue
        node = fleet.name(fleet.row_of_uuid(uuid))
        refused = explained.reason(node)
        if refused is not None:
            lines.append(f"{who} chose {node}, which {refused.stage} refuses here: {refused.reason}")
            continue
        host = next(each for each in explained.top if each.node == node)
        parts = ", ".join(f"{part.weigher} {part.points:g}" for part in host.parts if part.points)
        lines.append(f"{who} chose {node} of weight {host.weight:g} ({parts or 'no weigher tells it apart'})")
    return lines


__all__ = ["WAITING", "Case", "Shadow", "describe"]
