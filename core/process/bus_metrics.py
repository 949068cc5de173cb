"""What a message bus measures: its calls by method and outcome, their times, fan-outs, connections, and how old the
state is that it follows. Counted in any thread, and read when metrics are scraped."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CallOutcome = Literal["ok", "no_valid_host", "refused", "gave_up", "given_back", "failed"]
"""``refused``: the request cannot be read, or not decided by Nova's rules; ``gave_up``: its caller no longer waits, and
nothing was claimed; ``given_back``: this member of a cluster leads no more, and the call went back to the bus for the
next one; ``failed``: the service could not carry it out."""
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_COUNTS: Final = {
    "hostler_nova_connection_failures": "Connections to Nova's bus that were lost or could not be made",
    "hostler_nova_reconnects": "Lost connections to Nova's bus that were made again",
    "hostler_nova_look_failures": "Looks at Nova's databases that failed",
    "hostler_nova_lost_claims": "Claims that were given back as their answers were lost",
    "hostler_nova_heartbeats": "Heartbeats written to Nova's table services",
    "hostler_nova_heartbeat_failures": "Heartbeats that could not be written to Nova's table services",
}


class BusMetrics:
    """Counters of one bus, from its start. All methods may be called in any thread."""

    def __init__(self) -> None:
        about = "Time of a call on Nova's bus from its receipt to its answer"
        self._seconds = Histogram("hostler_nova_call_seconds", about, ("method",), buckets=SECONDS, registry=None)
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._casts: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._looked: dict[str, float] = {}
        self._in_hand = 0
        self._consuming = False

    def begun(self) -> None:
        """A message was taken from the bus."""
        with self._lock:
            self._in_hand += 1

    def ended(self) -> None:
        """What was asked for by a message is done."""
        with self._lock:
            self._in_hand -= 1

    def called(self, method: str, outcome: CallOutcome, seconds: float) -> None:
        """A call was answered, ``seconds`` after it was received."""
        with self._lock:
            self._calls[method, outcome] += 1
        self._seconds.labels(method).observe(seconds)

    def cast(self, method: str) -> None:
        """A fan-out came."""
        with self._lock:
            self._casts[method] += 1

    def consuming(self, is_so: bool) -> None:
        """Whether calls are taken from the bus."""
        self._consuming = is_so

    def connection_failed(self) -> None:
        """A connection to the bus was lost, or could not be made."""
        with self._lock:
            self._counts["hostler_nova_connection_failures"] += 1

    def reconnected(self) -> None:
        """A lost connection is there again."""
        with self._lock:
            self._counts["hostler_nova_reconnects"] += 1

    def looked(self, cell: str) -> None:
        """The database of a cell was read."""
        with self._lock:
            self._looked[cell] = time.monotonic()

    def look_failed(self) -> None:
        """A database could not be read, or what was read in it not taken in."""
        with self._lock:
            self._counts["hostler_nova_look_failures"] += 1

    def released_claims(self, count: int) -> None:
        """So many claims were given back whose answers were lost."""
        with self._lock:
            self._counts["hostler_nova_lost_claims"] += count

    def has_cells(self, cells: frozenset[str]) -> None:
        """These are the cells; others are no more."""
        with self._lock:
            self._looked = {cell: at for cell, at in self._looked.items() if cell in cells}

    def heartbeat(self, *, failed: bool) -> None:
        """The row of the service was written, or could not be."""
        with self._lock:
            self._counts["hostler_nova_heartbeat_failures" if failed else "hostler_nova_heartbeats"] += 1

    def calls(self, method: str, outcome: CallOutcome) -> int:
        """How many calls of a method ended so."""
        with self._lock:
            return self._calls[method, outcome]

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        with self._lock:
            calls, casts, counts = dict(self._calls), dict(self._casts), dict(self._counts)
            looked, in_hand = dict(self._looked), self._in_hand
        about = "Calls on Nova's bus by method and outcome"
        family = CounterMetricFamily("hostler_nova_calls", about, labels=("method", "outcome"))
        for labels in sorted(calls):
            family.add_metric(labels, calls[labels])
        yield family
        yield from self._seconds.collect()
        family = CounterMetricFamily("hostler_nova_fan_outs", "Fan-outs on Nova's bus by method", labels=("method",))
        for method in sorted(casts):
            family.add_metric((method,), casts[method])
        yield family
        yield GaugeMetricFamily("hostler_nova_in_hand", "Messages of Nova's bus that are being carried out", in_hand)
        about = "1 while calls are taken from Nova's bus, else 0"
        yield GaugeMetricFamily("hostler_nova_consuming", about, float(self._consuming))
        for name, about in _COUNTS.items():
            yield CounterMetricFamily(name, about, value=counts.get(name, 0))
        about = "Seconds since the database of a cell was last read"
        ages, now = GaugeMetricFamily("hostler_nova_cell_age_seconds", about, labels=("cell",)), time.monotonic()
        for cell in sorted(looked):
            ages.add_metric((cell,), now - looked[cell])
        yield ages


__all__ = ["BusMetrics", "CallOutcome"]
