"""Times single calls of the engine that do more than place one guest anywhere: moves, several instances at once, named
hosts, hints, alternates, refusals.

    python -m hostler.bench.paths --hosts 10000 --only move --only ten

The fleet is that of ``bench.shapes``. Requests share the specs of twenty shapes; one that names hosts or guests has a
spec of its own. What a call placed is released, off the clock, after each round.
"""

from __future__ import annotations

import gc
import itertools
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..placement.decide.engine import Engine
from ..placement.policy.policy import Policy
from ..placement.types.decision import Decision
from ..placement.types.request import Destination, Flavor, Request, RequestSpec, ServerGroup
from .engine import Count, machine, main
from .shapes import make_shapes, make_shapes_fleet
from .workload import random_uuids

HOSTS: Final = (1_000, 10_000, 100_000)
FILTERS: Final = (
    *("ComputeFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter"),
    *("ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter", "SameHostFilter", "DifferentHostFilter"),
)
BARS: Final = {
    ("move", 10_000): 60.0,
    ("ten", 10_000): 100.0,
    ("ten", 100_000): 300.0,
    ("refused", 10_000): 30.0,
}
"""(path, hosts) -> CPU microseconds a call that it should take at most."""
GUESTS: Final = 200
"""Guests that are asked for before the clock starts: those that are moved, and those that hints name."""
ROUNDS: Final = 3
SPECS: Final = 20
"""Shapes of requests, in turn."""
HUGE: Final = Flavor(name="huge", vcpus=2, memory_mb=8_000_000, root_gb=20)
"""A guest that no host has room for."""
GROUP: Final = "00000000-0000-4000-8000-0000000000aa"

app = cyclopts.App(name="paths", help="Time single calls of the engine.", result_action="return_value")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: CPU microseconds a call, the least of the rounds."""

    path: str
    hosts: int
    calls: int
    placed: int
    cpu_us: float
    bar: float | None


@dataclass(slots=True)
class Bed:
    """An engine with guests, and what the paths draw from."""

    engine: Engine
    specs: list[RequestSpec]
    huge: RequestSpec
    guests: list[str]
    uuids: Iterator[str]
    rng: np.random.Generator

    def request(self, number: int, instances: int = 1, **fields: Any) -> Request:
        """A request for guests of one of the shapes in turn; ``fields`` replace those of its spec."""
        spec = self.specs[number % len(self.specs)]
        uuids = tuple(itertools.islice(self.uuids, instances))
        return Request(spec=replace(spec, **fields) if fields else spec, instance_uuids=uuids, project_id="p")

    def guest(self, number: int) -> str:
        """The guests in turn."""
        return self.guests[number % len(self.guests)]

    def some_guests(self, count: int) -> tuple[str, ...]:
        """Guests drawn at random."""
        return tuple(self.guests[at] for at in self.rng.choice(len(self.guests), count, replace=False).tolist())

    def some_hosts(self, count: int) -> tuple[str, ...]:
        """Hosts drawn at random."""
        fleet = self.engine.fleet
        return tuple(fleet.name(row) for row in self.rng.choice(fleet.rows, count, replace=False).tolist())


Call = Callable[[], Decision | int]
Path = Callable[[Bed, int], Call]
"""Makes the call of a number, off the clock."""


def _one(bed: Bed, request: Request) -> Call:
    return lambda: bed.engine.place(request)


def _move(bed: Bed, number: int) -> Call:
    uuid, request = bed.guest(number), Request(spec=bed.specs[number % SPECS])
    return lambda: bed.engine.move(uuid, request)


def _resize(bed: Bed, number: int) -> Call:
    uuid, request = bed.guest(number), Request(spec=bed.specs[(number + 1) % SPECS])
    return lambda: bed.engine.resize(uuid, request)


def _fits(bed: Bed, number: int) -> Call:
    request = bed.request(number)
    return lambda: bed.engine.fits(request, limit=10).count


def _refused(bed: Bed, number: int) -> Call:
    """A refusal that is worked out: a row has changed since the one before."""
    request, change_log = replace(bed.request(number), spec=bed.huge), bed.engine.fleet._change_log
    row = np.array([number % bed.engine.fleet.rows], np.int32)

    def call() -> Decision:
        change_log.changed(row)
        return bed.engine.place(request)

    return call


def _soft_group(bed: Bed, number: int) -> Call:
    members = bed.some_guests(8)
    fleet = bed.engine.fleet
    hosts = frozenset(fleet._service_host(fleet.row(fleet.consumer(uuid).provider)) for uuid in members)
    group = ServerGroup(uuid=GROUP, policy="soft-anti-affinity", members=frozenset(members), hosts=hosts)
    return _one(bed, replace(bed.request(number), server_group=group))


PATHS: Final[dict[str, Path]] = {
    "place": lambda bed, number: _one(bed, bed.request(number)),
    "move": _move,
    "ten": lambda bed, number: _one(bed, bed.request(number, 10)),
    "refused": _refused,
    "refused_again": lambda bed, number: _one(bed, replace(bed.request(number), spec=bed.huge)),
    "ignore_hosts": lambda bed, number: _one(bed, bed.request(number, ignore_hosts=bed.some_hosts(3))),
    "force_hosts": lambda bed, number: _one(bed, bed.request(number, force_hosts=bed.some_hosts(1))),
    "force_nodes": lambda bed, number: _one(bed, bed.request(number, force_nodes=bed.some_hosts(1))),
    "destination": lambda bed, number: _one(
        bed, bed.request(number, requested_destination=Destination(host=bed.some_hosts(1)[0]))
    ),
    "same_host": lambda bed, number: _one(bed, bed.request(number, scheduler_hints={"same_host": bed.some_guests(2)})),
    "different_host": lambda bed, number: _one(
        bed, bed.request(number, scheduler_hints={"different_host": bed.some_guests(2)})
    ),
    "alternates": lambda bed, number: _one(bed, replace(bed.request(number), alternates=3)),
    "resize": _resize,
    "fits": _fits,
    "soft_group": _soft_group,
    "subset": lambda bed, number: _one(bed, bed.request(number)),
}


def make_bed(hosts: int, *, subset: int = 1, seed: int = 1) -> Bed:
    """A loaded fleet with guests in it, under Nova's filters and those of the hints."""
    options = {"filter_scheduler": {"enabled_filters": list(FILTERS), "host_subset_size": subset}}
    engine = Engine(make_shapes_fleet(hosts, seed=seed), Policy.from_mapping(options), seed=seed)
    rng = np.random.default_rng([seed, 7])
    specs = make_shapes(SPECS, seed=seed)
    bed = Bed(engine, specs, RequestSpec(flavor=HUGE), [], iter(random_uuids(rng, 200_000)), rng)
    for number in range(GUESTS):
        bed.guests += [each.instance_uuid for each in engine.place(bed.request(number)).selections]
    return bed


def run(path: str, bed: Bed, *, calls: int) -> Result:
    """Time so many calls of a path, after a round that is not counted."""
    hosts, fleet, clock, placed = bed.engine.fleet.rows, bed.engine.fleet, list[float](), 0
    gc.collect()
    for number in range(1 + ROUNDS):
        made = [PATHS[path](bed, number * calls + at) for at in range(calls)]
        gc.disable()
        began = time.process_time()
        answers = [call() for call in made]
        clock.append(time.process_time() - began)
        gc.enable()
        decisions = [each for each in answers if isinstance(each, Decision)]
        placed += sum(each.placed for each in decisions) if number else 0
        known = set(bed.guests)
        came = (each.instance_uuid for decision in decisions for each in decision.selections)
        bed.engine.release([uuid for uuid in came if uuid not in known])
    assert fleet.rows == hosts
    least = min(clock[1:]) / calls * 1e6
    return Result(
        path=path,
        hosts=hosts,
        calls=ROUNDS * calls,
        placed=placed,
        cpu_us=round(least, 1),
        bar=BARS.get((path, hosts)),
    )


@app.default
def command(
    *,
    hosts: tuple[Count, ...] = HOSTS,
    only: tuple[str, ...] = tuple(PATHS),
    calls: Count = 100,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Time CALLS calls of each path (ONLY: of these) for each number of HOSTS."""
    found = []
    for size in hosts:
        plain, chance = make_bed(size), make_bed(size, subset=3) if "subset" in only else None
        for path in only:
            result = run(path, plain if path != "subset" or chance is None else chance, calls=calls)
            print(f"{size:,} hosts, {path}: {result.cpu_us} µs", file=sys.stderr, flush=True)
            found.append(result)
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        Console(width=None if sys.stdout.isatty() else 150).print(_table(found))
    return 0


def _table(found: Sequence[Result]) -> Table:
    table = Table(title=f"{machine()}, Python {platform.python_version()}; CPU µs a call")
    for name in ("path", "hosts", "µs", "bar", "placed"):
        table.add_column(name, justify="left" if name == "path" else "right")
    for each in found:
        bar = "" if each.bar is None else f"{each.bar:g}"
        table.add_row(each.path, f"{each.hosts:,}", f"{each.cpu_us:,.1f}", bar, f"{each.placed:,} of {each.calls:,}")
    return table


if __name__ == "__main__":
    sys.exit(main(program=app))
