"""Counters and measurements of the service as Prometheus metrics.

Counters are plain numbers; sums over the fleet are computed when the metrics are scraped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ...placement.fleet.fleet import Fleet
from ...placement.types.decision import Decision, PackedDecision
from ...placement.types.errors import HostlerError
from ..cluster_status import Cluster
from ..engine_commands import Hold, Move, Place, PlaceCandidates, PlaceMany, Resize
from ..engine_commands import Placed as PlacedMany
from ..failures import Failures
from ..journal.journal import Recovery
from ..machine.orders import Order
from ..machine.phase_timing import Phases, PhaseSampler
from ..machine.queries import capacity
from ..reconcile.reconciler import Reconciler
from ..regions.cascade import Cascade
from ..rpc.server import RpcServer
from ..service import Service
from ..shadow.shadowing import Shadowing
from . import logs
from .audit import AuditLog
from .clock import HonestClock
from .cluster_metrics import cluster_metrics, etcd_trouble
from .nova import Bus
from .reconcile_metrics import reconcile_metrics
from .region_metrics import region_metrics
from .shadow_metrics import shadow_metrics

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SHORT_SECONDS: Final = (
    *(0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005),
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25),
)
STAGES: Final = 256
"""Stages that have a label of their own."""
OTHER: Final = "other"
PHASES: Final = "queue: the wait of one command of it; journal: written and synced; decide: carried out"


class Metrics:
    """Counters and histograms of one process. Those of the service are added once it has recovered (``watch``)."""

    def __init__(self, failures: Failures | None = None, clock: HonestClock | None = None) -> None:
        self.failures = failures if failures is not None else Failures()
        self._clock = clock if clock is not None else HonestClock()
        self.registry = CollectorRegistry(auto_describe=False)
        self._batches = self._histogram("hostler_batch_commands", "Commands in one journal transaction", SIZES)
        self._fsync = self._histogram("hostler_fsync_seconds", "Committing a transaction: written and synced", SECONDS)
        about = f"Time of a batch in each phase: {PHASES}"
        phases = Histogram("hostler_decision_seconds", about, ("phase",), buckets=SECONDS, registry=self.registry)
        self._queue, self._journal, self._decide = (phases.labels(name) for name in ("queue", "journal", "decide"))
        about = "Time of one placement in each phase; some ten a second are measured"
        ways = ("way", "phase")
        self._placement = Histogram(
            "hostler_placement_seconds", about, ways, buckets=SHORT_SECONDS, registry=self.registry
        )
        self.commands: Counter[tuple[type[Any], str]] = Counter()
        """By command and outcome: ok, or an error's code."""
        self.placements: Counter[str] = Counter()
        """Requests by outcome; each request of a batch counts."""
        self.refusals: Counter[str] = Counter()
        """Refused requests by the stage that left no host."""
        self.removed: Counter[str] = Counter()
        """Hosts that each stage took out, over all refused requests."""
        self.reloads: Counter[str] = Counter({"ok": 0, "failed": 0})
        """Reloads of the configuration by outcome."""
        self.recovery: tuple[Recovery, float] | None = None
        """What the start found, and the seconds that it took."""
        self.audit: AuditLog | None = None
        self.reconciler: Reconciler | None = None
        self.shadow: Shadowing | None = None
        self.regions: Cascade | None = None
        self.cluster: Cluster | None = None
        self.etcd: Callable[[], HostlerError | None] | None = None
        """Of a member of a cluster: why etcd does not do what it asks for, None while it does."""
        self.bus: Bus | None = None
        self._service: Service | None = None
        self._server: RpcServer | None = None
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format. O(hosts * resource classes)."""
        return generate_latest(self.registry)

    def watch(self, service: Service, server: RpcServer) -> None:
        """Measure a service that has recovered, from now on."""
        self._service, self._server = service, server
        service.writer.observers.append(self._applied)
        service.writer.batch_observers.append(self._batched)
        service.state.sampler = PhaseSampler(self._placed)

    def committed(self, seconds: float) -> None:
        """The journal has committed a transaction. May be called from any thread."""
        self._fsync.observe(seconds)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, about, buckets=buckets, registry=self.registry)

    def _batched(self, commands: int, journal_seconds: float, decide_seconds: float) -> None:
        self._batches.observe(commands)
        self._journal.observe(journal_seconds)
        self._decide.observe(decide_seconds)
        if self._service is not None and (since := self._service.sampled()) is not None:
            self._queue.observe(max(time.perf_counter() - since - journal_seconds - decide_seconds, 0.0))

    def _placed(self, way: str, phases: Phases) -> None:
        for phase, seconds in phases.items():
            self._placement.labels(way, phase).observe(seconds)

    def _applied(self, _: int, order: Order, outcome: Any) -> None:
        command = order.command
        if isinstance(outcome, HostlerError):
            self.commands[type(command), outcome.code] += 1
            if isinstance(command, (Place, PlaceCandidates, Hold, Move, Resize)):
                self.placements[outcome.code] += 1
            return
        self.commands[type(command), "ok"] += 1
        if type(outcome) is PackedDecision:
            self.placements["placed"] += 1
        elif isinstance(outcome, Decision):
            self._decided(outcome)
        elif isinstance(command, PlaceMany) and isinstance(outcome, PlacedMany):
            self.placements["placed"] += outcome.placed
            for code, _sentence in outcome.refusals.values():
                self.placements[code] += 1
            _count(self.refusals, outcome.refused_by)
            _count(self.removed, outcome.removed)

    def _decided(self, decision: Decision) -> None:
        if decision.refusal is None:
            self.placements["placed"] += 1
            return
        self.placements["no_valid_host"] += 1
        _count(self.refusals, {decision.refusal.stage: 1})
        _count(self.removed, {stage: hosts for stage, hosts in decision.removed.items() if hosts})

    # when scraped

    def describe(self) -> list[Metric]:
        """Empty: names are known only once a service runs."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Counters, and values that are computed now."""
        commands = CounterMetricFamily("hostler_commands", "Commands by outcome", labels=("command", "outcome"))
        counts = {(str(kind.__struct_config__.tag), outcome): n for (kind, outcome), n in self.commands.items()}
        for labels in sorted(counts):
            commands.add_metric(labels, counts[labels])
        yield commands
        yield _counted("hostler_placements", "Requests to place instances, by outcome", "outcome", self.placements)
        yield _counted("hostler_refusals", "Refused requests by the stage that left no host", "stage", self.refusals)
        yield _counted("hostler_hosts_removed", "Hosts each stage took out, in refused requests", "stage", self.removed)
        yield _counted("hostler_reloads", "Reloads of the configuration", "outcome", self.reloads)
        if self.recovery is not None:
            found, seconds = self.recovery
            yield _gauge("hostler_recovery_seconds", "Time that the last start took to recover", seconds)
            yield _gauge("hostler_recovered_commands", "Commands replayed at the last start", found.replayed)
            apart = "Commands that the last start set apart, because they killed the process"
            yield _gauge("hostler_recovery_set_apart", apart, len(found.set_apart))
            yield _gauge("hostler_recovery_damages", "What was found damaged at the last start", len(found.damage))
        if self.audit is not None:
            lost = "Lines that the audit log could not write"
            yield CounterMetricFamily("hostler_audit_lines_lost", lost, value=self.audit.lost)
        failures = "Failures of parts beside the writer: snapshots, audit, metrics, watchers, logs"
        yield _counted("hostler_failures", failures, "part", self.failures.counts)
        jumps = CounterMetricFamily("hostler_clock_jumps", "Jumps of the wall clock", labels=("followed",))
        jumps.add_metric(("yes",), self._clock.followed)
        jumps.add_metric(("no",), self._clock.jumps - self._clock.followed)
        yield jumps
        apart = "Seconds by which the wall clock is ahead of the time that the service goes by"
        yield _gauge("hostler_clock_disagreement_seconds", apart, self._clock.disagreement)
        lost = "Log lines that standard error did not take"
        yield CounterMetricFamily("hostler_log_lines_lost", lost, value=logs.lost())
        if self._server is not None:
            yield _gauge("hostler_connections", "RPC connections", len(self._server.connections))
            refused = "RPC connections beyond the limit"
            yield CounterMetricFamily("hostler_connections_refused", refused, value=self._server.refused)
            dismissed = "RPC connections that were ended because of what the peer sent or showed"
            yield _counted("hostler_connections_dismissed", dismissed, "code", self._server.budget.dismissed)
        if self.etcd is not None:
            yield etcd_trouble(self.etcd())
        if self.cluster is not None:
            yield from cluster_metrics(self.cluster)
        if self.reconciler is not None:
            yield from reconcile_metrics(self.reconciler)
        if self.shadow is not None:
            yield from shadow_metrics(self.shadow)
        if self.regions is not None:
            yield from region_metrics(self.regions)
        if self.bus is not None:
            yield from self.bus.metrics.collect()
        if self._service is not None:
            yield from _service_metrics(self._service)
            yield from _capacity_metrics(self._service.state.fleet)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _count(counts: Counter[str], more: Mapping[str, int]) -> None:
    """Add to counts by stage. A stage that is new when there are ``STAGES`` counts as ``other``: custom resource
    classes are stages, come and go, and would stay as labels."""
    for stage, number in more.items():
        counts[stage if stage in counts or len(counts) < STAGES else OTHER] += number


def _counted(name: str, text: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for key in sorted(counts):
        family.add_metric((key,), counts[key])
    return family


def _service_metrics(service: Service) -> Iterator[Metric]:
    writer, state = service.writer, service.state
    fleet = state.fleet
    yield _gauge("hostler_sequence", "Number of the last command that was carried out", writer.sequence)
    yield _gauge("hostler_queue_commands", "Commands that wait", writer.queued)
    yield _gauge("hostler_queue_bytes", "Length of commands that wait or are carried out", writer.queued_bytes)
    yield from _snapshot_metrics(service)
    yield _gauge("hostler_writable", "1 while commands are taken, 0 while the disk refuses", float(writer.writable))
    rows = fleet.is_host[: fleet.rows].nonzero()[0]
    up = int(fleet.column("service_up")[rows].sum())
    hosts = GaugeMetricFamily("hostler_hosts", "Compute hosts by the state of their service", labels=("state",))
    hosts.add_metric(("up",), up)
    hosts.add_metric(("down",), len(rows) - up)
    yield hosts
    instances = int(fleet.column("num_instances")[rows].sum())
    yield _gauge("hostler_instances", "Instances on all hosts", instances)
    policy = InfoMetricFamily("hostler_policy", "The policy in force")
    policy.add_metric((), {"digest": state.engine.policy.digest})
    yield policy


def _snapshot_metrics(service: Service) -> Iterator[Metric]:
    writer, snapshots = service.writer, service.writer.snapshots
    if writer.journal is None:
        return
    yield _gauge("hostler_snapshot_sequence", "Number of the last command in the newest snapshot", snapshots.sequence)
    behind = "Commands since the newest snapshot, which a recovery replays"
    yield _gauge("hostler_snapshot_behind_commands", behind, writer.sequence - snapshots.sequence)
    taken = CounterMetricFamily("hostler_snapshots", "Snapshots by outcome", labels=("outcome",))
    taken.add_metric(("ok",), snapshots.completed)
    taken.add_metric(("failed",), snapshots.failed)
    yield taken
    age = "Seconds since this process completed its newest snapshot, or since its start"
    yield _gauge("hostler_snapshot_age_seconds", age, time.monotonic() - snapshots.at)


def _capacity_metrics(fleet: Fleet) -> Iterator[Metric]:
    label = ("resource_class",)
    about = "(total - reserved) * allocation_ratio of all providers"
    total = GaugeMetricFamily("hostler_capacity", about, labels=label)
    used = GaugeMetricFamily("hostler_used", "What is allocated of it", labels=label)
    share = GaugeMetricFamily("hostler_utilisation", "What is allocated of it, as a share", labels=label)
    about = "Fraction of free capacity on providers with less than a tenth of their capacity free"
    scraps = GaugeMetricFamily("hostler_fragmentation", about, labels=label)
    for name, figures in capacity(fleet).items():
        total.add_metric((name,), figures.total)
        used.add_metric((name,), figures.used)
        share.add_metric((name,), figures.used / figures.total)
        scraps.add_metric((name,), figures.fragmentation)
    yield from (total, used, share, scraps)
