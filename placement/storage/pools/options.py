"""Cinder's scheduler options as a value: the table ``[storage]`` of a policy file, with Cinder 29's names and
defaults."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec

from ...types.options import Count, OptionGroup, Positive, Words

STORAGE: Final = "storage"
ORDERED: Final = "OrderedHostWeightHandler"


class StorageOptions(OptionGroup, frozen=True):
    """``[storage]``. ``scheduler_driver_init_wait_time`` in seconds. ``compat`` says how expressions are read:
    ``cinder`` with its traps, ``strict`` without them (docs/cinder-differences.md)."""

    group: ClassVar[str] = STORAGE

    scheduler_default_filters: Words = ("AvailabilityZoneFilter", "CapacityFilter", "CapabilitiesFilter")
    scheduler_default_weighers: Words = ("CapacityWeigher",)
    scheduler_weight_handler: str = ORDERED
    scheduler_max_attempts: Positive = 3
    scheduler_driver_init_wait_time: Count = 60
    capacity_weight_multiplier: float = 1.0
    allocated_capacity_weight_multiplier: float = -1.0
    volume_number_multiplier: float = -1.0
    max_over_subscription_ratio: str = "20.0"
    compat: str = "cinder"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
