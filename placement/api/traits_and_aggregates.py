"""Which traits a provider has, and which aggregates it is in, through the API."""

from __future__ import annotations

from typing import Any

from ..fleet.change_log import rows_array
from ..fleet.fleet import Fleet
from ..types.host import Aggregate
from ..types.validation import is_custom
from . import commands as c
from .answers import ProviderAggregates, ProviderTraits
from .names import check_known_traits, in_order
from .providers import check_generation, found, generation, move_generation, normal_uuid


def show_traits(fleet: Fleet, uuid: str) -> ProviderTraits:
    """See `PlacementModel.provider_traits`."""
    return _shown_traits(fleet, found(fleet, uuid))


def set_traits(fleet: Fleet, command: c.SetTraits) -> ProviderTraits:
    """See `commands.SetTraits`."""
    row = found(fleet, command.provider)
    check_generation(fleet, row, command.generation)
    check_known_traits(fleet, command.traits)
    _put_traits(fleet, row, frozenset(command.traits), command.now)
    return _shown_traits(fleet, row)


def delete_traits(fleet: Fleet, command: c.DeleteProviderTraits) -> None:
    """See `commands.DeleteProviderTraits`."""
    _put_traits(fleet, found(fleet, command.provider), frozenset(), command.now)


def show_aggregates(fleet: Fleet, uuid: str) -> ProviderAggregates:
    """See `PlacementModel.provider_aggregates`."""
    return _shown_aggregates(fleet, found(fleet, uuid))


def set_aggregates(fleet: Fleet, command: c.SetAggregates) -> ProviderAggregates:
    """See `commands.SetAggregates`."""
    row = found(fleet, command.provider)
    if command.generation is not None:
        check_generation(fleet, row, command.generation)
    before = generation(fleet, row)
    uuids = sorted({normal_uuid(uuid, "aggregates") for uuid in command.aggregates})
    ids = fleet._aggregate_ids(_known(fleet, uuid) for uuid in uuids)
    if set(ids) != set(fleet._host_class(row).aggregates):
        _reclass(fleet, row, aggregates=ids)
    if command.generation is not None:
        move_generation(fleet, row, before + 1, command.now)
    elif generation(fleet, row) != before:
        move_generation(fleet, row, before, command.now)
    return _shown_aggregates(fleet, row)


def _shown_traits(fleet: Fleet, row: int) -> ProviderTraits:
    held, custom = in_order(fleet, fleet._host_class(row).traits), fleet._registry.traits
    times = [custom[name].updated for name in held if name in custom] if any(map(is_custom, held)) else []
    return ProviderTraits(generation=generation(fleet, row), traits=held, updated=max(times, default=None))


def _put_traits(fleet: Fleet, row: int, traits: frozenset[str], now: float) -> None:
    if traits == fleet._host_class(row).traits:
        return
    before = generation(fleet, row)
    _reclass(fleet, row, traits=traits)
    move_generation(fleet, row, before + 1, now)


def _reclass(fleet: Fleet, row: int, **changes: Any) -> None:
    with fleet._change_log.editing(rows_array(row)):
        fleet._change_log.reclass(rows_array(row), **changes)
    fleet._change_log.topology_epoch += 1


def _shown_aggregates(fleet: Fleet, row: int) -> ProviderAggregates:
    uuids = sorted(fleet.aggregates[index].uuid for index in fleet._host_class(row).aggregates)
    return ProviderAggregates(generation=generation(fleet, row), aggregates=uuids)


def _known(fleet: Fleet, uuid: str) -> Aggregate:
    """The aggregate of this uuid, with the name and metadata that were loaded, if it was."""
    index = fleet._aggregate_table.find(uuid)
    return Aggregate(uuid=uuid, name=uuid) if index is None else fleet.aggregates[index]
