"""Times decisions on a made-up cloud whose requests have one shape, a thousand, or a hundred thousand.

    python -m hostler.bench.shapes --hosts 10000 --shapes 1000

A shape is a flavor times an availability zone, required traits and an image; flavors have the sizes that clouds really
offer (``flavor_sizes``). Prints a table, or with ``--json`` a JSON list.
"""

from __future__ import annotations

import itertools
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Final

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..placement.decide.engine import Engine
from ..placement.fleet.fleet import Fleet
from ..placement.numa.derive import derive
from ..placement.types.request import Flavor, Image, Request, RequestSpec
from .engine import Count, machine, main, place_together, under_load
from .flavor_sizes import INSTANCE_TYPES, SCS_FLAVORS
from .workload import HARDWARE, PROJECTS, ZONES, FleetArrays, load, make_arrays, make_policy, random_uuids

HOSTS: Final = (1_000, 10_000, 100_000)
SHAPES: Final = (1, 1_000, 100_000)
BARS: Final = {
    (1_000, 1): 1.7,
    (1_000, 1_000): 6.0,
    (1_000, 100_000): 8.0,
    (10_000, 1): 2.6,
    (10_000, 1_000): 10.0,
    (10_000, 100_000): 15.0,
    (100_000, 1): 5.0,
    (100_000, 1_000): 25.0,
    (100_000, 100_000): 40.0,
    (1_000_000, 1): 6.0,
    (1_000_000, 1_000): 100.0,
    (1_000_000, 100_000): 150.0,
}
"""(hosts, shapes) -> CPU microseconds a decision that it should take at most."""
NUMA_BARS: Final = {(10_000, 1_000): 1_000.0}
"""The same for guests with a NUMA cell, under a policy that judges it."""

DISKS_GB: Final = (0, 20, 50, 100, 200)
CPU_FLAGS: Final = ("HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "HW_CPU_X86_AVX512F", "HW_CPU_X86_AVX512VNNI")
"""Traits by generation of hardware: the first generation has the first two, each later one has one more."""
WANTED_FLAGS: Final = ((), (), (), ("HW_CPU_X86_AVX2",), ("HW_CPU_X86_AVX512F",))
WANTED_ZONES: Final = (None, *ZONES)
ARCHITECTURES: Final = ("x86_64", "x86_64", "x86_64", "i686")
SYSTEMS: Final = ("ubuntu", "debian", "rocky", "fedora", "windows", "centos", "flatcar", "alma", "opensuse", "freebsd")
BUSES: Final = ("virtio", "e1000", "rtl8139")

app = cyclopts.App(name="shapes", help="Time decisions by the number of request shapes.", result_action="return_value")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured. Times in CPU microseconds; ``shapes_met``: distinct shapes among the timed requests."""

    hosts: int
    shapes: int
    shapes_met: int
    decisions: int
    placed: int
    cpu_us_per_decision: float
    release_cpu_us: float
    ranking_bytes_per_host: float
    bar: float | None


def make_shapes_fleet(hosts: int, *, seed: int = 1, fill: float = 0.6, numa: bool = False) -> Fleet:
    """The fleet of the other benchmarks, whose hosts have CPU traits by generation, and with ``numa`` two cells."""
    arrays = make_arrays(hosts, seed=seed, fill=fill)
    generation = {hardware.vcpus: number for number, hardware in enumerate(HARDWARE)}
    templates = tuple(
        replace(host, traits=frozenset(CPU_FLAGS[: 2 + generation[host.vcpus_total]])) for host in arrays.templates
    )
    return load(FleetArrays(arrays.names, templates, arrays.template_of, arrays.figures), seed=seed, numa=numa)


def make_shapes(count: int, *, seed: int = 1) -> list[RequestSpec]:
    """``count`` distinct shapes drawn at random, sizes as frequent as in the catalogues; one shape is a small guest."""
    if count == 1:
        return [RequestSpec(flavor=_flavor((2, 4_096, 20, 1.0), ()), image=_image("x86_64", "ubuntu", "virtio"))]
    rng = np.random.default_rng([seed, 5])
    share = 1 / len(DISKS_GB)
    sizes = [(vcpus, memory, disk, types * share) for vcpus, memory, types in INSTANCE_TYPES for disk in DISKS_GB]
    sizes += [(vcpus, memory, disk, 20.0) for vcpus, memory, disk in SCS_FLAVORS]
    weights = np.array([weight for *_, weight in sizes])
    images = [_image(*each) for each in itertools.product(ARCHITECTURES, SYSTEMS, BUSES)]
    flavors: dict[tuple[int, int], Flavor] = {}
    made: dict[tuple[int, int, int, int], RequestSpec] = {}
    while len(made) < count:
        some = 2 * (count - len(made)) + 16
        drawn = zip(
            rng.choice(len(sizes), some, p=weights / weights.sum()).tolist(),
            rng.integers(len(WANTED_FLAGS), size=some).tolist(),
            rng.integers(len(WANTED_ZONES), size=some).tolist(),
            rng.integers(len(images), size=some).tolist(),
            strict=True,
        )
        for size, flags, zone, image in itertools.islice(drawn, some):
            if len(made) == count:
                break
            key = (size, flags, zone, image)
            if key in made:
                continue
            flavor = flavors.get((size, flags))
            if flavor is None:
                flavor = flavors[size, flags] = _flavor(sizes[size], WANTED_FLAGS[flags])
            made[key] = RequestSpec(flavor=flavor, image=images[image], availability_zone=WANTED_ZONES[zone])
    return list(made.values())


def _flavor(size: tuple[int, int, int, float], flags: Sequence[str]) -> Flavor:
    vcpus, memory_mb, root_gb, _ = size
    return Flavor(
        name=f"{vcpus}-{memory_mb}-{root_gb}-{len(flags)}",
        vcpus=vcpus,
        memory_mb=memory_mb,
        root_gb=root_gb,
        extra_specs={f"trait:{flag}": "required" for flag in flags},
    )


def _image(architecture: str, system: str, bus: str) -> Image:
    return Image(
        disk_format="qcow2",
        properties={"hw_architecture": architecture, "hw_vif_model": bus, "os_distro": system},
    )


def with_cell(spec: RequestSpec) -> RequestSpec:
    """The same shape for a guest with one NUMA cell."""
    flavor = replace(spec.flavor, extra_specs={**spec.flavor.extra_specs, "hw:numa_nodes": "1"})
    return replace(spec, flavor=flavor, numa_topology=derive(flavor, spec.image))


def make_requests(specs: Sequence[RequestSpec], count: int, *, seed: int = 1, named: bool = True) -> list[Request]:
    """``count`` requests for one guest each; every shape once before any comes twice, in random order. ``named``: they
    bring the uuids of their guests."""
    rng = np.random.default_rng([seed, 6])
    rounds = [rng.permutation(len(specs)) for _ in range(-(-count // len(specs)))]
    chosen = np.concatenate(rounds)[:count].tolist()
    projects = rng.integers(0, len(PROJECTS), count).tolist()
    return [
        Request(spec=specs[spec], instance_uuids=(uuid,) if named else (), project_id=PROJECTS[project], user_id="user")
        for spec, project, uuid in zip(chosen, projects, random_uuids(rng, count), strict=True)
    ]


def run(*, hosts: int, shapes: int, requests: int, seed: int = 1, numa: bool = False, named: bool = True) -> Result:
    """Load a fleet, warm up, then place ``requests`` guests and release as many older ones, batch by batch."""
    fleet = make_shapes_fleet(hosts, seed=seed, numa=numa)
    engine = Engine(fleet, make_policy("numa" if numa else "nova"), seed=seed)
    # The guests of the warm-up leave the fleet about as full as it was.
    batch = max(100, min(1_000, hosts // 20))
    specs = make_shapes(shapes, seed=seed)
    if numa:
        specs = list(map(with_cell, specs))
    made = make_requests(specs, requests + 4 * batch, seed=seed, named=named)
    batches = [made[start : start + batch] for start in range(0, len(made), batch)]
    placing, guests = under_load(engine, batches, place_together, seed)
    timed = {id(request.spec) for request in made[4 * batch :]}
    return Result(
        hosts=hosts,
        shapes=shapes,
        shapes_met=len(timed),
        decisions=requests,
        placed=guests.came,
        cpu_us_per_decision=round(placing.per(placing.cpu), 3),
        release_cpu_us=round(guests.clock.per(guests.clock.cpu), 3),
        ranking_bytes_per_host=round(engine._context.compiled.nbytes / hosts, 1),
        bar=NUMA_BARS.get((hosts, shapes)) if numa else BARS.get((hosts, shapes)),
    )


@app.default
def command(
    *,
    hosts: tuple[Count, ...] = HOSTS,
    shapes: tuple[Count, ...] = SHAPES,
    requests: Count = 20_000,
    numa: Annotated[bool, Parameter(negative="")] = False,
    unnamed: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Time REQUESTS decisions for each number of HOSTS and of SHAPES.

    Parameters
    ----------
    numa
        Guests have a NUMA cell, and the policy judges it.
    unnamed
        The engine makes the uuids of the guests.
    """
    found = []
    for size, count in itertools.product(hosts, shapes):
        result = run(hosts=size, shapes=count, requests=requests, numa=numa, named=not unnamed)
        print(f"{size:,} hosts, {count:,} shapes: {result.cpu_us_per_decision} µs", file=sys.stderr, flush=True)
        found.append(result)
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        Console(width=None if sys.stdout.isatty() else 150).print(_table(found))
    return 0


def _table(found: Sequence[Result]) -> Table:
    table = Table(title=f"{machine()}, Python {platform.python_version()}; CPU µs a decision, claim included")
    cells: dict[str, Callable[[Result], str]] = {
        "hosts": lambda each: f"{each.hosts:,}",
        "shapes": lambda each: f"{each.shapes:,}",
        "µs": lambda each: f"{each.cpu_us_per_decision:.2f}",
        "bar": lambda each: "" if each.bar is None else f"{each.bar:g}",
        "release µs": lambda each: f"{each.release_cpu_us:.2f}",
        "placed": lambda each: f"{each.placed:,} of {each.decisions:,}",
        "index B/host": lambda each: f"{each.ranking_bytes_per_host:,.0f}",
    }
    for name in cells:
        table.add_column(name, justify="right")
    for each in found:
        table.add_row(*(cell(each) for cell in cells.values()))
    return table


if __name__ == "__main__":
    sys.exit(main(program=app))
