"""Cinder's five weighers, by their class names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .base import PoolWeigher
from .capacity import AllocatedCapacityWeigher, CapacityWeigher
from .chance import ChanceWeigher
from .goodness import GoodnessWeigher
from .volume_number import VolumeNumberWeigher

BUILTIN_WEIGHERS: Final[Mapping[str, type[PoolWeigher]]] = {
    rule.name: rule
    for rule in (AllocatedCapacityWeigher, CapacityWeigher, ChanceWeigher, GoodnessWeigher, VolumeNumberWeigher)
}

__all__ = ["BUILTIN_WEIGHERS", "PoolWeigher"]
