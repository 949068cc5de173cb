"""Traits and resource classes by name: which are known, and how custom ones come and go.

A custom name is known if it was created, or if some provider has it: hosts that were loaded bring theirs along.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

import numpy as np
import os_resource_classes

from ..fleet.custom_names import FIRST_CUSTOM, Registered, next_id
from ..fleet.fleet import Fleet
from ..types.validation import STANDARD_CLASSES, cut, is_custom, shown, standard_traits
from . import commands as c
from .answers import Named
from .errors import BadRequest, Conflict, NotFound

STANDARD_ORDER: Final = tuple(os_resource_classes.STANDARDS)


# traits


def create_trait(fleet: Fleet, command: c.CreateTrait) -> bool:
    """See `commands.CreateTrait`."""
    if knows_trait(fleet, command.name):
        return False
    _check_custom(command.name, "trait")
    _register(fleet, fleet._registry.traits, command.name, Registered(next_id(fleet._registry.traits), command.now))
    return True


def delete_trait(fleet: Fleet, command: c.DeleteTrait) -> None:
    """See `commands.DeleteTrait`."""
    name = command.name
    if name in standard_traits():
        raise BadRequest(f"Cannot delete standard trait {name}.", field="trait")
    if not knows_trait(fleet, name):
        raise NotFound(f"No such trait {cut(name)}.", field="trait")
    if name in provided_traits(fleet):
        raise Conflict(f"The trait {name} is in use by a resource provider.", field="trait")
    _unregister(fleet, fleet._registry.traits, name)


def knows_trait(fleet: Fleet, name: str) -> bool:
    """True for a standard trait, one that was created, and one that a provider has. O(1) for the first two."""
    return name in standard_traits() or name in fleet._registry.traits or name in provided_traits(fleet)


def check_known_traits(fleet: Fleet, names: Iterable[str]) -> None:
    """BadRequest that names those that are not known. O(traits)."""
    unknown = sorted({name for name in names if not knows_trait(fleet, name)})
    if unknown:
        raise BadRequest(f"No such trait(s): {cut(', '.join(unknown))}.", field="traits")


def provided_traits(fleet: Fleet) -> frozenset[str]:
    """Traits that some provider has. O(rows + host classes)."""
    used = np.unique(fleet._store.row["class_of"][: fleet.rows]).tolist()
    return frozenset().union(*(fleet._classes[index].traits for index in used))


def list_traits(fleet: Fleet, names: Iterable[str] | None, prefix: str | None, associated: bool | None) -> list[Named]:
    """See `PlacementModel.traits`."""
    provided = provided_traits(fleet)
    custom = fleet._registry.traits
    order = in_order(fleet, standard_traits() | custom.keys() | provided)
    if names is not None:
        wanted = frozenset(names)
        order = [name for name in order if name in wanted]
    if prefix is not None:
        order = [name for name in order if name.startswith(prefix)]
    if associated is not None:
        order = [name for name in order if (name in provided) == associated]
    return [_named(custom, name) for name in order]


def in_order(fleet: Fleet, traits: Iterable[str]) -> list[str]:
    """Traits as they are listed: the standard ones sorted, then those that were created, in the order they came, then
    others sorted. O(traits log traits)."""
    standard, custom = standard_traits(), fleet._registry.traits

    def place(name: str) -> tuple[int, int, str]:
        if name in standard:
            return (0, 0, name)
        return (1, custom[name].id, name) if name in custom else (2, 0, name)

    return sorted(traits, key=place)


def show_trait(fleet: Fleet, name: str) -> Named:
    """See `PlacementModel.trait`."""
    if not knows_trait(fleet, name):
        raise NotFound(f"No such trait(s): {cut(name)}.", field="trait")
    return _named(fleet._registry.traits, name)


# resource classes


def create_resource_class(fleet: Fleet, command: c.CreateResourceClass) -> bool:
    """See `commands.CreateResourceClass`."""
    name = command.name
    if knows_resource_class(fleet, name) and not (command.may_exist and name in STANDARD_CLASSES):
        if command.may_exist:
            return False
        raise Conflict(f"Conflicting resource class already exists: {name}", field="name")
    _check_custom(name, "resource class")
    table = fleet._registry.resource_classes
    _register(fleet, table, name, Registered(next_id(table, FIRST_CUSTOM), command.now))
    return True


def rename_resource_class(fleet: Fleet, command: c.RenameResourceClass) -> None:
    """See `commands.RenameResourceClass`."""
    old, new = command.name, command.new_name
    _check_changeable(fleet, old, "update")
    if old == new:
        return
    if knows_resource_class(fleet, new):
        raise Conflict(f"Resource class already exists: {new}", field="name")
    _check_custom(new, "resource class")
    table = fleet._registry.resource_classes
    entry = table.get(old) or Registered(next_id(table, FIRST_CUSTOM), command.now)
    _unregister(fleet, table, old)
    _register(fleet, table, new, Registered(entry.id, command.now))
    fleet._inventories.rename(old, new)


def delete_resource_class(fleet: Fleet, command: c.DeleteResourceClass) -> None:
    """See `commands.DeleteResourceClass`."""
    _check_changeable(fleet, command.name, "delete")
    if _is_provided(fleet, command.name):
        raise Conflict(f"Cannot delete resource class {command.name}. Class is in use in inventory.", field="name")
    _unregister(fleet, fleet._registry.resource_classes, command.name)


def knows_resource_class(fleet: Fleet, name: str) -> bool:
    """True for a standard class, one that was created, and one that a provider has. O(1), O(rows) for unknown ones."""
    return name in STANDARD_CLASSES or name in fleet._registry.resource_classes or _is_provided(fleet, name)


def check_known_classes(fleet: Fleet, names: Iterable[str]) -> None:
    """BadRequest for the first class that is not known. O(classes)."""
    for name in names:
        if not knows_resource_class(fleet, name):
            raise BadRequest(f"No such resource class {cut(name)}.", field="resources", hint="create it first")


def list_resource_classes(fleet: Fleet) -> list[Named]:
    """See `PlacementModel.resource_classes`."""
    custom = fleet._registry.resource_classes
    order = [*STANDARD_ORDER, *sorted(custom, key=lambda name: custom[name].id)]
    known = frozenset(order)
    # By name: in which order providers brought them is not kept.
    order += sorted(name for name in fleet.resource_classes if name not in known and _is_provided(fleet, name))
    return [_named(custom, name) for name in order]


def show_resource_class(fleet: Fleet, name: str) -> Named:
    """See `PlacementModel.resource_class`."""
    if not knows_resource_class(fleet, name):
        raise NotFound(f"No such resource class {cut(name)}.", field="name")
    return _named(fleet._registry.resource_classes, name)


def class_rank(fleet: Fleet, name: str) -> tuple[int, int, str]:
    """Sorts classes as their ids do in Placement: standard ones, created ones, others. O(1)."""
    if name in STANDARD_CLASSES:
        return (0, STANDARD_ORDER.index(name), name)
    entry = fleet._registry.resource_classes.get(name)
    return (2, 0, name) if entry is None else (1, entry.id, name)


def _is_provided(fleet: Fleet, name: str) -> bool:
    index = fleet._inventories.index_of(name)
    return index is not None and bool(fleet._store.inventory["total"][index, : fleet.rows].any())


def _check_changeable(fleet: Fleet, name: str, verb: str) -> None:
    if name in STANDARD_CLASSES:
        raise BadRequest(f"Cannot {verb} standard resource class {name}.", field="name")
    if not knows_resource_class(fleet, name):
        raise NotFound(f"No such resource class {cut(name)}.", field="name")


def check_resources(fleet: Fleet, resources: Iterable[tuple[str, int]]) -> None:
    """BadRequest for a class that is not known, or an amount below 1. O(classes)."""
    for name, amount in resources:
        check_known_classes(fleet, [name])
        if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
            raise BadRequest(f"Requested resource {name} requires amount >= 1.", field="resources")


# both


def _check_custom(name: str, kind: str) -> None:
    if not is_custom(name):
        what = f"The {kind} name {shown(name)} is invalid"
        raise BadRequest(what, field="name", hint="CUSTOM_ and then A to Z, 0 to 9 and _, at most 255 characters")


def _named(table: dict[str, Registered], name: str) -> Named:
    entry = table.get(name)
    return Named(name, None if entry is None else entry.updated)


def _register(fleet: Fleet, table: dict[str, Registered], name: str, entry: Registered) -> None:
    fleet._change_log.make(partial(table.__setitem__, name, entry), partial(table.__delitem__, name))


def _unregister(fleet: Fleet, table: dict[str, Registered], name: str) -> None:
    entry = table.get(name)
    if entry is not None:
        fleet._change_log.make(partial(table.__delitem__, name), partial(table.__setitem__, name, entry))
