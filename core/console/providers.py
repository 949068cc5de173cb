"""``hostler provider``, ``aggregate`` and ``allocation``: what Placement's clients see, for operators."""

from __future__ import annotations

import uuid as uuids
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ...placement.fleet.inventories import Inventory
from ...placement.types.errors import DuplicateName, InvalidValue, UnknownName
from ...placement.types.host import Aggregate
from ..machine.provider_queries import ZONE, AggregateLine
from .remote import LOCAL, Remote, pair

provider = cyclopts.App(name="provider", help="Resource providers: list, show, add, change and remove them.")
aggregate = cyclopts.App(name="aggregate", help="Aggregates: names, metadata, availability zones and members.")
allocation = cyclopts.App(name="allocation", help="Consumers and what they hold.")

Limit = Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))]


@provider.command(name="list")
def list_providers(
    prefix: str = "",
    *,
    under: Annotated[str | None, Parameter(help="only those of the tree of this provider")] = None,
    limit: Limit = 100,
    after: Annotated[str | None, Parameter(help="continue after this name")] = None,
    remote: Remote = LOCAL,
) -> int:
    """Resource providers, in load order, whose names begin with PREFIX."""

    def row(line: Any) -> list[Any]:
        used = [f"{name} {line.used[name]}/{most}" for name, most in line.limit.items()]
        return [line.name, line.uuid, line.parent, line.host, used]

    found = remote.ask("providers", {"prefix": prefix, "under": under, "limit": limit, "after": after})
    return remote.listed(found, ["name", "uuid", "parent", "host", "used / limit"], row, page=limit, by="name")


@provider.command(name="show")
def show_provider(name: str, *, remote: Remote = LOCAL) -> int:
    """One resource provider in full."""
    found = remote.ask("provider", {"name": name})
    if remote.as_json:
        remote.show(found)
        return 0
    rows = [
        ["uuid", found.line.uuid],
        ["parent", found.line.parent],
        ["root", found.root],
        ["host", found.line.host],
        ["generation", found.line.generation],
        ["traits", found.traits],
        ["aggregates", [f"{name or uuid}" for uuid, name in found.aggregates.items()]],
        ["consumers", found.consumers],
    ]
    remote.lines(["", name], rows)
    fields = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")
    stock = [
        [resource, *(getattr(each, field) for field in fields), found.line.used.get(resource, 0)]
        for resource, each in found.inventories.items()
    ]
    remote.lines(["resource class", *(field.replace("_", " ") for field in fields), "used"], stock)
    return 0


@provider.command(name="add")
def add_provider(
    name: str,
    *,
    uuid: str | None = None,
    parent: Annotated[str | None, Parameter(help="name of the provider above it")] = None,
    trait: Annotated[tuple[str, ...], Parameter(help="repeatable", negative="")] = (),
    remote: Remote = LOCAL,
) -> int:
    """Add a resource provider that is not a host."""
    return remote.do(
        "add_provider", {"name": name, "uuid": uuid, "parent": parent, "traits": trait}, f"provider {name} added"
    )


@provider.command(name="set")
def set_provider(
    name: str,
    *,
    trait: Annotated[tuple[str, ...] | None, Parameter(help="replaces all traits; repeatable", negative="")] = None,
    parent: Annotated[str | None, Parameter(help="name of the provider above it")] = None,
    root: Annotated[bool, Parameter(help="it has none above it", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Replace a provider's traits, or put it below another."""
    if trait is None and parent is None and not root:
        raise InvalidValue("nothing is to be changed", field="trait", hint="give --trait, --parent or --root")
    if trait is not None:
        remote.ask("set_traits", {"name": name, "traits": trait})
    if parent is not None or root:
        remote.ask("set_parent", {"name": name, "parent": parent})
    print(f"provider {name} changed")
    return 0


@provider.command(name="inventory")
def set_inventory(
    name: str,
    resource_class: str,
    total: int,
    *,
    reserved: int | None = None,
    min_unit: int | None = None,
    max_unit: int | None = None,
    step_size: int | None = None,
    allocation_ratio: float | None = None,
    remote: Remote = LOCAL,
) -> int:
    """Set one inventory of a provider; TOTAL 0 removes it. What is left out stays as it is."""
    found = remote.ask("provider", {"name": name})
    inventories = dict(found.inventories)
    if total == 0:
        if inventories.pop(resource_class, None) is None:
            raise UnknownName(f"{name} has no inventory of {resource_class}", field="resource_class")
    else:
        given: dict[str, Any] = {
            "reserved": reserved,
            "min_unit": min_unit,
            "max_unit": max_unit,
            "step_size": step_size,
            "allocation_ratio": allocation_ratio,
        }
        changes = {field: value for field, value in given.items() if value is not None}
        known = inventories.get(resource_class)
        if known is not None and known.max_unit == known.total:
            changes.setdefault("max_unit", total)
        values = {} if known is None else msgspec.to_builtins(known)
        inventories[resource_class] = Inventory(**{**values, **changes, "total": total})
    said = f"{resource_class} of {name}: {total}" if total else f"{resource_class} of {name} removed"
    return remote.do("set_inventory", {"name": name, "inventories": inventories}, said)


@provider.command(name="remove")
def remove_provider(
    name: str,
    *,
    force: Annotated[bool, Parameter(help="even one that Placement's clients keep", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Remove a provider without allocations and children."""
    return remote.do("remove_host", {"name": name, "force": force}, f"provider {name} removed")


# aggregates


@aggregate.command(name="list")
def list_aggregates(*, remote: Remote = LOCAL) -> int:
    """All aggregates."""
    return remote.listed(
        remote.ask("aggregates"),
        ["name", "uuid", "zone", "members"],
        lambda line: [line.name, line.uuid, line.availability_zone, len(line.providers)],
    )


@aggregate.command(name="show")
def show_aggregate(name: str, *, remote: Remote = LOCAL) -> int:
    """One aggregate, by name or uuid."""
    found = _aggregate(remote, name)
    if remote.as_json:
        remote.show(found)
        return 0
    metadata = [f"{key}={value}" for key, value in sorted(found.metadata.items())]
    rows: list[list[Any]] = [["uuid", found.uuid], ["zone", found.availability_zone], ["metadata", metadata]]
    remote.lines(["", found.name], [*rows, ["members", found.providers]])
    return 0


@aggregate.command(name="create")
def create_aggregate(
    name: str,
    *members: str,
    uuid: str | None = None,
    zone: Annotated[str | None, Parameter(help="availability zone of its hosts")] = None,
    property: Annotated[tuple[str, ...], Parameter(help="NAME=VALUE, repeatable", negative="")] = (),
    remote: Remote = LOCAL,
) -> int:
    """Make an aggregate of hosts or other providers, one or more."""
    if not members:
        raise InvalidValue("an aggregate needs a member", field="members")
    if any(each.name == name for each in remote.ask("aggregates")):
        raise DuplicateName(f"an aggregate is named {name}", field="name")
    metadata = dict(map(pair, property)) | ({ZONE: zone} if zone is not None else {})
    made = Aggregate(uuid=uuid or str(uuids.uuid4()), name=name, metadata=metadata)
    for member in members:
        _join(remote, member, made)
    print(f"aggregate {name} ({made.uuid}) created")
    return 0


@aggregate.command(name="set")
def set_aggregate(
    name: str,
    *,
    rename: Annotated[str | None, Parameter(help="another name")] = None,
    zone: Annotated[str | None, Parameter(help="availability zone; empty: none")] = None,
    property: Annotated[tuple[str, ...], Parameter(help="NAME=VALUE, repeatable; NAME= removes", negative="")] = (),
    remote: Remote = LOCAL,
) -> int:
    """Change the name or metadata of an aggregate."""
    found = _aggregate(remote, name)
    metadata = dict(found.metadata)
    changes = [each.partition("=")[::2] for each in property]
    changes += [(ZONE, zone)] if zone is not None else []
    for key, text in changes:
        metadata.pop(key, None)
        if text:
            metadata[key] = text
    value = Aggregate(uuid=found.uuid, name=rename if rename is not None else found.name, metadata=metadata)
    return remote.do("update_aggregate", {"aggregate": value}, f"aggregate {value.name} changed")


@aggregate.command(name="add")
def add_members(name: str, *members: str, remote: Remote = LOCAL) -> int:
    """Put hosts or other providers into an aggregate."""
    found = _aggregate(remote, name)
    value = Aggregate(uuid=found.uuid, name=found.name, metadata=found.metadata)
    for member in members:
        _join(remote, member, value)
    print(f"{len(members)} added to aggregate {found.name}")
    return 0


@aggregate.command(name="remove")
def remove_members(name: str, *members: str, remote: Remote = LOCAL) -> int:
    """Take members out of an aggregate."""
    found = _aggregate(remote, name)
    for member in members:
        if member not in found.providers:
            raise UnknownName(f"{member} is not in aggregate {found.name}", field="members")
    for member in members:
        left = [each for each in _memberships(remote, member) if each.uuid != found.uuid]
        remote.ask("set_aggregates", {"name": member, "aggregates": left})
    print(f"{len(members)} removed from aggregate {found.name}")
    return 0


@aggregate.command(name="delete")
def delete_aggregate(name: str, *, remote: Remote = LOCAL) -> int:
    """Remove an aggregate without members, by name or uuid."""
    found = _aggregate(remote, name)
    return remote.do("remove_aggregate", {"uuid": found.uuid}, f"aggregate {found.name} deleted")


def _aggregate(remote: Remote, name: str) -> AggregateLine:
    """The aggregate with a name or uuid. UnknownName, or InvalidValue where several have the name."""
    lines: list[AggregateLine] = remote.ask("aggregates")
    found = [each for each in lines if each.uuid == name] or [each for each in lines if each.name == name]
    if not found:
        raise UnknownName.among("aggregate", name, [each.name for each in lines if each.name], field="name")
    if len(found) > 1:
        raise InvalidValue(f"{len(found)} aggregates are named {name}", field="name", hint="give the uuid")
    return found[0]


def _memberships(remote: Remote, member: str) -> list[Aggregate]:
    mine = remote.ask("provider", {"name": member}).aggregates
    lines = [each for each in remote.ask("aggregates") if each.uuid in mine]
    return [Aggregate(uuid=each.uuid, name=each.name, metadata=each.metadata) for each in lines]


def _join(remote: Remote, member: str, value: Aggregate) -> None:
    present = [each for each in _memberships(remote, member) if each.uuid != value.uuid]
    remote.ask("set_aggregates", {"name": member, "aggregates": [*present, value]})


# consumers


@allocation.command(name="list")
def list_allocations(
    *,
    provider: Annotated[str | None, Parameter(help="of this provider")] = None,
    limit: Limit = 100,
    after: Annotated[str | None, Parameter(help="continue after this consumer")] = None,
    remote: Remote = LOCAL,
) -> int:
    """Consumers, and what they hold."""
    return remote.listed(
        remote.ask("allocations", {"provider": provider, "limit": limit, "after": after}),
        ["consumer", "type", "project", "holds"],
        lambda line: [line.consumer, line.consumer_type or "unknown", line.project_id, _held(line)],
        page=limit,
        by="consumer",
    )


@allocation.command(name="show")
def show_allocation(consumer: str, *, remote: Remote = LOCAL) -> int:
    """One consumer in full."""
    found = remote.ask("allocation", {"consumer": consumer})
    if remote.as_json:
        remote.show(found)
        return 0
    rows = [
        ["type", found.consumer_type or "unknown"],
        ["project", found.project_id],
        ["user", found.user_id],
        ["generation", found.generation],
        ["holds", _held(found)],
    ]
    remote.lines(["", found.consumer], rows)
    return 0


@allocation.command(name="remove")
def remove_allocation(consumer: str, *, remote: Remote = LOCAL) -> int:
    """Give back all that a consumer holds."""
    return remote.do("release", {"uuids": (consumer,)}, f"{consumer} holds nothing any more")


def _held(line: Any) -> list[str]:
    return [
        f"{amount} {name} of {provider}"
        for provider, amounts in line.allocations.items()
        for name, amount in amounts.items()
    ]
