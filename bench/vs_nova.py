"""Beside the real Nova: the same fleet and the same requests, one after the other on both, in the same run.

    python -m hostler.bench.vs_nova [--release 34.0.0]

Nova runs in an environment of its own, made from PyPI the first time. Both sides choose and consume one guest at a
time; what Nova gets from Placement (the hosts with room) is not on its clock, while Hostler finds them itself. Every
answer is compared.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..placement.decide.engine import Engine
from ..placement.fleet.fleet import Fleet
from ..placement.load.bulk import add_hosts
from ..placement.policy.policy import Policy
from ..placement.types.host import Host, NumaCell
from ..placement.types.request import Request
from .driver_process import DriverProcess, driving
from .engine import Count, machine, main
from .environments import ServiceUnavailable, kept, ready
from .workload import hosts_with_cells, make_arrays, make_policy, make_requests, random_uuids

RELEASE: Final = "33.0.2"
SETS: Final = {"default": "nova", "heavy": "heavy", "numa": "numa"}
"""Set -> the policy of bench/workload.py whose filters and requests it has."""
SIZES: Final = (1_000, 5_000, 10_000)
STEADY: Final = 1_000
"""Requests by which Hostler's steady pace is taken, and before that as many to warm up."""
DRIVER: Final = Path(__file__).resolve().with_name("nova_driver.py")

app = cyclopts.App(name="vs_nova", help="The same work on Nova and on Hostler.", result_action="return_value")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One set of filters on one size. Times are CPU milliseconds a request. ``first``: the compared requests, which
    meet an engine that has decided nothing yet and compile every signature; ``steady``: those that come after them.
    Nova keeps nothing from one request to the next; ``nova_host_states_ms`` is what it takes, once more for every
    request, to make its host states. ``differences`` are the compared requests (by number) that went to different
    hosts."""

    hosts: int
    set: str
    requests: int
    nova_ms: float
    hostler_first_ms: float
    hostler_steady_ms: float
    first_ratio: float
    steady_ratio: float
    same_order: bool
    differences: list[int]
    nova_host_states_ms: float

    @property
    def equal(self) -> bool:
        return self.same_order and not self.differences


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All comparisons of a run, and where it ran."""

    machine: str
    python: str
    nova: str
    load_average: float
    comparisons: list[Comparison]


# The same values for both


def fleet_values(hosts: Sequence[Host]) -> dict[str, Any]:
    """A fleet as the driver reads it."""
    aggregates: dict[str, dict[str, Any]] = {}
    for host in hosts:
        for each in host.aggregates:
            value = {"uuid": each.uuid, "name": each.name, "metadata": dict(each.metadata), "hosts": []}
            aggregates.setdefault(each.uuid, value)["hosts"].append(host.host)
    return {"hosts": [_host_value(host) for host in hosts], "aggregates": list(aggregates.values())}


def _host_value(host: Host) -> dict[str, Any]:
    assert host.numa_topology is not None
    return {
        "name": host.host,
        "uuid": host.uuid,
        "vcpus": host.vcpus_total,
        "vcpus_used": host.vcpus_used,
        "cpu_ratio": host.cpu_allocation_ratio,
        "memory_mb": host.total_usable_ram_mb,
        "free_ram_mb": host.free_ram_mb,
        "disk_gb": host.total_usable_disk_gb,
        "disk_used_gb": host.disk_mb_used // 1024,
        "num_instances": host.num_instances,
        "num_io_ops": host.num_io_ops,
        "hypervisor_type": host.hypervisor_type,
        "hypervisor_version": host.hypervisor_version,
        "supported": host.supported_instances,
        "disabled": host.service.disabled,
        "numa": [_cell_value(cell) for cell in host.numa_topology.cells],
    }


def _cell_value(cell: NumaCell) -> dict[str, Any]:
    return {
        "id": cell.id,
        "cpus": sorted(cell.cpuset),
        "memory_mb": cell.memory,
        "cpu_usage": cell.cpu_usage,
        "memory_usage": cell.memory_usage,
        "siblings": [sorted(core) for core in cell.siblings],
        "pages": [[page.size_kb, page.total] for page in cell.mempages],
    }


def request_value(fleet: Fleet, request: Request) -> dict[str, Any]:
    """A request as the driver reads it. A server group that the engine keeps goes by its policy; the driver keeps
    its members."""
    flavor, group = request.flavor, None
    if isinstance(request.server_group, str):
        number, at_most, _ = fleet._kernel.group(fleet._group_id(request.server_group))
        assert (number, at_most) == (2, 1), "the sets have anti-affinity groups only"
        group = [request.server_group, "anti-affinity"]
    return {
        "uuid": request.instance_uuids[0],
        "project_id": request.project_id,
        "flavor": {
            "name": flavor.name,
            "vcpus": flavor.vcpus,
            "memory_mb": flavor.memory_mb,
            "root_gb": flavor.root_gb,
            "extra_specs": dict(flavor.extra_specs),
        },
        "image_properties": dict(request.image_properties),
        "group": group,
    }


# Comparing


def make_hosts(count: int, seed: int) -> list[Host]:
    """The hosts, with uuids and two NUMA cells each, as libvirt reports them."""
    uuids = random_uuids(np.random.default_rng([seed, 4]), count)
    hosts = hosts_with_cells(make_arrays(count, seed=seed))
    return [replace(host, uuid=name) for host, name in zip(hosts, uuids, strict=True)]


def compare(nova: DriverProcess, hosts: Sequence[Host], name: str, requests: int, seed: int) -> Comparison:
    """One set: both sides place the same requests in turn, each on its own copy of the fleet."""
    policy = make_policy(SETS[name])
    engine = _engine(hosts, policy)
    made = make_requests(engine.fleet, requests, policy=SETS[name], seed=seed)
    values = [request_value(engine.fleet, request) for request in made]
    weighers = [weigher.name for weigher in policy.weighers]
    filters = [judge.name for judge in policy.filters]
    states = nova.ask("policy", filters=filters, weighers=weighers)["states_cpu"]
    order = nova.ask("order", request=values[0])["hosts"]
    ranked = engine.fork(policy).rank(made[0])
    same_order = order == [engine.fleet._service_host(row) for row in ranked.rows.tolist()]
    theirs, ours, differences = 0.0, 0.0, []
    for number, (request, value) in enumerate(zip(made, values, strict=True)):
        answer = nova.ask("place", request=value)
        begun = time.process_time()
        decision = engine.place(request)
        ours += (time.process_time() - begun) * 1e3 / requests
        theirs += answer["cpu"] * 1e3 / requests
        if answer["host"] != (decision.host if decision.placed else None):
            differences.append(number)
    steady = _steady(engine, name, seed)
    return Comparison(
        hosts=len(hosts),
        set=name,
        requests=requests,
        nova_ms=round(theirs, 3),
        hostler_first_ms=round(ours, 4),
        hostler_steady_ms=round(steady, 5),
        first_ratio=round(theirs / ours, 1),
        steady_ratio=round(theirs / steady, 1),
        same_order=same_order,
        differences=differences,
        nova_host_states_ms=round(states * 1e3, 1),
    )


def _steady(engine: Engine, name: str, seed: int) -> float:
    """CPU milliseconds a request, one at a time, once as many have gone before."""
    warm_up, timed = (make_requests(engine.fleet, STEADY, policy=SETS[name], seed=seed + i) for i in (1, 2))
    for request in warm_up:
        engine.place(request)
    begun = time.process_time()
    for request in timed:
        engine.place(request)
    return (time.process_time() - begun) * 1e3 / STEADY


def _engine(hosts: Sequence[Host], policy: Policy) -> Engine:
    fleet = Fleet(capacity=len(hosts))
    add_hosts(fleet, hosts)
    return Engine(fleet, policy)


def comparisons(
    python: Path, sizes: Sequence[int], sets: Sequence[str], requests: int, seed: int
) -> Iterator[Comparison]:
    """Every comparison, as soon as it is made."""
    with driving("Nova", python, DRIVER) as nova:
        for size in sizes:
            hosts = make_hosts(size, seed)
            nova.ask("fleet", **fleet_values(hosts))
            for name in sets:
                yield compare(nova, hosts, name, requests, seed)


def _show(report: Report) -> None:
    table = Table(title=f"{report.nova} beside Hostler, CPU a request; {report.machine}, Python {report.python}")
    columns = (
        "hosts",
        "set",
        "requests",
        "Nova ms",
        "Hostler ms: first",
        "steady",
        "times: first",
        "steady",
        "order",
        "answers",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in ("set", "order", "answers") else "right")
    for each in report.comparisons:
        different = f"{len(each.differences)} DIFFER"
        table.add_row(
            f"{each.hosts:,}",
            each.set,
            str(each.requests),
            f"{each.nova_ms:,.1f}",
            f"{each.hostler_first_ms:,.3f}",
            f"{each.hostler_steady_ms:,.4f}",
            f"{each.first_ratio:,.0f}",
            f"{each.steady_ratio:,.0f}",
            "equal" if each.same_order else "DIFFERS",
            different if each.differences else "equal",
        )
    Console(width=None if sys.stdout.isatty() else 130).print(table)


@app.default
def command(
    *,
    sizes: Annotated[tuple[Count, ...], Parameter(consume_multiple=True)] = SIZES,
    sets: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = tuple(SETS),
    requests: Count = 20,
    seed: int = 1,
    release: str = RELEASE,
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compare at SIZES hosts under SETS of filters (default, heavy, numa). Exit code 1 if an answer differs, 3 without
    Nova.

    Parameters
    ----------
    release
        Release of Nova, such as 34.0.0.
    venv
        Folder of the environment that holds Nova; made if it is not there. ~/.cache/hostler/nova-RELEASE if left out.
    """
    unknown = [name for name in sets if name not in SETS]
    if unknown:
        print(f"unknown set {unknown[0]!r}; the sets are {', '.join(SETS)}", file=sys.stderr)
        return 2
    nova, load, found = f"nova=={release}", os.getloadavg()[0], []
    try:
        for each in comparisons(ready(venv or kept(f"nova-{release}"), [nova]), sizes, sets, requests, seed):
            print(
                f"{each.hosts} {each.set}: {each.steady_ratio} times, equal: {each.equal}", file=sys.stderr, flush=True
            )
            found.append(each)
    except ServiceUnavailable as error:
        print(f"vs_nova: {error}", file=sys.stderr)
        return 3
    report = Report(
        machine=machine(), python=platform.python_version(), nova=nova, load_average=round(load, 2), comparisons=found
    )
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        _show(report)
    return 0 if all(each.equal for each in found) else 1


if __name__ == "__main__":
    sys.exit(main(program=app))
