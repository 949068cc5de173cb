"""The longest step of commands at the bounds of what they may ask for: others wait that long.

    python -m hostler.bench.steps [--hosts 10000] [--only NAME ...] [--json]

A state machine as the service has it, with hosts and 1,000 pools of volumes; processor time of each step.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as lc
from hostler.core import storage_commands as s
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order, PlacementWrite, SelectDestinations
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.tenants import LOCAL
from hostler.placement.api import commands as api
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Host
from hostler.placement.types.host_report import HostReport

app = cyclopts.App(name="steps", help="The longest step of long commands.")

ROUNDS: Final = 3
"""Each command is given so often; the best of its longest steps counts."""
BACKENDS: Final = 200
POOLS: Final = 5
POOLS_OF_ONE: Final = 1_000
"""Pools of one backend, or nodes."""
CONSUMERS: Final = 1_000
RESHAPED: Final = 100
"""Consumers, and providers, of one write of the Placement API."""
POLICIES: Final = ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")
SIZE: Final[dict[str, Any]] = {"vcpus_total": 1_024, "total_usable_ram_mb": 1 << 22, "total_usable_disk_gb": 1_000_000}


class Machine:
    """The machine, and the time of its next order."""

    def __init__(self, hosts: int) -> None:
        self.machine, self.now = ServiceMachine(), 1_700_000_000.0
        self.hosts = tuple(Host(host=f"node-{number}", **SIZE) for number in range(hosts))
        self.give(p.AddHosts(hosts=self.hosts))
        self.give(backends())

    def give(self, command: Any) -> list[float]:
        """Milliseconds of each step of a command. HostlerError if it is refused."""
        self.now += 0.1
        order = self.machine.decode(self.machine.encode(Order(self.now, LOCAL, command)))
        steps, taken = self.machine.carry_out([order]), list[float]()
        while True:
            began = time.thread_time()
            try:
                next(steps)
            except StopIteration as end:
                taken.append(1e3 * (time.thread_time() - began))
                (outcome,) = end.value
                if isinstance(outcome, HostlerError):
                    raise outcome from None
                return taken
            taken.append(1e3 * (time.thread_time() - began))


def backends() -> s.ReportVolumeBackends:
    """Reports of all volume backends."""
    pools = [
        {"pool_name": f"p{number}", "total_capacity_gb": 100_000, "free_capacity_gb": 90_000} for number in range(POOLS)
    ]
    reports = [
        s.VolumeBackendReport(host=f"node-{number}@lvm", capabilities={"pools": pools}) for number in range(BACKENDS)
    ]
    return s.ReportVolumeBackends(reports=tuple(reports))


def one_backend(pools: int, free_gb: int) -> s.ReportVolumeBackends:
    """A report of one volume backend with many pools."""
    each = [
        {"pool_name": f"p{number}", "total_capacity_gb": 1_000, "free_capacity_gb": free_gb} for number in range(pools)
    ]
    return s.ReportVolumeBackends(reports=(s.VolumeBackendReport(host="one@lvm", capabilities={"pools": each}),))


def of_backend(it: Machine) -> dict[str, Callable[[], Any]]:
    """Commands on a back end, by name; each time with other figures."""
    serial, turn, many = count(1), count(1), range(POOLS_OF_ONE)

    def nodes() -> lc.ReportBackend:
        used = next(serial) % 64
        given = tuple(lc.NodeReport(f"be-{number}", 64, 65_536, 1_000, used, 1_000, 10) for number in many)
        return lc.ReportBackend(name="be", at=it.now + 0.1, nodes=given)

    def pools() -> lc.ReportPools:
        free = 900 - next(serial) % 100
        given = tuple(lc.PoolReport(f"p{number}", 1_000, free, 100) for number in many)
        return lc.ReportPools(name="be", kind="lvm", at=it.now + 0.1, pools=given)

    def once(known: bool, first: Callable[[], Any], command: Any) -> Any:
        if not known:
            it.give(first())
        return command

    lives, storage = it.machine.state.lives, it.machine.state.storage
    return {
        "report_backend": nodes,
        "report_pools": pools,
        "set_backend": lambda: once(
            "be" in lives.backends, nodes, lc.SetBackend(name="be", enabled=next(turn) % 2 == 0)
        ),
        "report_volume_backends, one": lambda: one_backend(POOLS_OF_ONE, 900 - next(serial) % 100),
        "set_volume_backend": lambda: once(
            "one@lvm" in storage.pools.services,
            lambda: one_backend(POOLS_OF_ONE, 900),
            s.SetVolumeBackend(host="one@lvm", disabled=next(turn) % 2 == 0),
        ),
    }


def of_placement(it: Machine) -> dict[str, Callable[[], Any]]:
    """Writes of the Placement API, by name."""
    fleet = it.machine.state.fleet
    names = [fleet.uuid(fleet._names.find(host.host)) for host in it.hosts]
    given = {"VCPU": Inventory(total=1_024), "MEMORY_MB": Inventory(total=1 << 22), "DISK_GB": Inventory(total=10**6)}

    def allocations() -> PlacementWrite:
        resources = {"VCPU": 1, "MEMORY_MB": 64}
        consumers = {
            str(uuid.uuid4()): api.ConsumerAllocations(
                allocations={names[number % len(names)]: resources}, project_id="p", user_id="u", generation=None
            )
            for number in range(CONSUMERS)
        }
        return PlacementWrite(command=api.SetAllocations(now=it.now, consumers=consumers, infer_types=True))

    def reshape() -> PlacementWrite:
        generations = fleet._store.row["generation"]
        providers = {
            name: api.ReshapedProvider(generation=int(generations[fleet.row_of_uuid(name)]), inventories=given)
            for name in names[:RESHAPED]
        }
        return PlacementWrite(command=api.Reshape(now=it.now, providers=providers, consumers={}, infer_types=True))

    return {"placement: allocations": allocations, "placement: reshape": reshape}


def asked(instances: int, **what: Any) -> p.Asked:
    """A request for so many instances."""
    spec = msgspec.Raw(msgspec.msgpack.encode({"flavor": {"name": "f", "vcpus": 1, "memory_mb": 64}}))
    uuids = tuple(str(uuid.uuid4()) for _ in range(instances))
    return p.Asked(spec=spec, instance_uuids=uuids, project_id="p", **what)


def volumes(*sizes_gb: int) -> s.PlaceVolumeGroup:
    """A volume group."""
    each = [s.AskedVolume(spec=msgspec.Raw(msgspec.msgpack.encode({"size_gb": size}))) for size in sizes_gb]
    return s.PlaceVolumeGroup(volumes=tuple(each), project_id="")


def new_hosts(name: str, hosts: int) -> tuple[Host, ...]:
    """Hosts of which each has a guest."""
    return tuple(Host(host=f"{name}-{number}", instances={str(uuid.uuid4()): {}}, **SIZE) for number in range(hosts))


def other_guests(it: Machine, turns: count[int]) -> p.ReportHosts:
    """Reports in which the guest of each host has gone, and another has come."""
    if next(turns) == 0:
        it.give(other_guests(it, turns))
    return columns_of(
        [HostReport(host=replace(host, instances={str(uuid.uuid4()): {}}), at=it.now) for host in it.hosts]
    )


def commands(it: Machine) -> dict[str, Callable[[], Any]]:
    """What is given, by name."""
    names = tuple(host.host for host in it.hosts)
    groups = dict.fromkeys(POLICIES, "")
    for policy in POLICIES:
        groups[policy] = str(uuid.uuid4())
        it.give(p.AddServerGroup(uuid=groups[policy], policy=policy))
    serial = count()
    in_groups = {
        f"place 100, {policy}": partial(lambda group: p.Place(request=asked(100, server_group=group)), group)
        for policy, group in groups.items()
    }
    fleet = it.machine.state.fleet
    own = [fleet.uuid(fleet.row(name)) for name in names]
    offers: dict[str, tuple[p.AllocationCandidate, ...]] = {
        each: (p.AllocationCandidate(allocations={each: p.ProviderResources({"VCPU": 1, "MEMORY_MB": 64})}),)
        for each in own
    }
    return {
        "place 100": lambda: p.Place(request=asked(100)),
        "place 100, 9 alternates": lambda: p.Place(request=asked(100, alternates=9)),
        **in_groups,
        "place_candidates": lambda: p.PlaceCandidates(request=asked(1), candidates=offers),
        "hold 100": lambda: p.Hold(request=asked(100), expires_in=1e6),
        "select_destinations 100": lambda: SelectDestinations(request=asked(100)),
        "place_many 5 x 100": lambda: p.PlaceMany(requests=tuple(asked(100) for _ in range(5))),
        "place_many 512": lambda: p.PlaceMany(requests=tuple(asked(1) for _ in range(512))),
        "report_hosts": lambda: columns_of(
            [HostReport(host=host, at=it.now, includes=frozenset()) for host in it.hosts]
        ),
        "heartbeats": lambda: p.Heartbeats(names=names),
        "create_pool": lambda: c.CreatePool(id=f"pool-{next(serial)}", hosts=names[:1_000]),
        "report_volume_backends": backends,
        **of_backend(it),
        **of_placement(it),
        "add_hosts": lambda: p.AddHosts(hosts=new_hosts(f"new-{next(serial)}", len(names)), negative_free=True),
        "place_volume_group 100": lambda: volumes(*[10] * 100),
        "place_volume_group 100 sizes": lambda: volumes(*range(1, 101)),
        "report_hosts, other guests": partial(other_guests, it, turns=count()),
    }


@app.default
def main(
    *,
    hosts: int = 10_000,
    only: list[str] | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Print the steps of each command: how many, the longest one, and all together, in milliseconds."""
    it = Machine(hosts)
    gc.freeze()
    gc.disable()  # the service collects between steps
    figures: dict[str, dict[str, float]] = {}
    for name, command in commands(it).items():
        if only and name not in only:
            continue
        rounds = [it.give(command()) for _ in range(ROUNDS)]
        best = min(rounds, key=max)
        figures[name] = {"steps": len(best), "longest_ms": max(best), "all_ms": sum(best)}
        if not as_json:
            print(f"{name:32}" + " ".join(f"{key} {value:9.2f}" for key, value in figures[name].items()))
    if as_json:
        print(json.dumps({"hosts": hosts, "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(app())
