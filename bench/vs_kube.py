"""The sizes and shapes of kube-scheduler's own throughput tests (scheduler_perf), decided by the engine.

    python -m hostler.bench.vs_kube

Engine only, no API server: the thresholds are what Kubernetes' tests must reach with one, so they are a scale and no
rival's figure. A node is a host of 4,000 VCPU (thousandths of a core), 32 GiB and at most 110 guests; a pod asks for
100 and 500 MiB.
"""

from __future__ import annotations

import csv
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..placement.decide.engine import Engine
from ..placement.fleet.fleet import Fleet
from ..placement.load.bulk import add_hosts, load_hosts
from ..placement.policy.policy import Policy
from ..placement.types.host import Aggregate, Host
from ..placement.types.request import Destination, Flavor, Request, RequestSpec
from .engine import Count, machine, main
from .workload import random_uuids

THRESHOLDS: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "k8s_scheduler_perf" / "thresholds.csv"
LABEL: Final = "engine only, no API server"
BATCH: Final = 500
SECONDS: Final = 5.0
"""A workload is broken off after this long on the clock; the rate is that of what was decided."""
NAMED_NODE: Final = "scheduler-perf-node"
ZONE: Final = Aggregate(
    uuid="00000000-0000-4000-8000-000000000001", name="zone1", metadata={"zone": "zone1", "availability_zone": "zone1"}
)
NODE: Final = Host(
    host="node",
    vcpus_total=4_000,
    cpu_allocation_ratio=1.0,
    total_usable_ram_mb=32 * 1_024,
    hypervisor_version=1,
    aggregates=(ZONE,),
)
POD: Final = Flavor(name="pod", vcpus=100, memory_mb=500)
LARGE_POD: Final = Flavor(name="large pod", vcpus=9_000, memory_mb=500)
IN_ZONE: Final = Flavor(
    name="pod in a zone",
    vcpus=100,
    memory_mb=500,
    extra_specs={"aggregate_instance_extra_specs:zone": "<or> zone1 <or> zone2"},
)
FILTERS: Final = (
    "ComputeFilter",
    "AggregateInstanceExtraSpecsFilter",
    "DifferentHostFilter",
    "NumInstancesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
)

app = cyclopts.App(name="vs_kube", help="kube-scheduler's throughput tests, engine only.", result_action="return_value")


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """A line of thresholds.csv."""

    test: str
    workload: str
    init_nodes: int
    init_pods: int
    measure_pods: int
    threshold_pods_per_s: float


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine did of a workload. Rates are decisions a second, wall time; ``times`` compares the batched
    one."""

    test: str
    workload: str
    nodes: int
    init_pods: int
    decided: int
    placed: int
    threshold: float
    single_per_second: float
    batched_per_second: float
    times: float
    mapped_to: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All rates of a run, where it ran, and what has no counterpart."""

    label: str
    machine: str
    python: str
    load_average: float
    rates: list[Rate]
    not_mapped: dict[str, str]


# The cluster


class Cluster:
    """Nodes, and the pods asked for on them. ``pods_per_node`` None: no limit."""

    def __init__(self, nodes: int, *, pods_per_node: int | None = 110) -> None:
        limit = {} if pods_per_node is None else {"max_instances_per_host": pods_per_node}
        filters = [name for name in FILTERS if limit or name != "NumInstancesFilter"]
        options = {"enabled_filters": filters, "io_ops_weight_multiplier": 0.0, **limit}
        fleet = Fleet(capacity=nodes)
        load_hosts(fleet, np.char.add(b"node-", np.arange(nodes).astype("S")), [NODE])
        self.engine = Engine(fleet, Policy.from_mapping({"filter_scheduler": options}))
        self._rng = np.random.default_rng(1)

    def group(self, policy: str) -> str:
        """A new server group."""
        (name,) = random_uuids(self._rng, 1)
        self.engine.fleet.add_server_group(name, policy)
        return name

    def pods(self, count: int, spec: RequestSpec, group: str | None = None) -> list[Request]:
        """Requests for ``count`` pods."""
        return [
            Request(spec=spec, instance_uuids=(name,), server_group=group) for name in random_uuids(self._rng, count)
        ]

    def recreate(self, name: str) -> None:
        """Remove a node with all that is on it, and add it again."""
        fleet = self.engine.fleet
        self.engine.release(fleet.instances(fleet.row(name)))
        fleet.remove_provider(name)
        add_hosts(fleet, [replace(NODE, host=name)])


PLAIN: Final = RequestSpec(flavor=POD)
Prepared = tuple[Cluster, list[Request], Callable[[int], object] | None]
"""A cluster with its first pods placed, the pods to time, and what happens beside them before each batch (given its
number)."""


def _plain(row: Threshold) -> Prepared:
    cluster = Cluster(row.init_nodes)
    return _after(cluster, cluster.pods(row.init_pods, PLAIN)), cluster.pods(row.measure_pods, PLAIN), None


def _after(cluster: Cluster, pods: Sequence[Request]) -> Cluster:
    """The cluster with these pods placed."""
    cluster.engine.place_many(pods)
    return cluster


def _daemonset(row: Threshold) -> Prepared:
    cluster = Cluster(row.init_nodes, pods_per_node=None)
    add_hosts(
        cluster.engine.fleet,
        [Host(host=NAMED_NODE, vcpus_total=10**9, total_usable_ram_mb=10**9, hypervisor_version=1)],
    )
    spec = RequestSpec(flavor=POD, requested_destination=Destination(host=NAMED_NODE))
    return cluster, cluster.pods(row.measure_pods, spec), None


def _unschedulable(row: Threshold) -> Prepared:
    """One pod in a hundred fits nowhere; Kubernetes' test injects five a second, at 600 a second fewer than that."""
    cluster, pods, _ = _plain(row)
    spec = RequestSpec(flavor=LARGE_POD)
    hopeless = cluster.pods(len(pods) // 100, spec)
    for place, pod in enumerate(hopeless):
        pods.insert(place * 101, pod)
    return cluster, pods, None


def _churn(row: Threshold) -> Prepared:
    """Before every batch of 500 a node is taken away and added again, and a pod that fits nowhere is tried;
    Kubernetes' test does so once a second, at 700 a second less often than that."""
    cluster, pods, _ = _plain(row)
    (hopeless,) = cluster.pods(1, RequestSpec(flavor=LARGE_POD))

    def between(batch: int) -> None:
        cluster.recreate(f"node-{batch % row.init_nodes}")
        cluster.engine.place(hopeless)

    return cluster, pods, between


def _grouped(policy: str) -> Callable[[Threshold], Prepared]:
    def prepare(row: Threshold) -> Prepared:
        cluster = Cluster(row.init_nodes)
        group = cluster.group(policy)
        return (
            _after(cluster, cluster.pods(row.init_pods, PLAIN, group)),
            cluster.pods(row.measure_pods, PLAIN, group),
            None,
        )

    return prepare


def _matching_anti_affinity(row: Threshold) -> Prepared:
    cluster = Cluster(row.init_nodes)
    first = cluster.pods(row.init_pods, PLAIN, cluster.group("anti-affinity"))
    names = tuple(name for pod in first for name in pod.instance_uuids)
    spec = RequestSpec(flavor=POD, scheduler_hints={"different_host": names})
    return _after(cluster, first), cluster.pods(row.measure_pods, spec), None


def _zoned(row: Threshold) -> Prepared:
    cluster, spec = Cluster(row.init_nodes), RequestSpec(flavor=POD, availability_zone="zone1")
    return _after(cluster, cluster.pods(row.init_pods, spec)), cluster.pods(row.measure_pods, spec), None


def _node_affinity(row: Threshold) -> Prepared:
    cluster, spec = Cluster(row.init_nodes), RequestSpec(flavor=IN_ZONE)
    return _after(cluster, cluster.pods(row.init_pods, spec)), cluster.pods(row.measure_pods, spec), None


def _mixed(row: Threshold) -> Prepared:
    cluster, each = Cluster(row.init_nodes), row.init_pods // 5
    first = cluster.pods(each, PLAIN) + cluster.pods(each, RequestSpec(flavor=POD, availability_zone="zone1"))
    for policy in ("anti-affinity", "soft-affinity", "soft-anti-affinity"):
        first += cluster.pods(each, PLAIN, cluster.group(policy))
    return _after(cluster, first), cluster.pods(row.measure_pods, PLAIN), None


MAPPED: Final[dict[str, tuple[Callable[[Threshold], Prepared], str]]] = {
    "SchedulingBasic": (_plain, "VCPU, MEMORY_MB, NumInstancesFilter"),
    "SchedulingDaemonset": (_daemonset, "requested_destination names the node"),
    "Unschedulable": (_unschedulable, "one request in 100 fits nowhere"),
    "SchedulingWithMixedChurn": (_churn, "every 500 pods a node goes and comes, and a pod fits nowhere"),
    "SchedulingPodAntiAffinity": (_grouped("anti-affinity"), "one anti-affinity group of all pods"),
    "SchedulingPodMatchingAntiAffinity": (_matching_anti_affinity, "hint different_host with all the first pods"),
    "SchedulingPodAffinity": (_zoned, "all pods in the first one's availability zone"),
    "SchedulingPreferredPodAffinity": (_grouped("soft-affinity"), "one soft-affinity group of all pods"),
    "SchedulingPreferredPodAntiAffinity": (_grouped("soft-anti-affinity"), "one soft-anti-affinity group of all pods"),
    "SchedulingNodeAffinity": (_node_affinity, "aggregate_instance_extra_specs, zone1 or zone2"),
    "MixedSchedulingBasePod": (_mixed, "first pods of five kinds, then plain ones"),
}
_NO_SPREADING: Final = "Nova's rules know no spreading over zones with a bound on the skew"
NOT_MAPPED: Final = {
    "PreemptionAsync": "the engine does not evict guests to make room",
    "TopologySpreading": _NO_SPREADING,
    "PreferredTopologySpreading": _NO_SPREADING,
    "DefaultTopologySpreading": _NO_SPREADING,
    "SchedulingWithNodeInclusionPolicy": _NO_SPREADING,
}


# Measuring


def read_thresholds(path: Path) -> list[Threshold]:
    """The lines of the file."""
    with path.open(newline="") as lines:
        return [msgspec.convert(line, Threshold, strict=False) for line in csv.DictReader(lines)]


def rate(row: Threshold) -> Rate:
    """One workload, on a new cluster one at a time and on another in batches."""
    prepare, mapped_to = MAPPED[row.test]
    single, _, _ = _pace(prepare(row), _singly)
    batched, decided, placed = _pace(prepare(row), _together)
    return Rate(
        test=row.test,
        workload=row.workload,
        nodes=row.init_nodes,
        init_pods=row.init_pods,
        decided=decided,
        placed=placed,
        threshold=row.threshold_pods_per_s,
        single_per_second=round(single, 1),
        batched_per_second=round(batched, 1),
        times=round(batched / row.threshold_pods_per_s, 1),
        mapped_to=mapped_to,
    )


def _singly(engine: Engine, pods: Sequence[Request]) -> int:
    return sum(engine.place(pod).placed for pod in pods)


def _together(engine: Engine, pods: Sequence[Request]) -> int:
    return engine.place_many(pods).placed


def _pace(prepared: Prepared, place: Callable[[Engine, Sequence[Request]], int]) -> tuple[float, int, int]:
    """Decisions a second, how many there were, and how many of them were placed."""
    cluster, pods, between = prepared
    size = 50 if place is _singly else BATCH
    decided = placed = 0
    begun = time.perf_counter()
    while decided < len(pods) and time.perf_counter() - begun < SECONDS:
        if between is not None and decided % BATCH == 0:
            between(decided // BATCH)
        batch = pods[decided : decided + size]
        placed += place(cluster.engine, batch)
        decided += len(batch)
    return decided / (time.perf_counter() - begun), decided, placed


def rates(thresholds: Sequence[Threshold]) -> Iterator[Rate]:
    """Every workload that has a counterpart, as soon as it is measured."""
    return (rate(row) for row in thresholds if row.test in MAPPED)


def _show(report: Report) -> None:
    table = Table(title=f"decisions a second, {report.label}; {report.machine}, Python {report.python}")
    for name in (
        "test",
        "workload",
        "decided",
        "placed",
        "threshold",
        "one by one",
        "batches",
        "times",
        "expressed as",
    ):
        table.add_column(name, justify="left" if name in ("test", "workload", "expressed as") else "right")
    for each in report.rates:
        counts = (each.decided, each.placed, each.threshold, each.single_per_second, each.batched_per_second)
        cells = [f"{count:,.0f}" for count in counts]
        table.add_row(each.test, each.workload, *cells, f"{each.times:,.1f}", each.mapped_to)
    console = Console(width=None if sys.stdout.isatty() else 190)
    console.print(table)
    for test, why in report.not_mapped.items():
        console.print(f"no counterpart for {test}: {why}", highlight=False)


@app.default
def command(
    *,
    thresholds: Path = THRESHOLDS,
    nodes: Count | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Decide scheduler_perf's workloads and print the pace beside its thresholds.

    Parameters
    ----------
    nodes
        Nodes in place of the tests' own, with pods in proportion: to try things out.
    """
    if not thresholds.is_file():
        print(
            f"skipped: there is no {thresholds}, scheduler_perf's thresholds; name the file with --thresholds",
            file=sys.stderr,
        )
        return 0
    lines = read_thresholds(thresholds)
    if nodes is not None:
        lines = [_smaller(line, nodes / line.init_nodes) for line in lines]
    load, found = os.getloadavg()[0], []
    for each in rates(lines):
        print(f"{each.test} {each.workload}: {each.batched_per_second:,.0f}/s", file=sys.stderr, flush=True)
        found.append(each)
    missing = {line.test: NOT_MAPPED.get(line.test, "not looked at") for line in lines if line.test not in MAPPED}
    report = Report(
        label=LABEL,
        machine=machine(),
        python=platform.python_version(),
        load_average=round(load, 2),
        rates=found,
        not_mapped=missing,
    )
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        _show(report)
    return 0


def _smaller(row: Threshold, part: float) -> Threshold:
    sizes = {name: max(1, round(getattr(row, name) * part)) for name in ("init_nodes", "init_pods", "measure_pods")}
    return msgspec.structs.replace(row, **sizes)


if __name__ == "__main__":
    sys.exit(main(program=app))
