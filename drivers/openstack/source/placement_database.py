"""Placement's database as values (Placement 15's tables, which have been the same since 9)."""

from __future__ import annotations

from ....placement.fleet.inventories import INVENTORY_FIELDS, Inventory
from .databases import Database, Reading, SourceFailed
from .values import PlacementSource, SourceConsumer, SourceProvider


def read_placement(database: Database) -> PlacementSource:
    """All of a Placement database, as it is at one moment. SourceFailed if it cannot be read, or is none. O(rows)."""
    with database.reading() as reading:
        found, by_id = _providers(reading)
        classes = {row.id: row.name for row in reading.rows("resource_classes", ("id", "name"))}
        found.resource_classes = list(classes.values())
        columns = ("resource_provider_id", "resource_class_id", *INVENTORY_FIELDS, "allocation_ratio")
        for row in reading.rows("inventories", columns):
            figures = {name: int(getattr(row, name)) for name in INVENTORY_FIELDS}
            inventory = Inventory(**figures, allocation_ratio=float(row.allocation_ratio))
            provider = _of(by_id, row.resource_provider_id, "inventories")
            provider.inventories[_named(classes, row.resource_class_id)] = inventory
        traits = {row.id: row.name for row in reading.rows("traits", ("id", "name"))}
        found.traits = list(traits.values())
        links = ("resource_provider_id", "trait_id")
        for row in reading.rows("resource_provider_traits", links, order="resource_provider_id"):
            provider = _of(by_id, row.resource_provider_id, "resource_provider_traits")
            provider.traits.add(_named(traits, row.trait_id))
        aggregates = {row.id: row.uuid for row in reading.rows("placement_aggregates", ("id", "uuid"))}
        links = ("resource_provider_id", "aggregate_id")
        for row in reading.rows("resource_provider_aggregates", links, order="resource_provider_id"):
            provider = _of(by_id, row.resource_provider_id, "resource_provider_aggregates")
            provider.aggregates.add(_named(aggregates, row.aggregate_id))
        _allocations(reading, found, by_id, classes)
    return found


def _providers(reading: Reading) -> tuple[PlacementSource, dict[int, SourceProvider]]:
    found, by_id, parents = PlacementSource(), dict[int, SourceProvider](), dict[int, int]()
    names = ("id", "uuid", "name", "generation", "parent_provider_id")
    for row in reading.rows("resource_providers", names):
        provider = SourceProvider(uuid=row.uuid, name=row.name or row.uuid, generation=row.generation or 0)
        by_id[row.id] = found.providers[row.uuid] = provider
        if row.parent_provider_id is not None:
            parents[row.id] = row.parent_provider_id
    for number, parent in parents.items():
        by_id[number].parent = _of(by_id, parent, "resource_providers").uuid
    return found, by_id


def _allocations(
    reading: Reading, found: PlacementSource, by_id: dict[int, SourceProvider], classes: dict[int, str]
) -> None:
    projects = {row.id: row.external_id for row in reading.rows("projects", ("id", "external_id"))}
    users = {row.id: row.external_id for row in reading.rows("users", ("id", "external_id"))}
    types = {}
    if reading.columns("consumer_types"):  # from Placement 5 on
        types = {row.id: row.name for row in reading.rows("consumer_types", ("id", "name"))}
    known = {}
    names = ("id", "uuid", "project_id", "user_id", "consumer_type_id", "generation")
    for row in reading.rows("consumers", names):
        known[row.uuid] = SourceConsumer(
            uuid=row.uuid,
            project_id=projects.get(row.project_id, ""),
            user_id=users.get(row.user_id, ""),
            consumer_type=types.get(row.consumer_type_id),
            generation=row.generation or 0,
        )
    columns = ("id", "resource_provider_id", "consumer_id", "resource_class_id", "used")
    for row in reading.rows("allocations", columns):
        consumer = found.consumers.get(row.consumer_id)
        if consumer is None:
            consumer = known.get(row.consumer_id) or SourceConsumer(uuid=row.consumer_id)
            found.consumers[row.consumer_id] = consumer
        provider = _of(by_id, row.resource_provider_id, "allocations").uuid
        held = consumer.allocations.setdefault(provider, {})
        name = _named(classes, row.resource_class_id)
        held[name] = held.get(name, 0) + int(row.used)


def _of(by_id: dict[int, SourceProvider], number: int, table: str) -> SourceProvider:
    try:
        return by_id[number]
    except KeyError:
        raise SourceFailed(f"{table} names resource provider {number}, which does not exist", field=table) from None


def _named(names: dict[int, str], number: int) -> str:
    try:
        return names[number]
    except KeyError:
        raise SourceFailed(f"row {number} of a table of names does not exist", field="placement") from None


__all__ = ["read_placement"]
