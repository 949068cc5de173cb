"""``python -m hostler.bench.plans``: CPU time of a plan of every goal on a large fleet, on one thread."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from hostler import (
    Aggregate,
    Balance,
    Consolidate,
    Defragment,
    Drain,
    Engine,
    EvacuateProof,
    Flavor,
    Fleet,
    Host,
    MakeRoom,
    Policy,
    Request,
    RequestSpec,
    add_hosts,
)

from ..placement.types.plans import Goal, Plan

app = cyclopts.App(name="plans", help="CPU time of move plans on a large fleet.")
Asked = dict[str, RequestSpec]
VCPUS: Final = 64
SIZES: Final = ((1, 2), (2, 4), (2, 8), (4, 16), (8, 32), (2, 16))
"""vCPUs and GiB of guests."""


def cloud(hosts: int, guests: int, load: float, seed: int, *, ruled: bool = False) -> tuple[Engine, Asked]:
    """An engine with guests on hosts chosen at random, which use ``load`` of all memory, and what each asked.
    ``ruled``: a third of the guests ask for one of three zones, a tenth is in groups of four with anti-affinity, and of
    a hundred hosts two have one guest of 0.7 of their memory, half of these on hosts with a trait of one in 20."""
    rng = random.Random(seed)
    mean = sum(gib for _, gib in SIZES) / len(SIZES)
    memory_mb = int(guests * mean * 1024 / hosts / load)
    fleet, zones = Fleet(), [_zone(number) for number in range(3)]
    add_hosts(
        fleet,
        [
            Host(
                host=f"n{number:05}",
                vcpus_total=VCPUS,
                total_usable_ram_mb=memory_mb,
                total_usable_disk_gb=10_000,
                aggregates=(zones[number % 3],) if ruled else (),
                traits=frozenset({"CUSTOM_RARE"} if ruled and number % 20 == 0 else ()),
            )
            for number in range(hosts)
        ],
    )
    subset = {"filter_scheduler": {"host_subset_size": max(1, hosts // 3)}}
    engine, asked = Engine(fleet, Policy.from_mapping(subset), seed=seed), dict[str, RequestSpec]()
    if ruled:
        _large_guests(engine, asked, hosts // 50, int(memory_mb * 0.7))
    specs = [
        RequestSpec(flavor=Flavor(name=f"m{vcpus}-{gib}", vcpus=vcpus, memory_mb=gib * 1024, root_gb=20))
        for vcpus, gib in SIZES
    ]
    groups = set[str]()
    zoned = [replace(spec, availability_zone=zone.name) for spec in specs for zone in zones]
    left, number = int(guests * mean * 1024) - sum(spec.flavor.memory_mb for spec in asked.values()), len(asked)
    while left > 0 and number < 2 * guests:
        spec = rng.choice(zoned) if ruled and rng.random() < 0.33 else rng.choice(specs)
        group = None
        if ruled and number % 40 < 4:
            group = f"00000000-0000-4000-8001-{number // 40:012}"
            if group not in groups:
                groups.add(group)
                engine.fleet.add_server_group(group, "anti-affinity")
        uuid = f"00000000-0000-4000-8000-{number:012}"
        if engine.place(Request(spec=spec, instance_uuids=(uuid,), server_group=group)).placed:
            asked[uuid] = spec
            left -= spec.flavor.memory_mb
        number += 1
    engine.spawned(list(asked))
    return engine, asked


def _zone(number: int) -> Aggregate:
    name = f"zone-{number}"
    return Aggregate(uuid=f"00000000-0000-4000-8002-{number:012}", name=name, metadata={"availability_zone": name})


def _large_guests(engine: Engine, asked: Asked, count: int, memory_mb: int) -> None:
    """Guests that fill most of a host; every other needs a trait that few hosts have."""
    for number in range(count):
        extra = {"trait:CUSTOM_RARE": "required"} if number % 2 else {}
        flavor = Flavor(name=f"large-{number % 2}", vcpus=16, memory_mb=memory_mb, root_gb=20, extra_specs=extra)
        uuid, spec = f"00000000-0000-4000-8000-{number:012}", RequestSpec(flavor=flavor)
        if engine.place(Request(spec=spec, instance_uuids=(uuid,))).placed:
            asked[uuid] = spec


def goals(engine: Engine) -> dict[str, Goal]:
    """A goal of every kind. The guest for which room is made takes nearly a whole host."""
    limit = int(engine.fleet.column("total_usable_ram_mb").max())
    whole = Request(spec=RequestSpec(flavor=Flavor(name="large", vcpus=48, memory_mb=int(limit * 0.8))))
    part = Request(spec=RequestSpec(flavor=Flavor(name="medium", vcpus=16, memory_mb=65_536)))
    return {
        "drain one host": Drain(hosts=("n00000",)),
        "drain ten hosts": Drain(hosts=tuple(f"n{number:05}" for number in range(10))),
        "make room": MakeRoom(request=whole),
        "balance": Balance(),
        "consolidate": Consolidate(),
        "defragment": Defragment(requests=(part,)),
        "evacuate-proof": EvacuateProof(),
    }


@app.default
def plans(
    *,
    hosts: Annotated[int, Parameter(validator=Number(gte=11))] = 1_800,
    guests: int = 48_000,
    load: float = 0.7,
    seed: int = 1,
    ruled: Annotated[bool, Parameter(negative="")] = False,
    only: str = "",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make a plan of every goal, and print the CPU time of each.

    Parameters
    ----------
    hosts
        Hosts of 64 vCPUs.
    guests
        Guests of six sizes, on hosts chosen at random.
    load
        Share of all memory in use.
    seed
        Of the cloud.
    ruled
        Guests ask for zones, traits and groups, and a few are nearly as large as a host.
    only
        Only goals whose name has this in it.
    json
        Print one JSON object.
    """
    engine, asked = cloud(hosts, guests, load, seed, ruled=ruled)
    rows: list[dict[str, Any]] = []
    for name, goal in goals(engine).items():
        if only not in name:
            continue
        started = time.process_time()
        plan = engine.plan(goal, asked=asked)
        rows.append(_row(name, time.process_time() - started, plan))
        if not json:
            print(f"{name:18} {rows[-1]['cpu_seconds']:8.2f} s CPU  {plan.summary}", flush=True)
    if json:
        print(msgspec.json.encode({"hosts": hosts, "guests": len(asked), "plans": rows}).decode())
    return 0


def _row(name: str, seconds: float, plan: Plan) -> dict[str, Any]:
    return {
        "goal": name,
        "cpu_seconds": seconds,
        "moves": len(plan.moves),
        "waves": len(plan.waves),
        "summary": plan.summary,
    }


if __name__ == "__main__":
    app()
