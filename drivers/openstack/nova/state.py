"""Keeps a KeptFleet at the state of Nova: from its databases and messages, or from host states that stock has read.
Runs inside Nova."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nova import context as nova_context
from nova import objects

from ....placement.types.host import Aggregate, Host
from ....placement.types.request import Request
from .database import Cells, Changes, instances_of
from .hosts import aggregate_of, host_of, seconds, service_of
from .kept_fleet import KeptFleet

INSTANCE_HINTS = ("same_host", "different_host")


class NovaState:
    """The kept fleet of one nova-scheduler, and what tells which of its hosts changed. Its caller holds a lock."""

    def __init__(self, host_manager: Any) -> None:
        self.kept = KeptFleet()
        self.host_manager = host_manager
        self.cells = Cells()
        self.stale_instances: set[str] = set()
        """Service hosts whose instances changed."""
        self.stale_aggregates = False
        self.read_images = False
        self._service_hosts: dict[str, set[str]] = {}
        """Service host -> uuids of its nodes."""
        self._cell_of: dict[str, str] = {}
        self._services: dict[str, Mapping[str, Any]] = {}
        self._answered: set[str] = set()
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._read_at = float("-inf")

    # from databases and messages

    def refresh(self, context: Any, mappings: Sequence[Any], *, max_age: float) -> None:
        """Read in what changed in the databases of these cells. O(changes)."""
        wanted = {mapping.uuid for mapping in mappings}
        if time.monotonic() - self._read_at < max_age and wanted <= self._answered:
            return
        changes = self.cells.look(context, mappings)
        try:
            self._read_in(context, mappings, changes)
        except BaseException:
            self.cells.unsettle(uuid for uuids in changes.nodes.values() for uuid in uuids)
            raise
        self._answered = changes.answered
        self._read_at = time.monotonic()

    def _read_in(self, context: Any, mappings: Sequence[Any], changes: Changes) -> None:
        for cell in changes.answered:
            self._services.update(self.cells.cells[cell].services)
        for name in changes.services:
            if not any(name in cell.services for cell in self.cells.cells.values()):
                self._services.pop(name, None)
        hosts = []
        for mapping in mappings:
            uuids = changes.nodes.get(mapping.uuid)
            if uuids:
                with nova_context.target_cell(context, mapping) as cell:
                    hosts += self._nodes(mapping.uuid, objects.ComputeNodeList.get_all_by_uuids(cell, uuids))
        self.kept.update(hosts, changes.gone)
        for host in hosts:
            self._service_hosts.setdefault(host.host, set()).add(host.uuid)
            self._cell_of[host.uuid] = host.cell_uuid or ""
        for uuid in changes.gone:
            self._cell_of.pop(uuid, None)
            for nodes in self._service_hosts.values():
                nodes.discard(uuid)
        self._read_services(changes.services)
        self._read_messages()

    def _nodes(self, cell_uuid: str, computes: Iterable[Any]) -> list[Host]:
        """Compute nodes as hosts, through Nova's host states; those that have not reported are left out."""
        found = []
        for compute in computes:
            service = self._services.get(compute.host)
            name = compute.host, compute.hypervisor_hostname
            state = self.host_manager.host_state_cls(*name, cell_uuid, compute=compute)
            known = self.kept.hosts.get(compute.uuid)
            instances = self._tracked(compute.host)
            state.update(compute, dict(service or {}), self._aggregates(compute.host), instances or {})
            if state.uuid is None:
                continue
            host = host_of(state, read_images=self.read_images)
            if instances is None and known is not None:
                host = replace(host, instances=known.host.instances)
            found.append(host)
        return found

    def _tracked(self, host: str) -> Mapping[str, Any] | None:
        """The instances of a service host as nova-compute tells of them; None if it does not."""
        info = self.host_manager._instance_info.get(host)
        return dict(info["instances"]) if info and info.get("updated") else None

    def _aggregates(self, host: str) -> list[Any]:
        known = self.host_manager.aggs_by_id
        return [known[each] for each in sorted(self.host_manager.host_aggregates_map.get(host, ())) if each in known]

    def _read_services(self, names: Iterable[str]) -> None:
        seen: dict[str, float] = {}
        changed = []
        for name in names:
            if name not in self._services:
                continue
            service = service_of(self._services[name])
            for uuid in self._service_hosts.get(name, ()):
                kept = self.kept.hosts.get(uuid)
                if kept is None:
                    continue
                same = replace(kept.host.service, last_seen_up=service.last_seen_up) == service
                if same and service.last_seen_up is not None:
                    seen[uuid] = service.last_seen_up
                elif kept.host.service != service:
                    changed.append(replace(kept.host, service=service))
        self.kept.update(changed)
        self.kept.heartbeats(seen)

    def _read_messages(self) -> None:
        """Read in what aggregates and tracked instances nova-api and nova-compute have reported."""
        stale, self.stale_instances = self.stale_instances, set()
        changed: dict[str, Host] = {}
        if self.stale_aggregates:
            self.stale_aggregates = False
            for uuid, kept in self.kept.hosts.items():
                aggregates = tuple(aggregate_of(each) for each in self._aggregates(kept.host.host))
                if aggregates != kept.host.aggregates:
                    changed[uuid] = replace(kept.host, aggregates=aggregates)
        for name in stale:
            instances = self._tracked(name)
            if instances is not None:
                self._put_instances(name, instances, changed)
        self.kept.update(changed.values())

    def _put_instances(self, name: str, instances: Mapping[str, Any], changed: dict[str, Host]) -> None:
        for uuid in self._service_hosts.get(name, ()):
            if uuid in self.kept.hosts:
                host = changed.get(uuid, self.kept.hosts[uuid].host)
                if set(host.instances) != set(instances):
                    known = {each: host.instances.get(each, {}) for each in instances}
                    changed[uuid] = replace(host, instances=known)

    def read_instances(self, context: Any, mappings: Sequence[Any], request: Request) -> None:
        """Read the instances of hosts whose nova-compute does not tell of them, if the request depends on them; Nova
        reads them for each request. O(instances of these hosts)."""
        hints = request.scheduler_hints
        policy = self.kept.engine.policy
        adapted = any(hasattr(rule, "nova_class") for rule in (*policy.filters, *policy.weighers))
        if request.server_group is None and not adapted and not any(hint in hints for hint in INSTANCE_HINTS):
            return
        changed: dict[str, Host] = {}
        for mapping in mappings:
            names = [
                name
                for name, uuids in self._service_hosts.items()
                if any(self._cell_of.get(uuid) == mapping.uuid for uuid in uuids) and self._tracked(name) is None
            ]
            if names:
                with nova_context.target_cell(context, mapping) as cell:
                    for name, uuids in instances_of(cell, names).items():
                        self._put_instances(name, dict.fromkeys(uuids), changed)
        self.kept.update(changed.values())

    def usable(self, mappings: Sequence[Any], wanted: Iterable[str] | None) -> list[str]:
        """Uuids of the hosts that may be chosen: those ``wanted`` (None: all) that have a service, in cells that
        answered. O(hosts)."""
        cells = {mapping.uuid for mapping in mappings} & self._answered
        hosts = self.kept.hosts
        return [
            uuid
            for uuid in (hosts if wanted is None else wanted)
            if uuid in hosts and self._cell_of.get(uuid) in cells and hosts[uuid].host.host in self._services
        ]

    # from what stock has read

    def observe(self, states: Sequence[Any]) -> list[str]:
        """Read in host states as stock has just read them, and return their uuids. O(hosts)."""
        changed, seen, uuids = [], {}, []
        aggregates: dict[int, Aggregate] = {}
        for state in states:
            if state.uuid is None:
                continue
            uuids.append(state.uuid)
            key = _fingerprint(state, aggregates)
            if self._seen.get(state.uuid) != key or _may_change_unseen(state):
                self._seen[state.uuid] = key
                changed.append(host_of(state, read_images=self.read_images))
            else:
                at = seconds(state.service.get("last_seen_up"))
                if at is not None:
                    seen[state.uuid] = at
        self.kept.update(changed)
        self.kept.heartbeats(seen)
        return uuids


def _fingerprint(state: Any, aggregates: dict[int, Aggregate]) -> tuple[Any, ...]:
    """What tells whether a host state differs from an earlier one, but for its heartbeat, NUMA cells and devices."""
    for each in state.aggregates:
        if id(each) not in aggregates:
            aggregates[id(each)] = aggregate_of(each)
    service = state.service
    return (
        *(state.updated, state.free_ram_mb, state.free_disk_mb, state.vcpus_used, state.disk_mb_used),
        *(state.num_instances, state.num_io_ops, state.failed_builds, state.host, state.nodename, state.cell_uuid),
        *(service.get("disabled"), service.get("disabled_reason"), service.get("forced_down")),
        tuple((each.uuid, each.name, tuple(sorted(each.metadata.items()))) for each in _known(state, aggregates)),
        frozenset(state.instances),
    )


def _known(state: Any, aggregates: Mapping[int, Aggregate]) -> list[Aggregate]:
    return [aggregates[id(each)] for each in state.aggregates]


def _may_change_unseen(state: Any) -> bool:
    """True if NUMA cells or devices may have changed within the second that the row's time names."""
    if state.numa_topology is None and not getattr(state.pci_stats, "pools", None):
        return False
    updated = seconds(state.updated)
    return updated is None or time.time() - updated < 5.0


__all__ = ["NovaState"]
