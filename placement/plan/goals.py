"""The goals that a plan can have, as plain values. ``Engine.plan`` makes the plan of one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from ..decide.engine import Engine
from ..types.errors import InvalidValue
from ..types.plans import Goal, Plan, PlanOptions
from ..types.request import Request
from .balance import balance_plan
from .consolidate import consolidate_plan
from .defragment import defragment_plan
from .drain import drain_plan, rows_of
from .evacuate_proof import evacuate_proof_plan
from .room_plan import room_plan


class _Goal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do", forbid_unknown_fields=True):
    """Base of all goals."""

    def value(self) -> dict[str, Any]:
        """The goal as a plain value, for the plan's document."""
        value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return value


class Drain(_Goal, frozen=True, tag="drain"):
    """Move every guest away from ``hosts`` (node or service host names). ``batch``: so many hosts at a time, in the
    order given; 0: all together. ``by``: instead, the hosts with one value of this key of their aggregates' metadata
    at a time, such as ``rack``. A host whose batch is done is in use again for later batches. ``keep_free``: share of
    each target's capacity that stays free, 0 to 1."""

    hosts: tuple[str, ...]
    batch: int = 0
    by: str | None = None
    keep_free: float = 0.0

    def plan(self, engine: Engine, options: PlanOptions) -> Plan:
        """The plan of this goal."""
        if not self.hosts:
            raise InvalidValue("name at least one host to drain", field="hosts")
        if self.batch < 0 or (self.batch and self.by is not None):
            raise InvalidValue("batch must be 0 or a number of hosts, and not beside by", field="batch")
        _share(self.keep_free, "keep_free")
        rows = rows_of(engine, self.hosts)
        size = self.batch or len(rows)
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        if self.by is not None:
            batches = _by_metadata(engine, rows, self.by)
        return drain_plan(engine, self.value(), batches, self.keep_free, options)


class Consolidate(_Goal, frozen=True, tag="consolidate"):
    """Empty as many hosts as possible, at most ``most``, by packing guests onto the others. ``hosts``: those that are
    emptied or take guests; empty: all."""

    hosts: tuple[str, ...] = ()
    most: int | None = None

    def plan(self, engine: Engine, options: PlanOptions) -> Plan:
        """The plan of this goal."""
        if self.most is not None and self.most < 0:
            raise InvalidValue(f"most must be 0 or more, got {self.most}", field="most")
        return consolidate_plan(engine, self.value(), hosts_named(engine, self.hosts), self.most, options)


class Balance(_Goal, frozen=True, tag="balance"):
    """Even out how full ``hosts`` (empty: all) are in ``resource``, a resource class.

    Hosts fuller than the mean by more than ``threshold`` (a share of a host) are relieved, each move by more than
    ``margin``, with moves of at most ``most`` of the guests, a share. A balanced fleet has an empty plan. For a
    cooldown, pin the guests that moved lately.
    """

    hosts: tuple[str, ...] = ()
    resource: str = "MEMORY_MB"
    threshold: float = 0.03
    margin: float = 0.01
    most: float = 0.03

    def plan(self, engine: Engine, options: PlanOptions) -> Plan:
        """The plan of this goal."""
        for field in ("threshold", "margin"):
            _share(getattr(self, field), field)
        if not 0 <= self.most <= 1:
            raise InvalidValue(f"most must be a share from 0 to 1, got {self.most}", field="most")
        resource = engine.fleet.resource_class(self.resource)
        rows = hosts_named(engine, self.hosts)
        count = int(engine.fleet.column("num_instances")[rows].sum())
        most = options.get("most_moves")
        if most is None:
            most = int(count * self.most)
        return balance_plan(engine, self.value(), rows, resource, self.threshold, self.margin, most, options)


class MakeRoom(_Goal, frozen=True, tag="make_room"):
    """Make room so that ``request`` fits, for each of its instances (one if it names none), with the fewest moves."""

    request: Request

    def plan(self, engine: Engine, options: PlanOptions) -> Plan:
        """The plan of this goal."""
        return room_plan(engine, self.value(), self.request, options)


class Defragment(_Goal, frozen=True, tag="defragment"):
    """Make more room for guests of ``requests``, so that more of each fit, host by host, and fewer of none. ``hosts``:
    those whose guests move, and whose room counts; empty: all."""

    requests: tuple[Request, ...]
    hosts: tuple[str, ...] = ()

    def plan(self, engine: Engine, options: PlanOptions) -> Plan:
        """The plan of this goal."""
        if not self.requests:
            raise InvalidValue("name at least one request to make room for", field="requests")
        return defragment_plan(engine, self.value(), hosts_named(engine, self.hosts), self.requests, options)


class EvacuateProof(_Goal, frozen=True, tag="evacuate_proof"):
    """Restore N+1: any one of ``hosts`` (empty: all) may fail, and all its guests find another host."""

    hosts: tuple[str, ...] = ()

    def plan(self, engine: Engine, options: PlanOptions) -> Plan:
        """The plan of this goal."""
        return evacuate_proof_plan(engine, self.value(), hosts_named(engine, self.hosts), options)


def hosts_named(engine: Engine, names: tuple[str, ...]) -> list[int]:
    """Rows of hosts by name; without names, of all hosts."""
    if names:
        return rows_of(engine, names)
    fleet = engine.fleet
    return [int(row) for row in np.flatnonzero(fleet.is_host[: fleet.rows])]


def _by_metadata(engine: Engine, rows: list[int], key: str) -> list[list[int]]:
    """Rows by the value of a key of their aggregates' metadata, values in the order of their first host."""
    fleet, batches = engine.fleet, dict[str, list[int]]()
    for row in rows:
        metadata = (fleet.aggregates[index].metadata for index in fleet._host_class(row).aggregates)
        value = next((each[key] for each in metadata if key in each), None)
        if value is None:
            hint = f"put {fleet.name(row)} into an aggregate with that key"
            raise InvalidValue(f"{fleet.name(row)} has no {key} in its aggregates' metadata", field="by", hint=hint)
        batches.setdefault(value, []).append(row)
    return list(batches.values())


def _share(value: float, field: str) -> None:
    if not 0 <= value < 1:
        raise InvalidValue(f"{field} must be a share from 0 to below 1, got {value}", field=field)


__all__ = ["Balance", "Consolidate", "Defragment", "Drain", "EvacuateProof", "Goal", "MakeRoom", "hosts_named"]
