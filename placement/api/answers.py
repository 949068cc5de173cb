"""What the Placement API's commands and queries answer: plain values.

``updated`` is the time of the newest object shown, in seconds since the epoch; None where that is not known (loaded
with the fleet, standard) or there is none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..fleet.inventories import Inventory


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A resource provider; ``root`` is its own uuid if ``parent`` is None."""

    uuid: str
    name: str
    generation: int
    parent: str | None
    root: str
    updated: float | None


class Inventories(msgspec.Struct, frozen=True, kw_only=True):
    """Inventories of a provider by resource class, in the classes' order."""

    generation: int
    inventories: dict[str, Inventory]
    updated: float | None


class ProviderUsages(msgspec.Struct, frozen=True, kw_only=True):
    """What is used of a provider, one entry for each inventory."""

    generation: int
    usages: dict[str, int]


class ProviderAggregates(msgspec.Struct, frozen=True, kw_only=True):
    """Uuids of the aggregates that a provider is in, sorted."""

    generation: int
    aggregates: list[str]


class ProviderTraits(msgspec.Struct, frozen=True, kw_only=True):
    """Traits of a provider, in the order in which all traits are listed."""

    generation: int
    traits: list[str]
    updated: float | None


class ProviderAllocations(msgspec.Struct, frozen=True, kw_only=True):
    """What consumers hold of a provider: {consumer uuid: (resources, the consumer's generation)}."""

    generation: int
    allocations: dict[str, tuple[dict[str, int], int]]
    updated: float | None


class Named(msgspec.Struct, frozen=True):
    """A trait or a resource class."""

    name: str
    updated: float | None


class ConsumerView(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer holds: {provider uuid: (resources, the provider's generation)}. ``consumer_type`` None: untyped.

    A consumer that was named once and holds nothing has no allocations.
    """

    allocations: dict[str, tuple[dict[str, int], int]]
    project_id: str
    user_id: str
    generation: int
    consumer_type: str | None
    updated: float | None


class TypeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What the consumers of one type hold together, and how many they are."""

    consumer_count: int
    usages: dict[str, int]


class Candidates(msgspec.Struct, frozen=True, kw_only=True):
    """Allocation candidates in the API's newest form (1.39), in the order that candidate_search.py defines.

    ``allocation_requests``: ``{"allocations": {provider: {"resources": {class: amount}}}, "mappings": {suffix:
    [provider, ...]}}``. ``provider_summaries``: ``{provider: {"resources": {class: {"capacity": n, "used": n}},
    "traits": [...], "parent_provider_uuid": ..., "root_provider_uuid": ...}}``. Parts may be shared between entries:
    read them, do not change them.
    """

    allocation_requests: list[dict[str, Any]]
    provider_summaries: dict[str, dict[str, Any]]
