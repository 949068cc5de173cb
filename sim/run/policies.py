"""Policies by the names that capacity planners give them, from a policy file, or a weigher of one's own."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from ...placement.gpu.providers import gpu_wish
from ...placement.policy.policy import Policy
from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.request import RequestSpec
from ...placement.weighers import BUILTIN_WEIGHERS
from ...placement.weighers.base import Weigher

FILTERS: Final = ("ComputeFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter", "GpuModelFilter")
WEIGHERS: Final = "hostler.weighers"
"""Entry points of weighers."""
_SCHEDULER: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "nova": ("Nova's weighers with its default multipliers: spreads by memory, CPUs and disk", {}),
    "cinder": (
        "Cinder's CapacityWeigher, each host a pool of its disk: most free disk first",
        {"weight_classes": ["DiskWeigher"]},
    ),
    "first-fit": ("the first host with room, in the fleet's order", {"weight_classes": []}),
    "best-fit": ("fewest idle vCPUs first", {"weight_classes": ["CPUWeigher"], "cpu_weight_multiplier": -1.0}),
    "worst-fit": ("most idle vCPUs first", {"weight_classes": ["CPUWeigher"]}),
    "stack-memory": (
        "least idle memory first",
        {"weight_classes": ["RAMWeigher"], "ram_weight_multiplier": -1.0},
    ),
    "dot-product": ("idle resources most alike to the guest's", {"weight_classes": ["DotProductWeigher"]}),
    "weighted-dot-product": (
        "the same, scarce resources counting more",
        {"weight_classes": ["WeightedDotProductWeigher"]},
    ),
    "l2-norm": ("smallest rest after the guest", {"weight_classes": ["L2NormDiffWeigher"]}),
    "cosine": ("smallest angle between guest and idle resources", {"weight_classes": ["CosineWeigher"]}),
    "delta-perp": ("least imbalance added", {"weight_classes": ["DeltaPerpWeigher"]}),
    "fgd": (
        "least GPU fragmentation added (fragmentation gradient descent), measured by the trace's guests",
        {"weight_classes": ["GpuFragmentationWeigher"]},
    ),
    "gpu-packing": ("GPUs in use before idle ones, before idle hosts", {"weight_classes": ["GpuPackingWeigher"]}),
    "gpu-clustering": ("hosts with guests of the same GPU share", {"weight_classes": ["GpuClusteringWeigher"]}),
    "random": ("any host with room", {"weight_classes": [], "shuffle_best_same_weighed_hosts": True}),
}
NAMES: Final = tuple(_SCHEDULER)
ABOUT: Final[Mapping[str, str]] = {name: about for name, (about, _) in _SCHEDULER.items()}
"""Name -> what the policy prefers."""
ON_GPUS: Final = frozenset({"fgd", "gpu-packing", "gpu-clustering"})
"""Policies that make a difference where guests have GPUs only."""
_BEFORE: Final = 1000.0
_MULTIPLIERS: Final = {
    "ServerGroupSoftAffinityWeigher": "soft_affinity_weight_multiplier",
    "ServerGroupSoftAntiAffinityWeigher": "soft_anti_affinity_weight_multiplier",
}
_COVERED: Final = 0.95
"""Part of the guests that the typical requests must make up."""


def asked_rules(specs: Sequence[RequestSpec], policies: Sequence[str]) -> tuple[list[str], list[str]]:
    """Filters and weighers that a policy needs beside its own for what guests ask for: NUMA cells, and soft policies of
    server groups."""
    numa = any(
        key.startswith(("hw:numa", "hw:cpu_policy", "hw:mem_page")) for spec in specs for key in spec.flavor.extra_specs
    )
    soft = {
        "soft-affinity": "ServerGroupSoftAffinityWeigher",
        "soft-anti-affinity": "ServerGroupSoftAntiAffinityWeigher",
    }
    return ["NUMATopologyFilter"] if numa else [], [soft[each] for each in sorted(set(policies) & soft.keys())]


def policy_of(
    name: str, typical: Mapping[str, float] | None = None, *, filters: Sequence[str] = (), weighers: Sequence[str] = ()
) -> Policy:
    """The policy called ``name``; that of a file if the name ends in .toml, or in .conf as a nova.conf; one of a
    weigher alone for the name of one of Nova's or an installed one (entry point ``hostler.weighers``) or for
    ``module:Class``; or the Policy that ``module:name`` is.

    ``filters``, ``weighers``: those that policies of a name here have beside their own, weighers with a weight that
    decides before these.

    ``typical``: the mix of requests by which fragmentation is measured. UnknownName or InvalidValue for what is none.
    """
    if name.endswith(".toml"):
        return Policy.from_toml(Path(name))
    if name.endswith(".conf"):
        return Policy.from_nova_conf(name)
    if ":" in name:
        return _imported(name, typical or {})
    if name in _SCHEDULER:
        options = dict(_SCHEDULER[name][1])
        if filters:
            options["enabled_filters"] = [*FILTERS, *filters]
        if weighers and "weight_classes" in options:
            options["weight_classes"] = [*options["weight_classes"], *weighers]
            options |= {_MULTIPLIERS[each]: _BEFORE for each in weighers}
        return _made(name, options, typical or {})
    own = {*BUILTIN_WEIGHERS, *(entry_point.name for entry_point in entry_points(group=WEIGHERS))}
    if name not in own:
        raise UnknownName.among("policy", name, {*_SCHEDULER, *own}, field="policy")
    return _made(name, {"weight_classes": [name]}, typical or {})


def _made(name: str, options: Mapping[str, Any], typical: Mapping[str, float], *weighers: type[Weigher]) -> Policy:
    available = ["nova.scheduler.filters.all_filters", "GpuModelFilter"]
    scheduler = {"available_filters": available, "enabled_filters": list(FILTERS), **options}
    values = {"hostler": {"name": name}, "filter_scheduler": scheduler, "gpu": {"typical": dict(typical)}}
    return Policy.from_mapping(values, weighers=weighers)


def _imported(name: str, typical: Mapping[str, float]) -> Policy:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a third-party module may fail in any way
        hint = "PYTHONPATH names folders of modules" if isinstance(error, ModuleNotFoundError) else None
        raise InvalidValue(f"policy {name} cannot be imported: {error}", field="policy", hint=hint) from error
    if isinstance(found, Policy):
        return found
    if isinstance(found, type) and issubclass(found, Weigher):
        known = BUILTIN_WEIGHERS.get(found.name) is found
        if known or any(each.value == name for each in entry_points(group=WEIGHERS)):
            return _made(name, {"weight_classes": [found.name]}, typical)
        return _made(name, {"weight_classes": []}, typical, found)
    raise InvalidValue(f"policy {name} is neither a Policy nor a class of weighers", field="policy")


def typical_guests(specs: Mapping[RequestSpec, int]) -> dict[str, float]:
    """The most frequent requests among so many guests of each spec that make up most of them, as ``[gpu] typical``
    names them; nothing where no guest has GPUs."""
    counts: Counter[str] = Counter()
    for spec, guests in specs.items():
        wish = gpu_wish(spec.flavor.extra_specs)
        models = "|".join(sorted(wish.models))
        counts[f"{spec.flavor.vcpus * 1000}:{wish.milli}:{wish.count}:{models}".rstrip(":")] += guests
    found: dict[str, int] = {}
    for shape, guests in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if sum(found.values()) < _COVERED * counts.total():
            found[shape] = guests
    kept = sum(found.values())
    return {shape: guests / kept for shape, guests in found.items()}
