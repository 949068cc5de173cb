"""Names that only Placement's API creates: custom traits and resource classes, and consumers without allocations."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from ..types.validation import STANDARD_CLASSES, is_custom, standard_traits

FIRST_CUSTOM: Final = 10_000
"""The least id of a custom resource class (Placement's)."""


class Registered(NamedTuple):
    """A trait or resource class that was created: ``id`` orders them, ``updated`` is in seconds since the epoch."""

    id: int
    updated: float


class Vacant(NamedTuple):
    """A consumer without allocations but with an owner: its next allocation write must give ``generation``."""

    project_id: str
    user_id: str
    generation: int
    consumer_type: str | None
    updated: float


class Registry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Plain tables. The caller records changes in the fleet's history."""

    traits: dict[str, Registered] = {}
    resource_classes: dict[str, Registered] = {}
    vacant: dict[str, Vacant] = {}
    """By consumer uuid, dashed and in lower case."""

    def demand_sound(self) -> None:
        """ValueError for inconsistent tables. O(names)."""
        for table, standard, least in (
            (self.traits, standard_traits(), 0),
            (self.resource_classes, STANDARD_CLASSES, FIRST_CUSTOM),
        ):
            ids = [entry.id for entry in table.values()]
            if len(set(ids)) < len(ids) or min(ids, default=least) < least:
                raise ValueError("custom names have duplicate ids, or ids that are too low")
            if any(name in standard or not is_custom(name) for name in table):
                raise ValueError("a custom name is malformed")


def next_id(table: dict[str, Registered], least: int = 0) -> int:
    """The id of the next name of a table."""
    return max((entry.id for entry in table.values()), default=least - 1) + 1
