"""CPU that Placement's operations take in the engine: allocation candidates on flat, full, nested and wide fleets,
claims, and both together. The fleets are made by the API's own commands.

    python -m hostler.bench.candidates --providers 10000 --json
"""

from __future__ import annotations

import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from ..placement.api import commands as c
from ..placement.api.placement_model import PlacementModel
from ..placement.fleet.fleet import Fleet, Inventory
from ..placement.request.placement_query import PlacementQuery, RequestGroup
from .engine import main

app = cyclopts.App(name="candidates", help="Measure allocation candidates.", result_action="return_value")

GUEST: Final = PlacementQuery(
    groups=(
        RequestGroup(
            resources=(("DISK_GB", 20), ("MEMORY_MB", 4096), ("VCPU", 2)), required=frozenset({"HW_CPU_X86_AVX2"})
        ),
    )
)
BARS_US: Final = {"limit 1": 200.0, "limit 1000": 5_000.0}
"""CPU microseconds that an engine call may take at 10,000 providers."""
OWNER: Final = {"project_id": "project", "user_id": "user"}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Median CPU of one call. ``candidates``: how many it found; ``bar_us``: at most that, where there is a bar."""

    fleet: str
    providers: int
    what: str
    cpu_us: float
    candidates: int
    bar_us: float | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All figures; ``load_us``: CPU for each provider of the flat fleet, made by three commands."""

    providers: int
    seed: int
    load_us: float
    figures: list[Figure]


class Maker:
    """Makes a fleet by commands; uuids come from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance, self.model = random.Random(seed), PlacementModel(Fleet())

    def uuid(self) -> str:
        """A new uuid."""
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def provider(
        self, name: str, inventories: dict[str, Inventory], traits: tuple[str, ...] = (), parent: str | None = None
    ) -> str:
        """Add a provider; returns its uuid."""
        mine, apply = self.uuid(), self.model.apply
        apply(c.CreateProvider(uuid=mine, name=name, parent=parent, now=1.0))
        apply(c.SetInventories(provider=mine, generation=0, inventories=inventories, now=1.0))
        apply(c.SetTraits(provider=mine, generation=1, traits=traits, now=1.0))
        return mine


def flat(providers: int, seed: int, *, full: bool = False) -> Maker:
    """Compute hosts of one kind. ``full``: only the last one has room."""
    maker = Maker(seed)
    for number in range(providers):
        reserved = 262_000 if full and number < providers - 1 else 512
        inventories = {
            "VCPU": Inventory(total=64, allocation_ratio=16.0),
            "MEMORY_MB": Inventory(total=262_144, reserved=reserved),
            "DISK_GB": Inventory(total=2_000),
        }
        maker.provider(f"host-{number}", inventories, ("COMPUTE_NODE", "HW_CPU_X86_AVX2"))
    return maker


def nested(providers: int, seed: int) -> Maker:
    """Trees of five: a host with disk, two NUMA cells with CPUs and memory, two GPUs."""
    maker = Maker(seed)
    for number in range(max(1, providers // 5)):
        name = f"host-{number}"
        root = maker.provider(name, {"DISK_GB": Inventory(total=2_000)}, ("COMPUTE_NODE", "HW_CPU_X86_AVX2"))
        for cell in range(2):
            capacity = {"VCPU": Inventory(total=32, allocation_ratio=4.0), "MEMORY_MB": Inventory(total=131_072)}
            maker.provider(f"{name}-numa-{cell}", capacity, ("HW_NUMA_ROOT",), root)
            maker.provider(f"{name}-gpu-{cell}", {"PGPU": Inventory(total=1)}, (), root)
    return maker


def wide(hosts: int, children: int, seed: int) -> Maker:
    """Hosts with many children of one device each."""
    maker = Maker(seed)
    for number in range(hosts):
        root = maker.provider(f"host-{number}", {"VCPU": Inventory(total=64)})
        for child in range(children):
            maker.provider(f"host-{number}-pf-{child}", {"PCI_DEVICE": Inventory(total=1)}, (), root)
    return maker


def devices(groups: int) -> PlacementQuery:
    """A guest with so many devices, each from a group of its own."""
    asked = [RequestGroup(suffix=f"_{i}", resources=(("PCI_DEVICE", 1),)) for i in range(groups)]
    return PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 1),)), *asked), group_policy="none")


def median_us(call: Callable[[], object], repeat: int) -> float:
    """CPU microseconds of a call."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e6 * statistics.median(times)


def run(*, providers: int, seed: int = 1, repeat: int = 30) -> Result:
    """Measure everything."""
    figures: list[Figure] = []

    def measure(
        name: str, maker: Maker, what: str, query: PlacementQuery, limit: int, *, broad: bool = False, bar: bool = False
    ) -> None:
        limited = replace(query, limit=limit)
        found = maker.model.allocation_candidates(limited, breadth_first=broad)
        cpu = median_us(lambda: maker.model.allocation_candidates(limited, breadth_first=broad), repeat)
        count, total = len(found.allocation_requests), len(maker.model.fleet)
        least = BARS_US[what] if bar else None
        figures.append(Figure(fleet=name, providers=total, what=what, cpu_us=cpu, candidates=count, bar_us=least))

    start = time.process_time()
    usual = flat(providers, seed)
    load_us = 1e6 * (time.process_time() - start) / providers
    for limit in (1, 1000):
        measure("flat", usual, f"limit {limit}", GUEST, limit, bar=True)
    figures += _claims(usual, repeat)
    measure("all but one full", flat(providers, seed, full=True), "limit 1", GUEST, 1)
    trees = nested(providers, seed)
    gpu = replace(
        GUEST, groups=(*GUEST.groups, RequestGroup(suffix="_gpu", resources=(("PGPU", 1),))), group_policy="none"
    )
    for limit in (1, 1000):
        measure("nested", trees, f"limit {limit}", gpu, limit)
    measure("8 children each", wide(2, 8, seed), "8 groups, limit 1000", devices(8), 1000)
    measure("8 children each", wide(2, 8, seed), "8 groups, breadth first, limit 1000", devices(8), 1000, broad=True)
    measure("7 children each", wide(max(2, providers // 100), 7, seed), "8 groups, none fits", devices(8), 1000)
    return Result(providers=providers, seed=seed, load_us=load_us, figures=figures)


def _claims(maker: Maker, repeat: int) -> list[Figure]:
    """A write of allocations, and a query with it."""
    model, query = maker.model, replace(GUEST, limit=1)
    first = model.allocation_candidates(query).allocation_requests[0]["allocations"]

    def claim(allocations: dict[str, dict[str, dict[str, int]]]) -> None:
        asked = {uuid: part["resources"] for uuid, part in allocations.items()}
        one = c.ConsumerAllocations(allocations=asked, generation=None, consumer_type="INSTANCE", **OWNER)
        model.apply(c.SetAllocations(consumers={maker.uuid(): one}, now=2.0))

    alone = median_us(lambda: claim(first), repeat)
    together = median_us(
        lambda: claim(model.allocation_candidates(query).allocation_requests[0]["allocations"]), repeat
    )
    size = len(model.fleet)
    return [
        Figure(fleet="flat", providers=size, what="claim", cpu_us=alone, candidates=0),
        Figure(fleet="flat", providers=size, what="limit 1 and claim", cpu_us=together, candidates=1),
    ]


@app.default
def command(
    *,
    providers: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 10_000,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))] = 1,
    repeat: Annotated[int, Parameter(validator=Number(gte=1))] = 30,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Time the engine's allocation candidates on fleets of PROVIDERS providers, the median of REPEAT calls each."""
    result = run(providers=providers, seed=seed, repeat=repeat)
    if json:
        print(msgspec.json.encode(result).decode())
        return 0
    table = Table(title=f"{providers:,} providers; loading took {result.load_us:.0f} µs of CPU each")
    for heading in ("fleet", "providers", "what", "CPU µs", "candidates", "bar µs"):
        table.add_column(heading)
    for figure in result.figures:
        bar = "" if figure.bar_us is None else f"{figure.bar_us:,.0f}"
        table.add_row(
            figure.fleet, f"{figure.providers:,}", figure.what, f"{figure.cpu_us:,.0f}", str(figure.candidates), bar
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(program=app))
