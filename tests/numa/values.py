"""Host cells, guests and random ones: small enough to be full soon, odd enough for every path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from hostler.placement.types.host import MemoryPages, NumaCell, NumaTopology
from hostler.placement.types.request import InstanceNumaCell, InstanceNumaTopology

SMALL_PAGES, LARGE_PAGES, ANY_PAGES = -1, -2, -3


def pages(size_kb: int, total: int, used: int = 0, reserved: int = 0) -> MemoryPages:
    return MemoryPages(size_kb=size_kb, total=total, used=used, reserved=reserved)


def cell(id: int = 0, cores: int = 4, threads: int = 1, **changes: Any) -> NumaCell:
    """A cell of 4096 MiB, all CPUs dedicated, from CPU 100 * id on; the siblings of CPU c are c, c + cores, ..."""
    first = 100 * id
    siblings = tuple(frozenset(range(first + core, first + cores * threads, cores)) for core in range(cores))
    plain = NumaCell(
        id=id,
        cpuset=frozenset(),
        pcpuset=frozenset(range(first, first + cores * threads)),
        memory=4096,
        siblings=siblings,
        mempages=(pages(4, 4096 * 256),),
    )
    return replace(plain, **changes)


def shared_cell(id: int = 0, cores: int = 4, threads: int = 1, **changes: Any) -> NumaCell:
    """The same with all CPUs shared."""
    plain = cell(id, cores, threads)
    return replace(replace(plain, cpuset=plain.pcpuset, pcpuset=frozenset()), **changes)


def legacy_cell(id: int = 0, cores: int = 4, threads: int = 2, **changes: Any) -> NumaCell:
    """The same with all CPUs both shared and dedicated, as with Nova's vcpu_pin_set."""
    plain = cell(id, cores, threads)
    return replace(replace(plain, cpuset=plain.pcpuset), **changes)


def topology(*cells: NumaCell) -> NumaTopology:
    return NumaTopology(cells=cells)


def guest(*cells: InstanceNumaCell, emulator: str | None = None) -> InstanceNumaTopology:
    return InstanceNumaTopology(cells=cells, emulator_threads_policy=emulator)


def floating(cpus: Iterable[int] = (0, 1), *, id: int = 0, memory: int = 1024, **changes: Any) -> InstanceNumaCell:
    return InstanceNumaCell(id=id, cpuset=frozenset(cpus), memory=memory, **changes)


def pinned(cpus: Iterable[int] = (0, 1), *, id: int = 0, memory: int = 1024, **changes: Any) -> InstanceNumaCell:
    return InstanceNumaCell(
        id=id, cpuset=frozenset(), pcpuset=frozenset(cpus), memory=memory, cpu_policy="dedicated", **changes
    )


def mixed(
    floating: Iterable[int], pinned: Iterable[int], *, id: int = 0, memory: int = 1024, **changes: Any
) -> InstanceNumaCell:
    return InstanceNumaCell(
        id=id, cpuset=frozenset(floating), pcpuset=frozenset(pinned), memory=memory, cpu_policy="mixed", **changes
    )


MEMORY = [1024, 2048, 4096, 4097]
PAGE_SIZES = [(), (4,), (4, 2048), (2048, 4), (4, 2048, 1048576), (2048,), (64, 16384)]


@st.composite
def host_cells(draw: st.DrawFn, id: int, first: int, threads: int) -> NumaCell:
    cores = draw(st.integers(1, 4))
    cpus = range(first, first + cores * threads)
    spread = draw(st.booleans())
    siblings = [cpus[core::cores] if spread else cpus[core * threads : (core + 1) * threads] for core in range(cores)]
    legacy = draw(st.booleans())
    every: frozenset[int] = frozenset(cpus)
    dedicated = every if legacy else draw(st.just(every) | st.frozensets(st.sampled_from(cpus)))
    held = st.frozensets(st.sampled_from(sorted(dedicated)), max_size=4) if dedicated else st.just(dedicated)
    memory = draw(st.sampled_from(MEMORY))
    return NumaCell(
        id=id,
        cpuset=every if legacy else every - dedicated,
        pcpuset=dedicated,
        memory=memory,
        cpu_usage=draw(st.integers(0, 8)),
        memory_usage=draw(st.just(0) | st.integers(0, memory)),
        pinned_cpus=draw(st.just(frozenset[int]()) | held),
        siblings=tuple(frozenset(core) for core in siblings) if draw(st.integers(0, 9)) else (),
        mempages=tuple(draw(host_pages(size, memory)) for size in draw(st.sampled_from(PAGE_SIZES))),
        socket=draw(st.sampled_from([None, 0, id // 2])),
    )


@st.composite
def host_pages(draw: st.DrawFn, size_kb: int, memory: int) -> MemoryPages:
    total = draw(st.sampled_from([memory * 1024 // size_kb, memory * 512 // size_kb]))
    return pages(size_kb, total, draw(st.just(0) | st.integers(0, total)), draw(st.sampled_from([0, 0, 0, 2])))


@st.composite
def topologies(draw: st.DrawFn, most_cells: int = 4) -> NumaTopology:
    threads = draw(st.sampled_from([1, 2, 2, 4]))
    stride = draw(st.sampled_from([16, 60, 200]))
    ids = draw(st.sampled_from([range(64), range(0, 512, 8), range(7, -1, -1)]))
    count = draw(st.integers(1, most_cells))
    return NumaTopology(cells=tuple(draw(host_cells(ids[index], index * stride, threads)) for index in range(count)))


@st.composite
def guests(draw: st.DrawFn, most_cells: int = 4) -> InstanceNumaTopology:
    policy = draw(st.sampled_from([None, "shared", "dedicated", "dedicated", "mixed"]))
    dedicates = policy in ("dedicated", "mixed")
    thread_policies = [None, "prefer", "require", "isolate"]
    common: dict[str, Any] = {
        "pagesize": draw(st.sampled_from([None, None, None, SMALL_PAGES, LARGE_PAGES, ANY_PAGES, 4, 2048])),
        "cpu_policy": policy,
        "cpu_thread_policy": draw(st.sampled_from(thread_policies)) if dedicates else None,
    }
    alike = draw(st.booleans())
    count = draw(st.integers(1, most_cells))
    shapes = st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([256, 512, 1023, 1024, 2048]))
    each: Sequence[tuple[int, int, int]] = [draw(shapes)] * count if alike else [draw(shapes) for _ in range(count)]
    cells, first = [], 0
    for id, (float_count, pin_count, memory) in enumerate(each):
        floats = float_count if policy != "dedicated" else 0
        pins = pin_count if dedicates else 0
        cells.append(
            InstanceNumaCell(
                id=id,
                cpuset=frozenset(range(first, first + floats)),
                pcpuset=frozenset(range(first + floats, first + floats + pins)),
                memory=memory,
                **common,
            )
        )
        first += floats + pins
    emulator = draw(st.sampled_from([None, None, "isolate", "share"])) if dedicates else None
    return InstanceNumaTopology(cells=tuple(cells), emulator_threads_policy=emulator)
