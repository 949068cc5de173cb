"""Executes commands on hosts, providers and server groups on an engine's fleet."""

from __future__ import annotations

from typing import Any

from ...placement.decide.engine import Engine
from ...placement.fleet.fleet import Fleet
from ...placement.fleet.host_reports import REPORTED_FIELDS
from ...placement.load.reports import report_hosts
from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.steps import finished
from ..engine_commands import (
    AddHosts,
    AddProvider,
    AddServerGroup,
    ConfirmMove,
    EngineCommand,
    Heartbeats,
    RemoveAggregate,
    RemoveHost,
    RemoveServerGroup,
    Report,
    ReportHosts,
    RevertMove,
    SetAggregates,
    SetInventory,
    SetParent,
    SetService,
    SetTraits,
    Spawned,
    UpdateAggregate,
)
from .added_hosts import added
from .report_columns import reports_of


def edit(engine: Engine, command: EngineCommand, now: float) -> Any:
    """Execute a command on hosts, providers or groups at a time; returns the answer of the fleet as a plain value.
    HostlerError, with nothing changed, if it is refused."""
    fleet = engine.fleet
    match command:
        case Spawned(uuids=uuids):
            return engine.spawned(uuids)
        case Heartbeats(names=names):
            return fleet.heartbeats(names, now)
        case AddHosts():
            return finished(added(fleet, command))
        case ReportHosts():
            return report_hosts(fleet, reports_of(command, now), claim_timeout=command.claim_timeout)
        case ConfirmMove(uuid=uuid):
            return engine.confirm(uuid)
        case RevertMove(uuid=uuid):
            return engine.revert(uuid)
        case RemoveHost(name=name):
            return fleet.remove_provider(name)
        case SetService(name=name):
            flags = {"disabled": command.disabled, "forced_down": command.forced_down}
            return fleet.set_service(name, disabled_reason=command.disabled_reason, **flags)
        case Report(name=name, figures=figures):
            for figure in figures:
                if figure not in REPORTED_FIELDS:
                    raise UnknownName.among("reported figure", figure, REPORTED_FIELDS)
            return fleet.report(name, at=command.at, **figures)
        case AddServerGroup(uuid=uuid, policy=policy, max_server_per_host=most):
            return fleet.add_server_group(uuid, policy, max_server_per_host=most)
        case RemoveServerGroup(uuid=uuid):
            return fleet.remove_server_group(uuid)
    return _edit_provider(fleet, command)


def _edit_provider(fleet: Fleet, command: EngineCommand) -> Any:
    match command:
        case AddProvider(name=name):
            kinds: dict[str, Any] = {"traits": command.traits, "aggregates": command.aggregates}
            return fleet.uuid(fleet.add_provider(name, uuid=command.uuid, parent=command.parent, **kinds))
        case SetParent(name=name, parent=parent):
            return fleet.set_parent(name, parent)
        case SetTraits(name=name, traits=traits):
            return fleet.set_traits(name, traits)
        case SetInventory(name=name, inventories=inventories):
            return fleet.set_inventory(name, inventories)
        case SetAggregates(name=name, aggregates=aggregates):
            return fleet.set_aggregates(name, aggregates)
        case UpdateAggregate(aggregate=aggregate):
            return fleet.update_aggregate(aggregate)
        case RemoveAggregate(uuid=uuid):
            return fleet.remove_aggregate(uuid)
    raise InvalidValue(f"{type(command).__name__} does not change a host or provider", field="command")
