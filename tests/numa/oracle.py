"""NUMATopologyFilter of Nova 33, stated a second time: whether a guest's NUMA cells fit a host, and on which of its
cells.

Slow and obvious: every order of the host's cells is tried in turn, and each rule is a condition, not a procedure. Of
the product it uses values only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from hostler.placement.types.host import HostState, NumaCell
from hostler.placement.types.networks import NetworkMetadata
from hostler.placement.types.options import Options
from hostler.placement.types.request import InstanceNumaCell, InstanceNumaTopology, PciRequest, Request
from tests.pci.oracle import devices_left

SMALL, LARGE, ANY = -1, -2, -3


def passes(host: HostState, request: Request, options: Options) -> bool:
    """The verdict of the filter on a host."""
    wanted, cells = request.spec.numa_topology, cells_of(host)
    asks = wanted is not None and bool(wanted.cells)
    if not cells:
        return not asks
    if must_share_cores(request) and all(len(core) < 2 for cell in cells for core in cell.siblings):
        return False
    return not asks or chosen(host, request, options) is not None


def must_share_cores(request: Request) -> bool:
    """Whether dedicated CPUs with thread policy require are asked for, each by the flavor or the image."""
    flavor, image = request.spec.flavor.extra_specs, request.spec.image
    properties = image.properties if image is not None else {}
    cpus = flavor.get("hw:cpu_policy"), properties.get("hw_cpu_policy")
    threads = flavor.get("hw:cpu_thread_policy"), properties.get("hw_cpu_thread_policy")
    return "dedicated" in cpus and "require" in threads


@dataclass
class Tried:
    """A guest cell, and what Nova has written over it while it tried: the id of the host cell that it fitted last, and
    the page size found there."""

    cell: InstanceNumaCell
    emulator: int
    id: int
    pagesize: int | None


def chosen(host: HostState, request: Request, options: Options) -> list[int] | None:
    """Ids of the host cells that the guest's cells go to, or None: the first order of the preferred host cells in which
    each guest cell fits its host cell, the PCI devices are near, and so are the networks."""
    wanted = request.spec.numa_topology
    assert wanted is not None
    tried = [
        Tried(cell, int(wanted.emulator_threads_policy == "isolate" and index == 0), cell.id, cell.pagesize)
        for index, cell in enumerate(wanted.cells)
    ]
    known: dict[tuple[int, int], bool] = {}
    exact = options.numa.fit == "exact"
    for order in permutations(preferred(host, wanted, request.spec.pci_requests, options), len(tried)):
        pairs = zip(order, tried, strict=True)
        if exact:
            fitting = all(fits(cell, each.cell, each.emulator, each.pagesize, host) for cell, each in pairs)
        else:
            fitting = all(fits_as_nova_tries(cell, each, known, host) for cell, each in pairs)
        ids = [cell.id for cell in order]
        if fitting and devices_near(host, request.spec.pci_requests, ids) and networks_near(host, request, ids):
            return ids
    return None


def cells_of(host: HostState) -> tuple[NumaCell, ...]:
    return host.numa_topology.cells if host.numa_topology is not None else ()


def fits_as_nova_tries(cell: NumaCell, tried: Tried, known: dict[tuple[int, int], bool], host: HostState) -> bool:
    """A pair of cells, unless an answer is known for a pair of these ids. The guest cell keeps the page size found, and
    where it fits, the id of the host cell."""
    pair = cell.id, tried.id
    if pair not in known:
        if tried.pagesize:
            tried.pagesize = page_found(cell, tried.cell, tried.pagesize) or tried.pagesize
        known[pair] = fits(cell, tried.cell, tried.emulator, tried.pagesize, host)
    if known[pair]:
        tried.id = cell.id
    return known[pair]


def preferred(
    host: HostState, wanted: InstanceNumaTopology, requests: Sequence[PciRequest], options: Options
) -> list[NumaCell]:
    """The host's cells, best first: by PCI devices, then CPUs, then memory, then as the host reports them. A guest that
    needs all of them gets them as reported."""
    cells = list(cells_of(host))
    if len(cells) == len(wanted.cells):
        return cells
    spread = -1 if not options.compute.packing_host_numa_cells_allocation_strategy else 1
    pinned = wanted.cells[0].cpu_policy in ("dedicated", "mixed")

    def key(cell: NumaCell) -> tuple[int, int, int]:
        devices = sum(pool.count for pool in host.pci_pools if pool.numa_node == cell.id)
        cpus = spread * len(free(cell)) if pinned else -spread * cell.cpu_usage
        return -devices if requests else devices, cpus, spread * (cell.memory - cell.memory_usage)

    return sorted(cells, key=key)


def fits(cell: NumaCell, asked: InstanceNumaCell, emulator: int, pagesize: int | None, host: HostState) -> bool:
    """Whether a guest cell fits a host cell: memory, CPUs of its own, CPUs shared with others, allocation ratios."""
    dedicates = asked.cpu_policy in ("dedicated", "mixed")
    shares = asked.cpu_policy != "dedicated"
    if pagesize:
        memory = page_found(cell, asked, pagesize) is not None
    elif cell.mempages:
        smallest = min(pages.size_kb for pages in cell.mempages)
        memory = in_pages(cell, asked, smallest, free_only=dedicates)
    else:
        memory = asked.memory <= cell.memory - (cell.memory_usage if dedicates else 0)
    return (
        memory
        and (not dedicates or pinnable(cell, asked, emulator))
        and (not shares or len(asked.cpuset) <= len(cell.cpuset))
        and (not shares or cell.cpu_usage + len(asked.cpuset) <= len(cell.cpuset) * host.cpu_allocation_ratio)
        and (not shares or cell.memory_usage + asked.memory <= cell.memory * host.ram_allocation_ratio)
    )


def page_found(cell: NumaCell, asked: InstanceNumaCell, pagesize: int) -> int | None:
    """The largest page size of the class asked for, or the size itself, of which the cell has enough free pages."""
    sizes = sorted(pages.size_kb for pages in cell.mempages)
    allowed = {SMALL: sizes[:1], LARGE: sizes[1:], ANY: sizes}.get(pagesize, [pagesize])
    return max((size for size in allowed if in_pages(cell, asked, size, free_only=True)), default=None)


def in_pages(cell: NumaCell, asked: InstanceNumaCell, size_kb: int, *, free_only: bool) -> bool:
    """Whether the memory is a whole number of such pages, and the cell has as many (free)."""
    count, rest = divmod(asked.memory * 1024, size_kb)
    have = [
        each.total - (each.used + each.reserved if free_only else 0)
        for each in cell.mempages
        if each.size_kb == size_kb
    ]
    return rest == 0 and any(count <= each for each in have)


def free(cell: NumaCell) -> frozenset[int]:
    return cell.pcpuset - cell.pinned_cpus


def pinnable(cell: NumaCell, asked: InstanceNumaCell, emulator: int) -> bool:
    """Whether there are cores for the CPUs to pin under the thread policy, and for the emulator threads."""
    count, policy = len(asked.pcpuset), asked.cpu_thread_policy
    threads = max((len(core) for core in cell.siblings), default=0)
    left = [len(core & free(cell)) for core in cell.siblings]
    if not threads or count + emulator > len(free(cell)):
        return False
    if count == 0:  # a cell of a mixed guest
        return not emulator and policy != "isolate" and (policy != "require" or max(left) > 1)
    if policy == "isolate":  # a whole core for each CPU; hosts with SMT only where shared CPUs are the dedicated ones
        whole = left.count(threads)
        smt = threads > 1 and cell.pcpuset != cell.cpuset
        return not smt and count <= whole and sum(left) - count * threads >= emulator
    if policy == "require":  # as many threads, more than one, of each core
        even = any(count <= width * sum(each >= width for each in left) for width in range(2, threads + 1))
        return even and count + emulator <= sum(left)
    return count + emulator <= sum(left)


def devices_near(host: HostState, requests: Sequence[PciRequest], ids: list[int]) -> bool:
    assert host.numa_topology is not None
    return not requests or devices_left(list(host.pci_pools), list(requests), ids, host.numa_topology) is not None


def networks_near(host: HostState, request: Request, ids: list[int]) -> bool:
    """Each network that some of the host's cells are near to has one of them among the chosen."""
    wanted = request.spec.network_metadata
    near = [set(networks(cell.network_metadata)) for cell in cells_of(host)]
    chosen = [set(networks(cell.network_metadata)) for cell in cells_of(host) if cell.id in ids]
    return all(any(name in each for each in chosen) for name in networks(wanted) if any(name in each for each in near))


def networks(metadata: NetworkMetadata | None) -> Iterator[str | bool]:
    """The physical networks, and True for those in tunnels."""
    if metadata is not None:
        yield from metadata.physnets
        if metadata.tunneled:
            yield True
