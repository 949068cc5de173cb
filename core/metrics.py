"""Prometheus metrics of the service: queue, batches, journal and decision times, refusals by filter, and how full and
how fragmented the hosts are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from ..placement import commands as p
from ..placement.decision import Decision
from ..placement.errors import HostlerError
from .machine import Order
from .queries import capacity
from .rpc.server import RpcServer
from .service import Service

SECONDS: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Counts what a service's writer does, and looks at its state when it is scraped."""

    def __init__(self, service: Service, server: RpcServer) -> None:
        self._service, self._server = service, server
        self.registry = CollectorRegistry()
        self._commands = self._counter("hostler_commands", "Commands by kind and outcome.", "command", "outcome")
        self._removed = self._counter("hostler_hosts_removed", "Hosts that a stage took out of a decision.", "stage")
        self._batch = self._histogram("hostler_batch_commands", "Commands in a batch.", SIZES)
        self._journal = self._histogram("hostler_journal_seconds", "Writing a batch to the disk, synced.", SECONDS)
        self._apply = self._histogram("hostler_apply_seconds", "Deciding and applying a batch.", SECONDS)
        self._outcomes: dict[tuple[str, str], Any] = {}
        self._stages: dict[str, Any] = {}
        self.registry.register(self)
        service.writer.observers.append(self._applied)
        service.writer.batch_observers.append(self._batched)

    def page(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, about, buckets=buckets, registry=self.registry)

    def _batched(self, commands: int, journal_seconds: float, apply_seconds: float) -> None:
        self._batch.observe(commands)
        self._journal.observe(journal_seconds)
        self._apply.observe(apply_seconds)

    def _applied(self, sequence: int, order: Order, outcome: Any) -> None:
        name = str(type(order.command).__struct_config__.tag)
        if isinstance(outcome, HostlerError):
            self._count(name, outcome.code)
        elif isinstance(outcome, Decision):
            self._count(name, "ok" if outcome.refusal is None else "no_valid_host")
            for stage, removed in outcome.removed.items():
                if removed:
                    self._stage(stage).inc(removed)
        elif isinstance(outcome, p.Placed):
            self._count(name, "ok", outcome.placed)
            for code, _ in outcome.refusals.values():
                self._count(name, code)
        else:
            self._count(name, "ok")

    def _count(self, command: str, outcome: str, number: int = 1) -> None:
        known = self._outcomes.get((command, outcome))
        if known is None:
            known = self._outcomes[command, outcome] = self._commands.labels(command, outcome)
        known.inc(number)

    def _stage(self, name: str) -> Any:
        known = self._stages.get(name)
        if known is None:
            known = self._stages[name] = self._removed.labels(name)
        return known

    def collect(self) -> Iterator[Metric]:
        """What is looked up when it is asked for. O(hosts)."""
        writer, state = self._service.writer, self._service.state
        plain = {
            "hostler_queue_commands": ("Commands that wait.", writer.queued),
            "hostler_sequence": ("Number of the last command.", writer.sequence),
            "hostler_writable": ("1 if the journal can be written.", float(writer.writable)),
            "hostler_connections": ("Connections of RPC clients.", len(self._server.connections)),
            "hostler_connections_refused": ("Connections beyond the limit.", self._server.refused),
            "hostler_hosts": ("Compute hosts.", float(state.fleet.is_host.sum())),
        }
        for name, (about, value) in plain.items():
            yield GaugeMetricFamily(name, about, value=value)
        families = {
            "total": GaugeMetricFamily("hostler_capacity", "Capacity by resource class.", labels=["resource_class"]),
            "used": GaugeMetricFamily("hostler_used", "Use by resource class.", labels=["resource_class"]),
            "fragmentation": GaugeMetricFamily(
                "hostler_fragmentation", "Share of the free capacity on nearly full hosts.", labels=["resource_class"]
            ),
        }
        for resource, figures in capacity(state.fleet).items():
            for name, family in families.items():
                family.add_metric([resource], getattr(figures, name))
        yield from families.values()
