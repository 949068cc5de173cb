"""The NUMA topology that a flavor and an image ask for together, as nova-api derives it (Nova 33 hardware.py NUMA
constraints).

Contradictions are refused with the name of the property at fault. Does not consider any host.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ..types.errors import InvalidValue
from ..types.request import Flavor, Image, InstanceNumaCell, InstanceNumaTopology
from ..types.validation import counted
from . import cpu_set
from .cores import ISOLATE, PREFER, REQUIRE
from .fit import ANY_PAGES, DEDICATED, LARGE_PAGES, MIXED, SHARED, SMALL_PAGES

_MOST_CELLS = 128
_CPU_POLICIES = (DEDICATED, MIXED, SHARED)
_THREAD_POLICIES = (PREFER, ISOLATE, REQUIRE)
_EMULATOR_POLICIES = (ISOLATE, "share")
_PAGE_CLASSES = {"small": SMALL_PAGES, "large": LARGE_PAGES, "any": ANY_PAGES}
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_MOST_KB = 2**63 - 1
_LONGEST_SIZE = 100
"""Of a page size: the time to match grows with the square of the length, and more digits are no number."""
_SIZE = re.compile(r"(\d*\.?\d+)(?:([KMGTPEZYRQ])i?)?(b|bit|B)")
_RESOURCE = re.compile(r"resources(?:[1-9][0-9]*)?:([VP]CPU)")
_HYPERTHREADING = re.compile(r"trait(?:[1-9][0-9]*)?:HW_CPU_HYPERTHREADING")


class _Asked(NamedTuple):
    """Flavor and image side by side. A property ``x`` is ``hw:x`` of the flavor and ``hw_x`` of the image."""

    flavor: Flavor
    image: Mapping[str, Any]

    def of_flavor(self, name: str) -> str | None:
        return self.flavor.extra_specs.get(f"hw:{name}") or None

    def of_image(self, name: str) -> str | None:
        value = self.image.get(f"hw_{name}")
        return None if value is None or value == "" else str(value)

    @property
    def cpus(self) -> frozenset[int]:
        return frozenset(range(self.flavor.vcpus))


class _CpuPolicy(NamedTuple):
    """``dedicated``: the guest CPUs with a host CPU of their own."""

    name: str | None
    threads: str | None
    emulator: str | None
    dedicated: frozenset[int]


def derive(flavor: Flavor, image: Image | None = None) -> InstanceNumaTopology | None:
    """The guest's NUMA cells, or None if nothing requests them: no nodes, page size, persistent memory or dedicated
    CPUs.

    InvalidValue if flavor and image contradict each other or themselves, with the property as its field.
    """
    asked = _Asked(flavor, image.properties if image is not None else {})
    policy = _cpu_policy(asked)
    nodes = _nodes(asked)
    pagesize = _pagesize(asked)
    _check_locked_memory(asked)
    persistent = any(label.strip() for label in flavor.extra_specs.get("hw:pmem", "").split(","))
    if not (nodes or pagesize or persistent or policy.name in (DEDICATED, MIXED)):
        return None
    cells = tuple(
        InstanceNumaCell(
            id=index,
            cpuset=cpus - policy.dedicated,
            pcpuset=cpus & policy.dedicated,
            memory=memory,
            pagesize=pagesize,
            cpu_policy=policy.name,
            cpu_thread_policy=policy.threads,
        )
        for index, (cpus, memory) in enumerate(_cells(asked, nodes or 1))
    )
    return InstanceNumaTopology(cells=cells, emulator_threads_policy=policy.emulator)


# CPUs


def _cpu_policy(asked: _Asked) -> _CpuPolicy:
    name = _policy_by_resources(asked, _policy(asked))
    threads = _thread_policy(asked)
    emulator = _one_of(asked.of_flavor("emulator_threads_policy"), _EMULATOR_POLICIES, "hw:emulator_threads_policy")
    realtime = _realtime_cpus(asked, emulator)
    mask = _dedicated_mask(asked)
    if name in (SHARED, None):
        _check_shared(threads, emulator, mask, realtime)
        return _CpuPolicy(name, None, emulator, frozenset())
    if name == DEDICATED:
        if mask:
            raise InvalidValue(
                "a dedicated CPU mask needs CPU policy mixed, not dedicated", field="hw:cpu_dedicated_mask"
            )
        return _CpuPolicy(name, threads, emulator, asked.cpus)
    if bool(mask) == bool(realtime):
        raise InvalidValue(
            "CPU policy mixed needs either a dedicated or a realtime CPU mask, not both", field="hw:cpu_dedicated_mask"
        )
    return _CpuPolicy(name, threads, emulator, mask or realtime or frozenset())


def _policy(asked: _Asked) -> str | None:
    """The flavor decides. The image may request a weaker policy than a dedicated flavor, but not a stronger one than
    the flavor's."""
    of_flavor = _one_of(asked.of_flavor("cpu_policy"), _CPU_POLICIES, "hw:cpu_policy")
    of_image = _one_of(asked.of_image("cpu_policy"), _CPU_POLICIES, "hw_cpu_policy")
    strict = {MIXED: (DEDICATED,), SHARED: (MIXED, DEDICATED)}
    if of_flavor is not None and of_image in strict.get(of_flavor, ()):
        raise InvalidValue(f"image asks for CPU policy {of_image}, the flavor gives {of_flavor}", field="hw_cpu_policy")
    return of_flavor or of_image


def _policy_by_resources(asked: _Asked, policy: str | None) -> str | None:
    """``resources:VCPU`` and ``resources:PCPU`` stand for the policies shared and dedicated."""
    amounts = {"VCPU": 0, "PCPU": 0}
    for name, text in asked.flavor.extra_specs.items():
        if match := _RESOURCE.match(name):
            amounts[match[1]] += int(text) if text.strip().lstrip("+-").isdigit() else 0
    if not any(amounts.values()):
        return policy
    if policy or all(amounts.values()):
        raise InvalidValue("resources:VCPU, resources:PCPU and a CPU policy exclude each other", field="resources:PCPU")
    if amounts["VCPU"]:
        return SHARED
    needed = asked.flavor.vcpus + (asked.of_flavor("emulator_threads_policy") == ISOLATE)
    if amounts["PCPU"] != needed:
        raise InvalidValue(f"{needed} PCPU are needed, resources:PCPU says {amounts['PCPU']}", field="resources:PCPU")
    return DEDICATED


def _thread_policy(asked: _Asked) -> str | None:
    """The trait HW_CPU_HYPERTHREADING, required or forbidden, stands for the thread policies require and isolate."""
    of_flavor = _one_of(asked.of_flavor("cpu_thread_policy"), _THREAD_POLICIES, "hw:cpu_thread_policy")
    of_image = _one_of(asked.of_image("cpu_thread_policy"), _THREAD_POLICIES, "hw_cpu_thread_policy")
    if of_flavor not in (None, PREFER) and of_image not in (None, of_flavor):
        raise InvalidValue(
            f"image asks for thread policy {of_image}, the flavor gives {of_flavor}", field="hw_cpu_thread_policy"
        )
    policy = of_flavor or of_image
    trait = _hyperthreading(asked)
    if policy and trait:
        raise InvalidValue(
            "a CPU thread policy and the trait HW_CPU_HYPERTHREADING exclude each other", field="hw:cpu_thread_policy"
        )
    return {"required": REQUIRE, "forbidden": ISOLATE}.get(trait or "", policy)


def _hyperthreading(asked: _Asked) -> str | None:
    for name, value in asked.flavor.extra_specs.items():
        if _HYPERTHREADING.match(name):
            return value
    required = asked.image.get("traits_required") or ()
    if "HW_CPU_HYPERTHREADING" in required or asked.image.get("trait:HW_CPU_HYPERTHREADING") == "required":
        return "required"
    return None


def _check_shared(
    threads: str | None, emulator: str | None, mask: frozenset[int] | None, realtime: frozenset[int] | None
) -> None:
    """InvalidValue if a property that needs dedicated CPUs is set without them."""
    wrong = {
        "hw:cpu_thread_policy": threads,
        "hw:emulator_threads_policy": emulator == ISOLATE,
        "hw:cpu_dedicated_mask": mask,
        "hw:cpu_realtime": realtime,
    }
    for field, value in wrong.items():
        if value:
            raise InvalidValue(f"{field} needs CPU policy dedicated or mixed", field=field)


def _realtime_cpus(asked: _Asked, emulator: str | None) -> frozenset[int] | None:
    if (asked.of_flavor("cpu_realtime") or "").strip().lower() not in _TRUE:
        return None
    field = "hw:cpu_realtime_mask"
    mask = asked.of_image("cpu_realtime_mask") or asked.of_flavor("cpu_realtime_mask")
    cpus = _masked(asked, mask, field) if mask else asked.cpus
    if not cpus or not cpus <= asked.cpus or (cpus == asked.cpus and not emulator):
        raise InvalidValue("some but not all guest CPUs must be realtime CPUs", field=field)
    return cpus


def _dedicated_mask(asked: _Asked) -> frozenset[int] | None:
    field = "hw:cpu_dedicated_mask"
    mask = asked.of_flavor("cpu_dedicated_mask")
    if mask is None:
        return None
    cpus = _masked(asked, mask, field)
    if not cpus or not cpus < asked.cpus:
        raise InvalidValue(f"{mask!r} must name some but not all of the {asked.flavor.vcpus} guest CPUs", field=field)
    return cpus


def _masked(asked: _Asked, mask: str, field: str) -> frozenset[int]:
    """A mask that begins with ``^`` excludes CPUs from all of the flavor's."""
    prefix = f"0-{asked.flavor.vcpus - 1}," if mask.strip().startswith("^") else ""
    return cpu_set.parse(prefix + mask, field=field)


def _one_of(value: str | None, valid: Collection[str], field: str) -> str | None:
    if value is not None and value not in valid:
        raise InvalidValue(f"{value[:100]!r} is not one of {', '.join(valid)}", field=field)
    return value


# nodes and memory


def _nodes(asked: _Asked) -> int | None:
    of_flavor, of_image = asked.of_flavor("numa_nodes"), asked.of_image("numa_nodes")
    if of_flavor and of_image:
        raise InvalidValue("NUMA nodes are set by flavor and image", field="hw_numa_nodes")
    text = of_flavor or of_image
    if text is None:
        return None
    field = "hw:numa_nodes" if of_flavor else "hw_numa_nodes"
    nodes = _whole(text, field, least=1)
    if text != str(nodes):
        raise InvalidValue(f"{text[:100]!r} is not a number of NUMA nodes", field=field, hint=f"write {nodes}")
    return nodes


def _whole(text: str, field: str, *, least: int = 0) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise InvalidValue(f"{text[:100]!r} is not a whole number from {least}", field=field)
    return number


def _cells(asked: _Asked, nodes: int) -> list[tuple[frozenset[int], int]]:
    """CPUs and memory (MiB) per guest cell: equal shares, or as listed; if listed, both must be given for every
    cell."""
    cpus = _listed(asked, "numa_cpus", lambda text, field: cpu_set.parse(text, field=field))
    memory = _listed(asked, "numa_mem", _whole)
    if cpus is None and memory is None:
        return _equal_cells(asked, nodes)
    if cpus is None or memory is None or not len(cpus) == len(memory) == nodes:
        counts = f"{len(cpus or ())} CPU sets and {len(memory or ())} amounts of memory"
        raise InvalidValue(f"{nodes} NUMA nodes need as many CPU sets and amounts, not {counts}", field="hw:numa_cpus")
    _check_listed(asked, cpus, memory)
    return list(zip(cpus, memory, strict=True))


def _listed(asked: _Asked, name: str, read: Callable[[str, str], Any]) -> list[Any] | None:
    of_flavor = _numbered(asked.flavor.extra_specs, f"hw:{name}", read)
    of_image = _numbered(asked.image, f"hw_{name}", read)
    if of_flavor and of_image:
        raise InvalidValue(f"{name} is set by flavor and image", field=f"hw_{name}")
    return of_flavor or of_image or None


def _numbered(values: Mapping[str, Any], name: str, read: Callable[[str, str], Any]) -> list[Any]:
    """The values of ``name.0``, ``name.1``, ... up to the first gap."""
    found: list[Any] = []
    while len(found) < _MOST_CELLS and (field := f"{name}.{len(found)}") in values:
        found.append(read(str(values[field]), field))
    return found


def _equal_cells(asked: _Asked, nodes: int) -> list[tuple[frozenset[int], int]]:
    vcpus, memory = asked.flavor.vcpus, asked.flavor.memory_mb
    if vcpus % nodes or memory % nodes:
        raise InvalidValue(
            f"{vcpus} CPUs and {memory} MiB cannot be shared equally by {nodes} NUMA nodes", field="hw:numa_nodes"
        )
    share = vcpus // nodes
    return [(frozenset(range(node * share, (node + 1) * share)), memory // nodes) for node in range(nodes)]


def _check_listed(asked: _Asked, cpus: list[frozenset[int]], memory: list[int]) -> None:
    """Each guest CPU is in exactly one cell, and the cells' memory adds up to the flavor's."""
    every = frozenset().union(*cpus)
    if every != asked.cpus or sum(map(len, cpus)) != len(every):
        sets = " and ".join(str(sorted(each)) for each in cpus)
        raise InvalidValue(
            f"each of {asked.flavor.vcpus} CPUs must be in one NUMA node, not {sets}", field="hw:numa_cpus"
        )
    if sum(memory) != asked.flavor.memory_mb:
        raise InvalidValue(
            f"{sum(memory)} MiB on NUMA nodes, the flavor has {asked.flavor.memory_mb}", field="hw:numa_mem"
        )


# pages


def _pagesize(asked: _Asked) -> int | None:
    """The page size in KiB, or its class. The image may choose only if the flavor leaves the choice (any, large)."""
    of_flavor, of_image = asked.of_flavor("mem_page_size"), asked.of_image("mem_page_size")
    if of_flavor is None:
        if of_image is not None:
            raise InvalidValue("an image may set a page size only if the flavor sets one", field="hw_mem_page_size")
        return None
    size = _page_kb(of_flavor, "hw:mem_page_size")
    if of_image is None:
        return size
    if size not in (ANY_PAGES, LARGE_PAGES):
        raise InvalidValue(f"image asks for pages {of_image}, the flavor gives {of_flavor}", field="hw_mem_page_size")
    return _page_kb(of_image, "hw_mem_page_size")


def _page_kb(text: str, field: str) -> int:
    if text in _PAGE_CLASSES:
        return _PAGE_CLASSES[text]
    number = counted(text, _MOST_KB)
    if number is not None:
        return number
    match = _SIZE.fullmatch(text) if len(text) <= _LONGEST_SIZE else None
    if match is None:
        raise InvalidValue(
            f"{text[:100]!r} is not a page size", field=field, hint="small, large, any, KiB, or like 2MB"
        )
    unit = 1 << 10 * " KMGTPEZYRQ".index(match[2] or " ")
    bits = 1 if match[3] == "B" else 8
    return math.ceil(float(match[1]) * unit / bits) // 1024


def _check_locked_memory(asked: _Asked) -> None:
    sides = [
        (asked.of_flavor("locked_memory"), "hw:locked_memory"),
        (asked.of_image("locked_memory"), "hw_locked_memory"),
    ]
    wishes = [(text.strip().lower() in _TRUE, field) for text, field in sides if text is not None]
    if len({wish for wish, _ in wishes}) > 1:
        raise InvalidValue("flavor and image disagree about locked memory", field="hw_locked_memory")
    pages = asked.of_flavor("mem_page_size") or asked.of_image("mem_page_size")
    if wishes and wishes[0][0] and not pages:
        raise InvalidValue("locked memory needs a page size", field=wishes[0][1])
