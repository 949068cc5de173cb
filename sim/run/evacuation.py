"""Guests whose host goes out of service during a run: moved away before maintenance begins, placed again after a
failure, by the policy of the run; those that find no host wait, if requests may, or are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from ...placement.decide.engine import Engine
from ...placement.types.request import Request, RequestSpec
from ..trace.workload import EPOCH_S, STEP_S, Guests
from .fault_domains import FaultDomains
from .fleet_plan import FleetPlan
from .guests_on import guests_on
from .site import Changes, Site

ENDED = "no host before its end"
"""Why a guest is lost that would have left by now."""


class Disruption(msgspec.Struct, frozen=True, kw_only=True):
    """What outages did to guests. ``migrated`` before maintenance; ``stopped`` with their host, of which so many were
    ``evacuated`` to another one, ``lost`` (``lost_for``: why), and wait still. ``downtime_hours`` of all guests
    together, until they ran again, were lost, or the run ended; ``down_host_hours`` of hosts."""

    migrated: int = 0
    stopped: int = 0
    evacuated: int = 0
    lost: int = 0
    waiting: int = 0
    lost_for: dict[str, int] = {}
    downtime_hours: float = 0.0
    longest_downtime_hours: float = 0.0
    down_host_hours: float = 0.0


class Off(NamedTuple):
    """A guest without a host: since when, when it leaves, and its server group."""

    since: int
    leaves: int
    group: str | None


class Population(Protocol):
    """The guests of a run that have a host, and the only place that knows who is alive."""

    plan: FleetPlan
    workload: Guests
    wait_s: float
    site: Site
    engine: Engine
    domains: FaultDomains | None

    def spec_of(self, uuid: str) -> RequestSpec:
        """What a guest asked for."""
        ...

    def take_off(self, uuids: Sequence[str]) -> dict[str, int]:
        """Release guests whose host is down; returns when each would leave, in seconds of the workload."""
        ...

    def put_back(self, uuid: str, leaves: int) -> None:
        """A guest that was taken off has a host again."""
        ...

    def lost(self, uuid: str) -> None:
        """A guest that was taken off will not return."""
        ...

    def moved(self, uuid: str) -> None:
        """A guest is on another host."""
        ...

    def bound(self, request: Request, stage: str) -> str:
        """What bound a guest that was refused at a stage: the smallest change that would have placed it."""
        ...


class Evacuation:
    """The guests of one run that are without a host, and those that are to move. Call ``step`` once a step, when those
    that leave have left."""

    def __init__(self, run: Population) -> None:
        self.run = run
        self.off: dict[str, Off] = {}
        self.draining: dict[str, None] = {}
        """Hosts that are to be emptied, in the order of their notice."""
        self.lost_for: Counter[str] = Counter()
        self.migrated = self.stopped = self.evacuated = self.preempted = 0
        self._down_s = self._host_s = 0
        self._longest_s = 0

    def step(self, at_s: int, changes: Changes) -> None:
        """Empty hosts that close, stop the guests of hosts that are down, and place again who has no host."""
        site = self.run.site
        for uuid in [uuid for uuid, each in self.off.items() if each.leaves <= at_s]:
            self._end(uuid, self.off[uuid].leaves, ENDED)
        self._stop(changes.down, at_s)
        self.draining |= dict.fromkeys(changes.closing)
        self.draining = {host: None for host in self.draining if site.closing[host] and not site.down[host]}
        for host in self.draining:
            self._drain(host, at_s)
        if self.off:
            self._place_again(at_s)

    def passed(self, seconds: int) -> None:
        """So much time has passed since the last step."""
        self._host_s += seconds * sum(reasons > 0 for reasons in self.run.site.down.values())

    def _guests(self, host: str) -> list[str]:
        """The guests on a host, the largest first."""
        guests = guests_on(self.run.engine.fleet, host)
        return sorted(guests, key=lambda uuid: (-self.run.spec_of(uuid).flavor.vcpus, uuid))

    def _request(self, uuid: str, at_s: int, group: str | None = None) -> Request:
        spec = self.run.spec_of(uuid)
        if self.run.domains is not None:
            spec = self.run.domains.again(spec, uuid)
        return Request(spec=spec, instance_uuids=(uuid,), server_group=group, now=float(EPOCH_S + at_s))

    def _stop(self, hosts: list[str], at_s: int) -> None:
        guests = [uuid for host in dict.fromkeys(hosts) for uuid in self._guests(host)]
        if not guests:
            return
        fleet = self.run.engine.fleet
        groups = [fleet.consumer(uuid).server_group for uuid in guests]
        leaves = self.run.take_off(guests)
        for uuid, group in zip(guests, groups, strict=True):
            self.off[uuid] = Off(at_s, leaves[uuid], group)
        self.stopped += len(guests)

    def _drain(self, host: str, at_s: int) -> None:
        """The host is closed, so where a guest is placed again is another one; else it stays."""
        for uuid in self._guests(host):
            moved = self.run.engine.resize(uuid, self._request(uuid, at_s)).placed
            self.migrated += moved
            if moved:
                self.run.moved(uuid)

    def preempt(self, guests: Sequence[str], at_s: int) -> None:
        """Guests give way to others: they wait for a host as those do whose host failed."""
        fleet = self.run.engine.fleet
        groups = [fleet.consumer(uuid).server_group for uuid in guests]
        leaves = self.run.take_off(guests)
        for uuid, group in zip(guests, groups, strict=True):
            self.off[uuid] = Off(at_s, leaves[uuid], group)
        self.preempted += len(guests)

    def _place_again(self, at_s: int) -> None:
        guests = list(self.off.items())
        # Where members are spread over fault domains, each must know where the one before is.
        parts = [guests] if self.run.domains is None else [[guest] for guest in guests]
        for part in parts:
            self._placed_again(part, at_s)

    def _placed_again(self, guests: Sequence[tuple[str, Off]], at_s: int) -> None:
        decisions = self.run.engine.place_many(self._request(uuid, at_s, each.group) for uuid, each in guests)
        for position, row in enumerate(decisions.rows.tolist()):
            uuid, (since, leaves, group) = guests[position]
            if row >= 0:
                del self.off[uuid]
                self._count(since, at_s)
                self.evacuated += 1
                self.run.put_back(uuid, leaves)
            elif at_s + STEP_S - since > self.run.wait_s:
                refusal = decisions[position].refusal
                stage = refusal.stage if refusal is not None else ""
                why = self.run.bound(Request(spec=self.run.spec_of(uuid), server_group=group), stage)
                self._end(uuid, at_s, why)

    def _end(self, uuid: str, at_s: int, why: str) -> None:
        """A guest is lost."""
        since, _, _ = self.off.pop(uuid)
        self._count(since, at_s)
        self.lost_for[why] += 1
        self.run.lost(uuid)

    def _count(self, since: int, until: int) -> None:
        self._down_s += until - since
        self._longest_s = max(self._longest_s, until - since)

    def outcome(self, reached: int) -> Disruption | None:
        """The outcome by the time ``reached``; None if there was no outage."""
        plan = self.run.plan
        if not (plan.failures or plan.maintenance or self.preempted):
            return None
        still = [max(0, min(each.leaves, reached) - each.since) for each in self.off.values()]
        return Disruption(
            migrated=self.migrated,
            stopped=self.stopped,
            evacuated=self.evacuated,
            lost=self.lost_for.total(),
            waiting=len(self.off),
            lost_for=dict(sorted(self.lost_for.items(), key=lambda item: (-item[1], item[0]))),
            downtime_hours=round((self._down_s + sum(still)) / 3600, 3),
            longest_downtime_hours=round(max([self._longest_s, *still]) / 3600, 3),
            down_host_hours=round(self._host_s / 3600, 3),
        )
