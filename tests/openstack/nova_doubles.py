"""Doubles of Nova's modules, of its cell databases and of Placement's claims, as far as Hostler's class uses them. They
fail as the real ones do: a cell that is down raises in its own query, Placement refuses, raises, or is not reached."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from oslo_config import cfg
from oslo_utils import timeutils

from hostler.placement.weighers import BUILTIN_WEIGHERS

from .nova_objects import CELL, NOW, host_state, node_uuid

PACKAGE = "hostler.drivers.openstack.nova"
PARTS = ("answers", "database", "scheduler", "state")
CELL_2 = "22222222-2222-4222-8222-222222222222"
SCHEDULER = ("ComputeFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter")


class NoValidHost(Exception):
    """Nova's."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)


class AllocationUpdateFailed(Exception):
    """Nova's: another process has changed the consumer."""


class CellTimeout(Exception):
    """What the database of a cell that is down raises."""


@dataclass
class CellDatabase:
    """One cell: rows of compute nodes by uuid, of services by host, and instances by host. ``down``: its queries raise;
    ``down_for_nodes``: only the one that reads whole compute nodes."""

    uuid: str = CELL
    nodes: dict[str, SimpleNamespace] = field(default_factory=dict)
    services: list[SimpleNamespace] = field(default_factory=list)
    instances: dict[str, list[str]] = field(default_factory=dict)
    down: bool = False
    down_for_nodes: bool = False


class Placement:
    """Claims by instance. ``refuses``: providers whose claims it refuses; ``raises``: the exception of a claim;
    ``reached``: whether a deletion reaches it (the report client returns None if not)."""

    def __init__(self) -> None:
        self.claims: dict[str, str] = {}
        self.tried: list[str] = []
        self.refuses: set[str] = set()
        self.raises: dict[str, Exception] = {}
        self.reached = True
        self.on_claim: Callable[[], None] = lambda: None

    def claim(self, context: Any, client: Any, spec: Any, uuid: str, candidate: Any, **version: Any) -> bool:
        (provider,) = candidate["allocations"]
        self.tried.append(provider)
        self.on_claim()
        if uuid in self.raises:
            raise self.raises[uuid]
        if provider in self.refuses:
            return False
        self.claims[uuid] = provider
        return True

    def delete_allocation_for_instance(self, context: Any, uuid: str, *, force: bool) -> bool | None:
        if not self.reached:
            return None
        return self.claims.pop(uuid, None) is not None


class Nova:
    """Nova around the class: its options, its cells, and a stock manager that answers ``stock`` or its first state."""

    def __init__(self) -> None:
        self.conf = options()
        self.cells = [CellDatabase()]
        self.placement = Placement()
        self.states: list[Any] = []
        """Host states that the stock manager has read; it chooses the first."""
        self.looks = 0
        self.instance_reads = 0
        self.stock_calls = 0
        self.on_look: Callable[[], None] = lambda: None
        self.host_manager = SimpleNamespace(
            weighers=[type(name, (), {})() for name in BUILTIN_WEIGHERS],
            enabled_cells=self.cells,
            aggs_by_id={},
            host_aggregates_map={},
            _instance_info={},
            host_state_cls=HostState,
        )

    def add(self, number: int, *, cell: int = 0, host: str | None = None, **figures: Any) -> SimpleNamespace:
        """A compute node and its service, as the databases have them."""
        host = host or f"compute{number}"
        row = SimpleNamespace(
            uuid=node_uuid(number),
            host=host,
            hypervisor_hostname=figures.pop("nodename", f"compute{number}"),
            number=number,
            figures=figures,
            **stamps(),
        )
        database = self.cells[cell]
        database.nodes[row.uuid] = row
        if all(service.host != host for service in database.services):
            database.services.append(service(host))
        return row

    def service(self, host: str) -> SimpleNamespace:
        return next(each for cell in self.cells for each in cell.services if each.host == host and not each.deleted)


class HostState(SimpleNamespace):
    """Nova's, made of a compute node's row."""

    def __init__(self, host: str, node: str, cell: str, compute: Any = None) -> None:
        super().__init__(uuid=None, host=host, nodename=node, cell_uuid=cell)

    def update(self, compute: Any, service: Any, aggregates: Any, instances: Any) -> None:
        names = {"host": compute.host, "nodename": compute.hypervisor_hostname, "cell_uuid": self.cell_uuid}
        found = vars(host_state(compute.number, **compute.figures))
        vars(self).update({**found, **names, "aggregates": aggregates, "service": service, "instances": instances})


def stamps(at: datetime.datetime | None = None) -> dict[str, Any]:
    """The times of a row, as Nova's databases have them: without a zone, and whole seconds."""
    now = (at or NOW).replace(tzinfo=None, microsecond=0)
    return {"created_at": now, "updated_at": now, "deleted_at": None, "deleted": 0}


def service(host: str, **changes: Any) -> SimpleNamespace:
    """The row of a nova-compute service that is up."""
    values = {"host": host, "disabled": False, "disabled_reason": None, "forced_down": False, "version": 72}
    return SimpleNamespace(**{**values, "last_seen_up": NOW.replace(tzinfo=None), **stamps(), **changes})


def options() -> cfg.ConfigOpts:
    """A nova.conf with the options that the class itself reads."""
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.IntOpt("service_down_time", default=60), cfg.StrOpt("servicegroup_driver", default="db")])
    conf.register_opts([cfg.IntOpt("max_attempts", default=3)], group="scheduler")
    conf.register_opts(
        [
            cfg.ListOpt("enabled_filters", default=list(SCHEDULER)),
            cfg.MultiStrOpt("weight_classes", default=["nova.scheduler.weights.all_weighers"]),
            cfg.FloatOpt("image_props_weight_multiplier", default=0.0),
            cfg.IntOpt("host_subset_size", default=1),
        ],
        group="filter_scheduler",
    )
    for group in ("metrics", "compute", "workarounds", "pci", "cinder", "upgrade_levels"):
        conf.register_group(cfg.OptGroup(group))
    conf([])
    return conf


class Context:
    """Nova's request context; ``cell_uuid`` where it is targeted at a cell."""

    def __init__(self, cell: CellDatabase | None = None) -> None:
        self.cell, self.cell_uuid = cell, None if cell is None else cell.uuid

    def elevated(self) -> Context:
        return self


def stock_manager(nova: Nova) -> type:
    """Nova's own manager."""

    class StockManager:
        def __init__(self) -> None:
            self.host_manager = nova.host_manager

        placement_client = nova.placement

        def _schedule(self, context: Any, spec: Any, uuids: Any, requests: Any, summaries: Any, *rest: Any) -> Any:
            nova.stock_calls += 1
            states = list(self._get_all_host_states(context, spec, summaries))
            return [[SimpleNamespace(compute_node_uuid=states[0].uuid if states else "stock")]]

        def _get_all_host_states(self, context: Any, spec: Any, summaries: Any) -> Iterator[Any]:
            return iter(nova.states)

        def _ensure_sufficient_hosts(self, context: Any, hosts: Sequence[Any], wanted: int) -> None:
            if len(hosts) != wanted:
                raise NoValidHost("There are not enough hosts available.")

        def reset(self) -> None:
            pass

        def update_instance_info(self, context: Any, host_name: str, instance_info: Any) -> None:
            pass

    return StockManager


def scatter(context: Any, cells: Sequence[CellDatabase], timeout: float, function: Any, *arguments: Any) -> Any:
    found: dict[str, Any] = {}
    for cell in cells:
        try:
            found[cell.uuid] = function(Context(cell), *arguments)
        except Exception as error:
            found[cell.uuid] = error
    return found


def computes(context: Context, uuids: Sequence[str]) -> list[Any]:
    assert context.cell is not None
    if context.cell.down or context.cell.down_for_nodes:
        raise CellTimeout
    return [context.cell.nodes[uuid] for uuid in uuids if uuid in context.cell.nodes]


@contextlib.contextmanager
def target(context: Any, cell: CellDatabase) -> Iterator[Context]:
    yield Context(cell)


def modules(nova: Nova) -> dict[str, dict[str, Any]]:
    """Nova's modules, by what the class imports of them."""
    made = SimpleNamespace
    return {
        "sqlalchemy": {"or_": lambda *terms: terms},
        "nova": {},
        "nova.conf": {"CONF": nova.conf},
        "nova.context": {
            "CELL_TIMEOUT": 60,
            "scatter_gather_cells": scatter,
            "is_cell_failure_sentinel": lambda found: isinstance(found, Exception),
            "target_cell": target,
        },
        "nova.exception": {"NoValidHost": NoValidHost},
        "nova.objects": {
            "ComputeNodeList": made(get_all_by_uuids=computes),
            "Selection": made,
            "SchedulerLimits": made(from_dict=dict),
        },
        "nova.version": {"version_string": lambda: "33.0.2"},
        "nova.db": {},
        "nova.db.main": {},
        "nova.db.main.api": {"pick_context_manager_reader": lambda function: function},
        "nova.db.main.models": {},
        "nova.scheduler": {},
        "nova.scheduler.manager": {"SchedulerManager": stock_manager(nova)},
        "nova.scheduler.utils": {"claim_resources": nova.placement.claim},
        "nova.scheduler.client": {},
        "nova.scheduler.client.report": {"PLACEMENTCLIENT": None},
    }


def install(monkeypatch: pytest.MonkeyPatch, doubles: Mapping[str, Mapping[str, Any]]) -> None:
    """Have the doubles found as modules, and the modules that import them be imported anew."""
    made = {name: ModuleType(name) for name in doubles}
    for name, values in doubles.items():
        vars(made[name]).update(values)
        monkeypatch.setitem(sys.modules, name, made[name])
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, made[name])
    for part in PARTS:
        monkeypatch.delitem(sys.modules, f"{PACKAGE}.{part}", raising=False)


@contextlib.contextmanager
def inside(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hostler's class inside this Nova, in mode live, at NOW."""
    install(monkeypatch, modules(nova))
    module, database = import_module(f"{PACKAGE}.scheduler"), import_module(f"{PACKAGE}.database")

    def rows(context: Context, newest: Mapping[str, datetime.datetime]) -> Any:
        cell = context.cell
        assert cell is not None
        nova.looks += 1
        nova.on_look()
        if cell.down:
            raise CellTimeout
        found = []
        for name, all_rows in (("nodes", cell.nodes.values()), ("services", cell.services)):
            if newest.get(name) is None:
                found.append([row for row in all_rows if not row.deleted])
            else:
                bound = database._since(Query(), Times(), newest[name])
                found.append([row for row in all_rows if changed_at(row) >= bound])
        return tuple(found)

    def instances(context: Context, hosts: Sequence[str]) -> dict[str, list[str]]:
        assert context.cell is not None
        nova.instance_reads += 1
        if context.cell.down:
            raise CellTimeout
        return {host: context.cell.instances.get(host, []) for host in hosts}

    monkeypatch.setattr(database, "_changed_rows", rows)
    monkeypatch.setattr(import_module(f"{PACKAGE}.state"), "instances_of", instances)
    monkeypatch.setattr(timeutils, "utcnow", lambda: NOW.replace(tzinfo=None))
    try:
        manager = module.SchedulerManager()
        nova.conf.set_override("mode", "live", group="hostler")
        yield manager
    finally:
        for part in PARTS:
            sys.modules.pop(f"{PACKAGE}.{part}", None)


def changed_at(row: SimpleNamespace) -> datetime.datetime:
    times: list[datetime.datetime] = [each for each in (row.updated_at, row.created_at, row.deleted_at) if each]
    return max(times)


class Times:
    """The columns of a table that say when its rows changed: compared, they give the bound."""

    class _Column:
        def __ge__(self, bound: datetime.datetime) -> datetime.datetime:
            return bound

    updated_at = created_at = deleted_at = _Column()
    deleted = 0


class Query:
    """A query that is its bound."""

    def filter(self, bounds: Any) -> datetime.datetime:
        (bound,) = set(bounds)
        assert isinstance(bound, datetime.datetime)
        return bound
