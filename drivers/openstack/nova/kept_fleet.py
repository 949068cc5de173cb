"""A fleet that follows Nova's hosts: only what changes is read in, and decisions leave it as it is. Imports nothing of
Nova; not thread-safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ....placement.decide.engine import Engine
from ....placement.fleet.aggregates import NONE
from ....placement.fleet.fleet import Fleet
from ....placement.load.reports import report_hosts
from ....placement.policy.policy import Policy
from ....placement.types.errors import UnknownName
from ....placement.types.host import Aggregate, Host
from ....placement.types.host_report import HostReport
from ....placement.types.request import Request, RequestSpec

AGGREGATES: int = 64
"""New aggregates after which those that no host is in are removed, and as many as hosts are in."""
SPECS: int = 1024
"""Specs that are kept, so that requests of equal content share one."""


@dataclass(slots=True)
class Kept:
    """What is known of one compute node."""

    host: Host
    seen: float | None
    """When its service was last seen, seconds since the epoch."""


class KeptFleet:
    """Hosts by uuid, and the engine that decides on them."""

    def __init__(self) -> None:
        self.hosts: dict[str, Kept] = {}
        self._nodes: dict[str, str] = {}
        self._fleet = Fleet()
        self._engine: Engine | None = None
        self._values: Mapping[str, Mapping[str, Any]] | None = None
        self._specs: dict[RequestSpec, RequestSpec] = {}
        self._at = 1.0
        self._new_aggregates, self._most_new = 0, AGGREGATES
        self.changes = 0
        """Hosts that were read in since the start."""

    # state

    def use(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Decide under these options (group -> option -> value) from now on. HostlerError if a filter, a weigher or an
        option is not known. O(1) while they stay the same."""
        if self._engine is None or values != self._values:
            policy = Policy.from_mapping(values)
            self._engine, self._values = Engine(self._fleet, policy), values

    @property
    def engine(self) -> Engine:
        """The engine, once ``use`` has said by which options it decides."""
        assert self._engine is not None, "options are read before anything is decided"
        return self._engine

    def update(self, hosts: Iterable[Host], gone: Iterable[str] = ()) -> None:
        """Read in hosts that changed, and forget those of these uuids. HostlerError for what is malformed; nothing has
        changed then. O(hosts that changed + their instances)."""
        changed = list(hosts)
        nodes = {host.nodename: host.uuid for host in changed}
        taken = {self._nodes[node] for node, uuid in nodes.items() if self._nodes.get(node, uuid) != uuid}
        self._forget((*gone, *sorted(taken)))
        if not changed:
            return
        self._learn_aggregates(changed)
        self._at += 1.0
        report_hosts(self._fleet, [HostReport(host=host, at=self._at, service=host.service) for host in changed])
        self.changes += len(changed)
        for host in changed:
            self.hosts[host.uuid] = Kept(host, _seen(host))
            self._nodes[host.nodename] = host.uuid
        if self._new_aggregates > self._most_new:
            self._forget_aggregates()

    def heartbeats(self, seen: Mapping[str, float]) -> None:
        """The services of these hosts, by uuid, were seen at these times. O(hosts)."""
        late = {uuid: at for uuid, at in seen.items() if uuid in self.hosts and self.hosts[uuid].seen != at}
        if not late:
            return
        rows = np.array([self._fleet.row_of_uuid(uuid) for uuid in late], np.int32)
        self._fleet.heartbeats(rows, np.array(list(late.values()), np.float64))
        for uuid, at in late.items():
            kept = self.hosts[uuid]
            kept.seen = at
            kept.host = replace(kept.host, service=replace(kept.host.service, last_seen_up=at))

    def _forget(self, uuids: Iterable[str]) -> None:
        known = [uuid for uuid in uuids if uuid in self.hosts]
        if not known:
            return
        self._at += 1.0
        empty = [replace(self.hosts[uuid].host, instances={}) for uuid in known]
        report_hosts(self._fleet, [HostReport(host=host, at=self._at) for host in empty])
        for uuid in known:
            self._fleet.remove_provider(self._fleet.name(self._fleet.row_of_uuid(uuid)))
            self._nodes.pop(self.hosts.pop(uuid).host.nodename, None)

    def _learn_aggregates(self, hosts: Sequence[Host]) -> None:
        """Bring known aggregates to what the hosts say of them: one object stands for all hosts."""
        named: dict[str, Aggregate] = {}
        for host in hosts:
            named.update((each.uuid, each) for each in host.aggregates)
        for uuid, aggregate in named.items():
            try:
                known = self._fleet.aggregate(uuid)
            except UnknownName:
                self._new_aggregates += 1
                continue
            if known != aggregate:
                self._fleet.update_aggregate(aggregate)

    def _forget_aggregates(self) -> None:
        """Remove the aggregates that no host is in any more. O(hosts + aggregates), amortised O(1) a new aggregate."""
        used = {each.uuid for kept in self.hosts.values() for each in kept.host.aggregates}
        for uuid in [each.uuid for each in self._fleet.aggregates if each is not NONE and each.uuid not in used]:
            self._fleet.remove_aggregate(uuid)
        self._new_aggregates, self._most_new = 0, AGGREGATES + len(used)

    # decisions

    def shared(self, request: Request) -> Request:
        """The request with a spec of equal content that has been seen before, if there is one. O(size of the spec)."""
        if len(self._specs) >= SPECS:
            self._specs.clear()
        return request.with_changes(spec=self._specs.setdefault(request.spec, request.spec))

    def candidates(
        self, usable: Iterable[str], given: Mapping[str, Sequence[Any]] | None
    ) -> dict[str, list[Mapping[str, Any]]]:
        """Allocation candidates of the hosts that may be chosen. ``given``: Placement's, by provider; None: none are
        asked for (a rebuild), and each host can take the guest. O(hosts)."""
        if given is None:
            return {uuid: [{}] for uuid in usable if uuid in self.hosts}
        return {uuid: list(given.get(uuid, ())) for uuid in usable if uuid in self.hosts}


def _seen(host: Host) -> float | None:
    service = host.service
    return service.last_seen_up if service.last_seen_up is not None else service.created_at
