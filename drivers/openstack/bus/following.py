"""The state of the cloud as Nova's databases have it, brought into the service: looks at the databases in a thread, and
commands for what they found."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import trio

from ....core.engine_commands import Heartbeats, RemoveAggregate, SetService, UpdateAggregate
from ....core.errors import DeadlineExceeded, NotLeader, Overloaded, Stopped, StorageFailed
from ....core.machine.orders import Order
from ....core.machine.report_columns import columns_of
from ....core.process.bus_metrics import BusMetrics
from ....core.service import Service
from ....core.tenancy.tenants import LOCAL
from ....ext.constants import REPORTED, SEEN, UNCOUNTED
from ....ext.fleet_state import consumers_on_rows
from ....placement.types.errors import HostlerError, InUse, UnknownName
from ....placement.types.host import Host
from ....placement.types.host_report import HostReport
from ..source.databases import SourceFailed
from .follower import Changes, Follower
from .lost_claims import SEEK_SECONDS, LostClaims

log = logging.getLogger("hostler.nova")

CHUNK: Final = 200
"""Hosts of one report, so that calls have their turns between them."""
CLAIM_SECONDS: Final = 86_400.0
"""After which claims that no report has had are released, though Nova may not be done with their guests. A compute
begins with a guest, and is named as its host, as late as its other builds (max_concurrent_builds) or its absence have
it."""
GONE: Final = "its compute node is gone"
_NOT_OF_THE_HOST: Final = (DeadlineExceeded, NotLeader, Overloaded, Stopped, StorageFailed)
"""Errors for which the service, and not a host's report, is the reason."""


class Following:
    """Follows the databases in the event loop. `note_all`, `note_aggregates` and `note_host` have it look at once."""

    def __init__(self, service: Service, follower: Follower, metrics: BusMetrics) -> None:
        self._service, self._follower, self._metrics = service, follower, metrics
        self._wake = trio.Event()
        self._stale: set[str] = set()
        self._look_at_all = True
        self._compare = self._look_at_aggregates = False
        self._gone: set[str] = set()
        """Nodes that are gone, of which the service was not told."""
        self._failing: set[str] = set()
        self._aggregates: set[str] = set()
        """Uuids of the aggregates that hosts were in, for as long as the service has them."""
        self._reader = trio.CapacityLimiter(1)
        self.claims = LostClaims(lambda: service.state, self._unplaced, self._unmoved, self._submit)
        self.newest = 0
        """The newest version of a nova-compute service at the last look."""

    def note_all(self) -> None:
        """Cells, or anything else changed: look at everything."""
        self._look_at_all = True
        self._wake.set()

    def note_aggregates(self) -> None:
        """Aggregates changed."""
        self._look_at_aggregates = True
        self._wake.set()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._follower.close()

    def note_host(self, host: str) -> None:
        """Instances of a service host came or went."""
        self._stale.add(host)
        self._wake.set()

    async def run(self, *, poll_seconds: float, full_seconds: float) -> None:
        """Look for changes every ``poll_seconds``, and compare all rows every ``full_seconds``, until cancelled."""
        full, sought = trio.current_time() + full_seconds, trio.current_time()
        while True:
            with trio.move_on_after(poll_seconds):
                await self._wake.wait()
            self._wake = trio.Event()
            if trio.current_time() >= full:
                self._compare, full = True, trio.current_time() + full_seconds
            try:
                await self.look()
                if trio.current_time() - sought >= SEEK_SECONDS:
                    sought = trio.current_time()
                    self._metrics.released_claims(await self.claims.release())
                self._tell("", None)
            except HostlerError as error:
                self._tell("", error)
                await trio.sleep(poll_seconds)
            except Exception:  # calls are answered from the state as it was
                log.exception("a look at the databases failed in an unexpected way")
                self._metrics.look_failed()
                await trio.sleep(poll_seconds)

    async def look(self) -> None:
        """Bring the state to what Nova's databases say. What was not taken in is read again the next time. HostlerError
        if nothing could be read, or the service takes nothing in."""
        (stale, self._stale), (full, self._look_at_all) = (self._stale, set()), (self._look_at_all, False)
        (aggregates, self._look_at_aggregates), (compared, self._compare) = (
            (self._look_at_aggregates, False),
            (self._compare, False),
        )
        if compared:
            stale |= self._with_claims()
        work = partial(
            self._follower.look,
            now=self._service.clock(),
            full=full,
            compared=compared,
            aggregates=aggregates,
            stale=frozenset(stale),
        )
        try:
            changes: Changes = await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._reader)
        except SourceFailed:
            self._stale |= stale
            self._look_at_all |= full
            self._compare |= compared
            self._look_at_aggregates |= aggregates
            raise
        except BaseException:
            self._look_at_all = True  # rows of some cells may be known now
            raise
        if self._gone:
            self._gone -= {host.nodename for host in changes.hosts}  # all that are there: it is a look at everything
            changes.gone += sorted(self._gone.difference(changes.gone))
        try:
            await self._take_in(changes)
        except BaseException:
            self._look_at_all = True  # the rows are known now, so that only a look at everything reports them
            self._gone |= set(changes.gone)
            raise
        self._gone.clear()
        self._tell_cells(changes)
        self.newest = changes.newest

    async def _unplaced(self, uuids: list[str]) -> list[str]:
        """Of ``uuids`` those of instances that Nova is done with."""
        work = partial(self._follower.unplaced, uuids)
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._reader)

    async def _unmoved(self, nodes: dict[str, str]) -> list[str]:
        """Of instances, by uuid with the node that each was to come to, those that Nova does not move any longer."""
        work = partial(self._follower.unmoved, nodes)
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._reader)

    def _with_claims(self) -> set[str]:
        """Service hosts with claims that no report has had yet: theirs run out by reports. O(consumers)."""
        fleet = self._service.state.fleet
        where = np.flatnonzero(fleet.is_host[: fleet.rows]).astype(np.int32)
        _, positions, _, flags = consumers_on_rows(fleet._kernel, where)
        waiting = np.unique(positions[flags & (REPORTED | SEEN | UNCOUNTED) == 0])
        return {fleet._service_host(row) for row in where[waiting].tolist()}

    async def _take_in(self, changes: Changes) -> None:
        await self._learn_aggregates()
        for start in range(0, len(changes.hosts), CHUNK):
            await self._report(changes.hosts[start : start + CHUNK])
        known = self._service.state.fleet._names
        heard = tuple(name for name in changes.heard if known.find(name) >= 0)
        if heard:
            await self._submit(Heartbeats(names=heard))
        for name in changes.gone:
            if known.find(name) >= 0:
                await self._submit(SetService(name=name, disabled=True, disabled_reason=GONE))
        await self._forget_aggregates()

    async def _learn_aggregates(self) -> None:
        """Bring known aggregates to the names and metadata that Nova has."""
        mine = self._follower.aggregates.values()
        for aggregate in {each.uuid: each for some in mine for each in some}.values():
            try:
                known = self._service.state.fleet.aggregate(aggregate.uuid)
            except UnknownName:
                continue
            if known != aggregate:
                await self._submit(UpdateAggregate(aggregate=aggregate))

    async def _forget_aggregates(self) -> None:
        """Remove the aggregates that Nova has no longer, or no hosts in; one that a host is still in later."""
        there = {each.uuid for some in self._follower.aggregates.values() for each in some}
        self._aggregates |= there
        for uuid in sorted(self._aggregates - there):
            try:
                await self._submit(RemoveAggregate(uuid=uuid))
            except InUse:
                continue
            except UnknownName:
                log.debug("aggregate %s was removed by others", uuid)
            self._aggregates.discard(uuid)

    async def _report(self, hosts: Sequence[Host]) -> None:
        """Have hosts be as they report themselves; one that cannot be is said, and left as it was."""
        now = self._service.now()
        given = self._with_inventories(hosts)
        try:
            reports = columns_of(HostReport(host=host, at=now, service=host.service) for host in given)
            await self._submit(msgspec.structs.replace(reports, claim_timeout=CLAIM_SECONDS))
        except _NOT_OF_THE_HOST:
            raise
        except HostlerError as error:
            if len(hosts) > 1:
                for host in hosts:
                    await self._report((host,))
            else:
                log.warning("compute node %s is left as it was: %s", hosts[0].nodename, error)

    def _with_inventories(self, hosts: Sequence[Host]) -> Sequence[Host]:
        """Figures of a class that nova-compute keeps no inventory of in Placement are no inventory: VCPU where all CPUs
        are dedicated, DISK_GB on a shared disk."""
        store, find = self._service.state.fleet._store, self._service.state.fleet._names.find
        known = np.array([find(host.nodename) for host in hosts])
        rows = np.flatnonzero(known >= 0)  # of hosts
        rows = rows[store.row["updated"][known[rows]] > 0]
        lacking = store.inventory["total"][:3, known[rows]] <= 0
        if not lacking.any():
            return hosts
        given = list(hosts)
        for index, (vcpu, memory_mb, disk_gb) in zip(rows.tolist(), lacking.T.tolist(), strict=True):
            if vcpu and not memory_mb:
                given[index] = dataclasses.replace(given[index], vcpus_total=0)
            if disk_gb:
                given[index] = dataclasses.replace(given[index], total_usable_disk_gb=0)
        return given

    async def _submit(self, command: Any) -> Any:
        service = self._service
        return await service.writer.submit(Order(service.now(), LOCAL, command))

    def _tell_cells(self, changes: Changes) -> None:
        """Count what was read, and log which cells are not followed, once each."""
        for cell in changes.read:
            self._metrics.looked(cell)
            self._tell(cell, None)
        for error in changes.failed:
            self._tell(error.field or "", error)
        if self._follower.api not in {error.field for error in changes.failed}:
            self._tell(self._follower.api, None)
        self._metrics.has_cells(self._follower.cells)

    def _tell(self, what: str, error: HostlerError | None) -> None:
        """Log a failure that is new, or is over. ``what``: a cell, empty for all."""
        name = what or "the cloud"
        if error is not None:
            self._metrics.look_failed()
            if what not in self._failing:
                log.error("the state of %s is not followed: %s", name, error)
            self._failing.add(what)
        elif what in self._failing:
            log.info("the state of %s is followed again", name)
            self._failing.discard(what)


__all__ = ["Following"]
