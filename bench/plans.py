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
    RunningInstance,
    add_hosts,
)

from ..placement.types.plans import Goal, Plan

app = cyclopts.App(name="plans", help="CPU time of move plans on a large fleet.")
Asked = dict[str, RequestSpec]
VCPUS: Final = 64
SIZES: Final = ((1, 2), (2, 4), (2, 8), (4, 16), (8, 32), (2, 16))
"""vCPUs and GiB of guests."""
MEAN_GIB: Final = sum(gib for _, gib in SIZES) / len(SIZES)
CPU_RATIO: Final = 4.0
ZONES: Final = 3
RARE: Final = 20
"""One host in so many has the rare trait."""
TRIES: Final = 100
"""Hosts that are drawn for a guest before it is left out."""


def cloud(hosts: int, guests: int, load: float, seed: int, *, ruled: bool = False) -> tuple[Engine, Asked]:
    """An engine with guests on hosts chosen at random, which use ``load`` of all memory, and what each asked.
    ``ruled``: a third of the guests ask for one of three zones, a tenth is in groups of four with anti-affinity, and of
    a hundred hosts two have one guest of 0.7 of their memory, half of these on hosts with a trait of one in 20."""
    made = _Cloud(random.Random(seed), hosts, int(guests * MEAN_GIB * 1024 / hosts / load), ruled)
    if ruled:
        for number in range(hosts // 50):
            made.add(*_large_guest(number, int(made.memory_mb * 0.7)))
    specs = [
        RequestSpec(flavor=Flavor(name=f"m{vcpus}-{gib}", vcpus=vcpus, memory_mb=gib * 1024, root_gb=20))
        for vcpus, gib in SIZES
    ]
    zoned = [(replace(spec, availability_zone=_zone(zone).name), zone) for spec in specs for zone in range(ZONES)]
    while made.given_mb < int(guests * MEAN_GIB * 1024) and made.tried < 2 * guests:
        spec, zone = made.rng.choice(zoned) if ruled and made.rng.random() < 0.33 else (made.rng.choice(specs), 0)
        group = f"00000000-0000-4000-8001-{made.tried // 40:012}" if ruled and made.tried % 40 < 4 else None
        made.add(spec, zone, ZONES if spec.availability_zone else 1, group)
    return made.engine(seed), made.asked


class _Cloud:
    """Hosts that are not loaded yet, with the guests that each is given."""

    def __init__(self, rng: random.Random, hosts: int, memory_mb: int, ruled: bool) -> None:
        self.rng, self.memory_mb, self.ruled = rng, memory_mb, ruled
        self.asked: Asked = {}
        self.tried, self.given_mb = 0, 0
        self._running: list[dict[str, RunningInstance]] = [{} for _ in range(hosts)]
        self._free = [[memory_mb, VCPUS * int(CPU_RATIO)] for _ in range(hosts)]
        self._groups: dict[str, set[int]] = {}

    def add(self, spec: RequestSpec, first: int, every: int, group: str | None = None) -> None:
        """Add a guest to a host with room, chosen at random of those from ``first`` on, ``every`` apart, without
        another guest of its group; to none if TRIES have no room."""
        number, flavor, self.tried = self.tried, spec.flavor, self.tried + 1
        taken = self._groups.setdefault(group, set()) if group is not None else set()
        for _ in range(TRIES):
            at = self.rng.randrange(first, len(self._free), every)
            memory_mb, vcpus = self._free[at]
            if memory_mb < flavor.memory_mb or vcpus < flavor.vcpus or at in taken:
                continue
            taken.add(at)
            uuid = f"00000000-0000-4000-8000-{number:012}"
            self._free[at] = [memory_mb - flavor.memory_mb, vcpus - flavor.vcpus]
            self._running[at][uuid] = RunningInstance(flavor=flavor, server_group=group)
            self.asked[uuid], self.given_mb = spec, self.given_mb + flavor.memory_mb
            return

    def engine(self, seed: int) -> Engine:
        """The hosts in a fleet, under Nova's policy."""
        fleet, zones = Fleet(), [_zone(number) for number in range(ZONES)]
        for group in self._groups:
            fleet.add_server_group(group, "anti-affinity")
        add_hosts(
            fleet,
            [
                Host(
                    host=f"n{number:05}",
                    vcpus_total=VCPUS,
                    cpu_allocation_ratio=CPU_RATIO,
                    total_usable_ram_mb=self.memory_mb,
                    total_usable_disk_gb=10_000,
                    aggregates=(zones[number % ZONES],) if self.ruled else (),
                    traits=frozenset({"CUSTOM_RARE"} if self.ruled and number % RARE == 0 else ()),
                    instances=running,
                )
                for number, running in enumerate(self._running)
            ],
        )
        return Engine(fleet, Policy.from_mapping({}), seed=seed)


def _zone(number: int) -> Aggregate:
    name = f"zone-{number}"
    return Aggregate(uuid=f"00000000-0000-4000-8002-{number:012}", name=name, metadata={"availability_zone": name})


def _large_guest(number: int, memory_mb: int) -> tuple[RequestSpec, int, int]:
    """A guest that fills most of a host, where the hosts begin that it may be on, and how far they are apart; every
    other one needs a trait that few hosts have."""
    extra = {"trait:CUSTOM_RARE": "required"} if number % 2 else {}
    flavor = Flavor(name=f"large-{number % 2}", vcpus=16, memory_mb=memory_mb, root_gb=20, extra_specs=extra)
    return RequestSpec(flavor=flavor), 0, RARE if extra else 1


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
