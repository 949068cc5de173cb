"""Which rule refused a guest that a host has room for: the fewest of its wishes without which the engine finds one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Final, NamedTuple

from ...placement.decide.engine import Engine
from ...placement.decide.explain.counterfactuals import near_misses
from ...placement.decide.scan import Scan
from ...placement.types.errors import HostlerError
from ...placement.types.request import Request, RequestSpec

GROUP: Final = "server group"
_PAGES: Final = "hw:mem_page_size"
_THREADS: Final = ("hw:cpu_thread_policy", "hw:emulator_threads_policy")
_CELLS: Final = ("hw:numa_nodes", "hw:numa_cpus.", "hw:numa_mem.")
_ALIAS: Final = "pci_passthrough:alias"
_AFFINITY: Final = "hw:pci_numa_affinity_policy"
_SPLITS: Final = (1, 2, 4, 8)
"""Numbers of NUMA cells that are tried."""
_NAMES: Final[Mapping[str, str]] = {
    "NUMATopologyFilter": "NUMA cells",
    "PciPassthroughFilter": "PCI devices",
    "GpuModelFilter": "GPU model",
}
"""What stages refuse for, in words."""
_MOST: Final = 2
"""Wishes that are left out together."""
Change = Callable[[Request], Request]


class _Wish(NamedTuple):
    """A wish, and what may be asked in place of it."""

    name: str
    instead: tuple[Change, ...]


def binding_rule(engine: Engine, request: Request, stage: str) -> str:
    """The wish, or the two, without which a host takes a guest whose amounts a host has; else the stage that alone
    keeps hosts out, or the ``stage`` that refused. Claims nothing. O(hosts) for each wish that is tried."""
    asked = replace(request, instance_uuids=())
    if _passes(engine, asked):
        # The site's own rules, or guests that have come in its place, kept it out.
        return stage or "room"
    wishes = list(_wishes(asked))
    for together in range(1, _MOST + 1):
        for chosen in combinations(wishes, together):
            if any(_passes(engine, changed) for changed in _changed(asked, chosen)):
                return " and ".join(wish.name for wish in chosen)
    return _NAMES.get(found := _alone(engine, asked) or stage, found)


def _changed(request: Request, wishes: tuple[_Wish, ...]) -> Iterator[Request]:
    """The request with each of the wishes changed, in all ways."""
    first, *others = wishes
    for change in first.instead:
        changed = change(request)
        if others:
            yield from _changed(changed, tuple(others))
        else:
            yield changed


def _wishes(request: Request) -> Iterator[_Wish]:
    """What a guest asks for beside amounts, the easiest to change first."""
    own = request.spec.flavor.extra_specs
    if any(key in own for key in _THREADS):
        yield _Wish("CPU threads", (lambda asked: _without(asked, _THREADS),))
    if request.spec.prepare is not False and (_PAGES in own or any(key.startswith("hw:") for key in own)):
        told = own.get("hw:numa_nodes", "1")
        yield _Wish("NUMA cells", tuple(_split(count) for count in _SPLITS if str(count) != told))
    elif request.spec.numa_topology is not None:
        yield _Wish("NUMA cells", (lambda asked: replace(asked, spec=replace(asked.spec, numa_topology=None)),))
    if _PAGES in own:
        yield _Wish(_pages(own[_PAGES]), (lambda asked: _without(asked, (_PAGES,)),))
    if request.spec.pci_requests or _ALIAS in own:
        yield _Wish("PCI devices near its NUMA cells", (_preferring,))
        yield _Wish("PCI devices", (_without_pci,))
    if request.server_group is not None:
        yield _Wish(GROUP, (lambda asked: replace(asked, server_group=None),))


def _pages(size: str) -> str:
    return f"{size} pages" if size in ("large", "small", "any") else f"pages of {size}"


def _split(count: int) -> Change:
    def change(asked: Request) -> Request:
        others = _without(asked, _CELLS).spec
        more = {**others.flavor.extra_specs, "hw:numa_nodes": str(count)}
        return replace(asked, spec=_with(replace(others, numa_topology=None), more))

    return change


def _without(asked: Request, keys: tuple[str, ...]) -> Request:
    left = {key: value for key, value in asked.spec.flavor.extra_specs.items() if not key.startswith(keys)}
    return replace(asked, spec=_with(asked.spec, left))


def _preferring(asked: Request) -> Request:
    requests = tuple(replace(each, numa_policy="preferred") for each in asked.spec.pci_requests)
    more = {**asked.spec.flavor.extra_specs, _AFFINITY: "preferred"}
    return replace(asked, spec=_with(replace(asked.spec, pci_requests=requests), more))


def _without_pci(asked: Request) -> Request:
    others = _without(asked, (_ALIAS, _AFFINITY)).spec
    return replace(asked, spec=replace(others, pci_requests=()))


def _with(spec: RequestSpec, extra_specs: dict[str, str]) -> RequestSpec:
    return replace(spec, flavor=replace(spec.flavor, extra_specs=extra_specs))


def _passes(engine: Engine, request: Request) -> bool:
    try:
        return bool(len(engine.rank(request).rows))
    except HostlerError:
        return False  # a request that is not valid so, as with three vCPUs on two cells


def _alone(engine: Engine, request: Request) -> str:
    """The stage that alone keeps most hosts out; empty if none stands alone."""
    try:
        with engine._context.looking(request) as given:
            changes = near_misses(Scan(engine._context, given))
    except HostlerError:
        return ""
    return next((change.stage for change in changes if change.code == "stage" and change.stage), "")
