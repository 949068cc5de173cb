"""Policies by the names that capacity planners give them, or from a policy file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..placement.errors import UnknownName
from ..placement.policy import Policy

FILTERS: Final = ("ComputeFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter", "GpuModelFilter")
_SCHEDULER: Final[Mapping[str, Mapping[str, Any]]] = {
    "nova": {},
    "first-fit": {"weight_classes": []},
    "best-fit": {"weight_classes": ["CPUWeigher"], "cpu_weight_multiplier": -1.0},
    "worst-fit": {"weight_classes": ["CPUWeigher"]},
    "stack-memory": {"weight_classes": ["RAMWeigher"], "ram_weight_multiplier": -1.0},
    "dot-product": {"weight_classes": ["DotProductWeigher"]},
    "weighted-dot-product": {"weight_classes": ["WeightedDotProductWeigher"]},
    "l2-norm": {"weight_classes": ["L2NormDiffWeigher"]},
    "cosine": {"weight_classes": ["CosineWeigher"]},
    "delta-perp": {"weight_classes": ["DeltaPerpWeigher"]},
    "gpu-packing": {"weight_classes": ["GpuPackingWeigher"]},
    "gpu-clustering": {"weight_classes": ["GpuClusteringWeigher"]},
    "random": {"weight_classes": [], "shuffle_best_same_weighed_hosts": True},
}
NAMES: Final = tuple(_SCHEDULER)


def policy_of(name: str) -> Policy:
    """The policy called ``name``, or that of a TOML file if the name ends in .toml. UnknownName for a name that is
    none."""
    if name.endswith(".toml"):
        return Policy.from_toml(Path(name))
    if name not in _SCHEDULER:
        raise UnknownName.among("policy", name, _SCHEDULER, field="policy")
    available = ["nova.scheduler.filters.all_filters", "GpuModelFilter"]
    scheduler = {"available_filters": available, "enabled_filters": list(FILTERS), **_SCHEDULER[name]}
    return Policy.from_mapping({"hostler": {"name": name}, "filter_scheduler": scheduler})
