"""Keeps a KeptFleet at the state of Nova: from its databases and messages, or from host states that stock has read.
Runs inside Nova."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nova import context as nova_context

from ....placement.types.errors import HostlerError
from ....placement.types.host import Aggregate, Host
from ....placement.types.request import Request
from .database import Cells, Changes, compute_nodes, instances_of
from .hosts import aggregate_of, host_of, seconds, service_of
from .kept_fleet import KeptFleet

LOG = logging.getLogger(__name__)
INSTANCE_HINTS = ("same_host", "different_host")


class NovaState:
    """The kept fleet of one nova-scheduler, and what tells which of its hosts changed. Its caller holds a lock, except
    for ``tell`` and ``tell_aggregates``."""

    def __init__(self, host_manager: Any) -> None:
        self.kept = KeptFleet()
        self.host_manager = host_manager
        self.cells = Cells()
        self.read_images = False
        self.unreadable: dict[str, str] = {}
        """Why a compute node cannot be read, by its uuid: it is as it was when it last could, or not kept at all."""
        self._stale_instances: set[str] = set()
        self._stale_aggregates = False
        self._telling = threading.Lock()
        self._service_hosts: dict[str, set[str]] = {}
        """Service host -> uuids of its nodes."""
        self._host_of: dict[str, str] = {}
        self._cell_of: dict[str, str] = {}
        self._services: dict[str, Mapping[str, Any]] = {}
        self._left = Changes()
        """What the latest look found, where it could not be read in."""
        self._looked: set[str] = set()
        self._looked_at = float("-inf")
        self._answered: set[str] = set()
        self._seen: dict[str, tuple[Any, ...]] = {}

    # from databases and messages

    def tell(self, host: str) -> None:
        """The instances of a service host changed. Does not wait for the state to be read. Thread-safe."""
        with self._telling:
            self._stale_instances.add(host)

    def tell_aggregates(self) -> None:
        """Aggregates changed. Does not wait for the state to be read. Thread-safe."""
        with self._telling:
            self._stale_aggregates = True

    def refresh(self, context: Any, mappings: Sequence[Any], *, since: float) -> None:
        """Read in what changed in the databases of these cells, unless they were looked at ``since`` (monotonic
        seconds), and what messages told. Requests that waited for each other thus share a look. O(changes)."""
        wanted = {mapping.uuid for mapping in mappings}
        if self._looked_at < since or not wanted <= self._looked:
            began = time.monotonic()
            changes = self.cells.look(context, mappings)
            changes.follow(self._left)
            try:
                self._read_in(context, mappings, changes)
            except BaseException:
                self._left = changes
                self.cells.unsettle(uuid for uuids in changes.nodes.values() for uuid in uuids)
                raise
            self._left, self._answered = Changes(), changes.answered
            self._looked, self._looked_at = wanted, began
        self._read_messages()

    def _read_in(self, context: Any, mappings: Sequence[Any], changes: Changes) -> None:
        for cell in changes.answered:
            self._services.update(self.cells.cells[cell].services)
        for name in changes.services:
            if not any(name in cell.services for cell in self.cells.cells.values()):
                self._services.pop(name, None)
        for uuid in changes.gone:
            self._stands_on(uuid, None)
            self._cell_of.pop(uuid, None)
            self.unreadable.pop(uuid, None)
            self._seen.pop(uuid, None)
        self.kept.update((), changes.gone)
        for cell, computes in self._computes(context, mappings, changes):
            self._put(cell, computes)
        self._read_services(changes.services)

    def _computes(self, context: Any, mappings: Sequence[Any], changes: Changes) -> list[tuple[str, Any]]:
        """The compute nodes that changed, by cell. A cell that does not answer is not among those that did."""
        asked = [mapping for mapping in mappings if changes.nodes.get(mapping.uuid)]
        if not asked:
            return []
        found: Mapping[str, Any] = nova_context.scatter_gather_cells(
            context, asked, nova_context.CELL_TIMEOUT, compute_nodes, changes.nodes
        )
        for cell in [cell for cell, computes in found.items() if nova_context.is_cell_failure_sentinel(computes)]:
            changes.answered.discard(cell)
            self.cells.unsettle(changes.nodes[cell])
        return [(cell, computes) for cell, computes in found.items() if cell in changes.answered]

    def _put(self, cell: str, computes: Iterable[Any]) -> None:
        """Read in compute nodes of a cell; those that have not reported are left out."""
        hosts = []
        for compute in computes:
            self._cell_of[compute.uuid] = cell
            try:
                host = self._host(cell, compute)
            except Exception as error:  # what one compute node reports must not fail the requests for all others
                self._refuse(compute.uuid, compute.hypervisor_hostname, error)
                continue
            if host is not None:
                hosts.append(host)
        self._read(hosts)
        for host in hosts:
            self._stands_on(host.uuid, host.host)

    def _read(self, hosts: Sequence[Host]) -> None:
        """Read in hosts as they are now."""
        refused = self._update(hosts)
        for host in hosts if self.unreadable else ():
            if host.uuid not in refused:
                self.unreadable.pop(host.uuid, None)

    def _update(self, hosts: Sequence[Host]) -> set[str]:
        """Read in hosts, each alone if one of them is malformed; returns the uuids of those that are."""
        try:
            self.kept.update(hosts)
            return set()
        except HostlerError:
            return {host.uuid for host in hosts if not self._is_read(host)}

    def _is_read(self, host: Host) -> bool:
        try:
            self.kept.update([host])
        except HostlerError as error:
            self._refuse(host.uuid, host.nodename, error)
            return False
        return True

    def _refuse(self, uuid: str, node: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if self.unreadable.get(uuid) != reason:
            LOG.error("compute node %s (%s) cannot be read: %s", node, uuid, reason)
        self.unreadable[uuid] = reason

    def _stands_on(self, uuid: str, host: str | None) -> None:
        """A compute node is of this service host now; None: of none."""
        before = self._host_of.get(uuid)
        if before == host:
            return
        if before is not None:
            nodes = self._service_hosts[before]
            nodes.discard(uuid)
            if not nodes:
                del self._service_hosts[before]
        if host is None:
            del self._host_of[uuid]
        else:
            self._host_of[uuid] = host
            self._service_hosts.setdefault(host, set()).add(uuid)

    def _host(self, cell_uuid: str, compute: Any) -> Host | None:
        """A compute node as a host, through Nova's host state; None if it has not reported."""
        service = self._services.get(compute.host)
        name = compute.host, compute.hypervisor_hostname
        state = self.host_manager.host_state_cls(*name, cell_uuid, compute=compute)
        known = self.kept.hosts.get(compute.uuid)
        instances = self._tracked(compute.host)
        state.update(compute, dict(service or {}), self._aggregates(compute.host), instances or {})
        if state.uuid is None:
            return None
        host = host_of(state, read_images=self.read_images)
        if instances is None and known is not None and known.host.host == host.host:
            host = replace(host, instances=known.host.instances)
        return host

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
        with self._telling:
            stale, self._stale_instances = self._stale_instances, set()
            aggregates_too, self._stale_aggregates = self._stale_aggregates, False
        if not stale and not aggregates_too:
            return
        try:
            self._update(self._told(stale, aggregates_too))
        except BaseException:
            if aggregates_too:
                self.tell_aggregates()
            for name in stale:
                self.tell(name)
            raise

    def _told(self, stale: Iterable[str], aggregates_too: bool) -> list[Host]:
        changed: dict[str, Host] = {}
        if aggregates_too:
            for uuid, kept in self.kept.hosts.items():
                aggregates = tuple(aggregate_of(each) for each in self._aggregates(kept.host.host))
                if aggregates != kept.host.aggregates:
                    changed[uuid] = replace(kept.host, aggregates=aggregates)
        for name in stale:
            instances = self._tracked(name)
            if instances is not None:
                self._put_instances(name, instances, changed)
        return list(changed.values())

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
            if mapping.uuid not in self._answered:
                continue  # its hosts are no candidates
            names = [
                name
                for name, uuids in self._service_hosts.items()
                if any(self._cell_of.get(uuid) == mapping.uuid for uuid in uuids) and self._tracked(name) is None
            ]
            if names:
                with nova_context.target_cell(context, mapping) as cell:
                    for name, uuids in instances_of(cell, names).items():
                        self._put_instances(name, dict.fromkeys(uuids), changed)
        self._update(list(changed.values()))

    def usable(self, mappings: Sequence[Any], wanted: Iterable[str] | None) -> list[str]:
        """Uuids of the hosts that may be chosen: those ``wanted`` (None: all) that have a service and can be read, in
        cells that answered. O(hosts)."""
        cells = {mapping.uuid for mapping in mappings} & self._answered
        hosts, unreadable = self.kept.hosts, self.unreadable
        return [
            uuid
            for uuid in (hosts if wanted is None else wanted)
            if uuid in hosts
            and uuid not in unreadable
            and self._cell_of.get(uuid) in cells
            and hosts[uuid].host.host in self._services
        ]

    def unreadable_of(self, mappings: Sequence[Any], wanted: Iterable[str] | None) -> list[str]:
        """Uuids of the hosts that Nova may choose, and that cannot be read here. O(hosts wanted) if there are any."""
        if not self.unreadable:
            return []
        cells = {mapping.uuid for mapping in mappings} & self._answered
        among = self.unreadable if wanted is None else wanted
        return [uuid for uuid in among if uuid in self.unreadable and self._cell_of.get(uuid) in cells]

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
            if self._seen.get(state.uuid) == key and not _may_change_unseen(state):
                at = seconds(state.service.get("last_seen_up"))
                if at is not None:
                    seen[state.uuid] = at
                continue
            try:
                changed.append(host_of(state, read_images=self.read_images))
                self._seen[state.uuid] = key
            except Exception as error:  # a comparison that does not need this host can be made
                self._refuse(state.uuid, state.nodename, error)
        self._read(changed)
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
