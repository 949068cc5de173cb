"""A parent of regions: takes over the calls that concern guests, and sees to it that what was begun ends, whichever
process has begun it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import trio

from ...placement.decide.fits import Fit
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, InvalidValue
from ..engine_commands import (
    AddHosts,
    AddServerGroup,
    Asked,
    BeginMove,
    ConfirmHold,
    ConfirmMove,
    Hold,
    Move,
    Place,
    Placed,
    PlaceMany,
    Release,
    ReportHosts,
    Resize,
    RevertMove,
    Spawned,
)
from ..errors import DeadlineExceeded, NotLeader, RegionsUnavailable
from ..lifecycle_commands import CreateGuest
from ..machine.orders import Order
from ..machine.queries import Capacity, CapacityOf, Fits, Instance
from ..machine.region_claims import Leftover, RegionClaim
from ..machine.region_queries import RegionLine, RegionOf
from ..machine.region_summary import RegionSummary, merged
from ..region_commands import PlaceAcross, PlacedAcross, SettleRegionClaim, SettleRegionGroup
from ..rpc.client import ConnectionLost
from ..service import Identity, Service
from ..tenancy.rights import check_request_of_reader, project_scope
from ..tenancy.tenants import LOCAL
from .claiming import LONGEST_RETRY, RETRY_SECONDS, Call, Claiming
from .link import Link
from .options import CascadeOptions, RegionOptions

FIRST_SECONDS: Final = 5.0
"""For regions to be connected, before what they were asked for by a process that has ended is given to others."""
AT_A_TIME: Final = 16
"""Requests of one ``place_many`` that are placed at a time."""
_ON_GUEST: Final = (Move, BeginMove, ConfirmMove, RevertMove)
_TAKEN: Final = (Place, PlaceMany, PlaceAcross, Release, Spawned, *_ON_GUEST, Instance, Fits, Capacity)
_NOT_HERE: Final = (AddHosts, ReportHosts, Hold, ConfirmHold, CreateGuest, Resize, AddServerGroup)

log = logging.getLogger("hostler.regions")


class _Job:
    """What is being done for a call; several may wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: Any = None
        self.error: HostlerError | None = None

    async def outcome(self) -> Any:
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


class Cascade:
    """The regions of one parent. ``run`` while the parent takes commands."""

    def __init__(self, service: Service, regions: Mapping[str, RegionOptions], options: CascadeOptions) -> None:
        """InvalidValue for a token or a file that is missing."""
        self._service, self._options = service, options
        self._version = 0
        self.links = {name: Link(name, each, options.ask_seconds, self._changed) for name, each in regions.items()}
        self.claiming = Claiming(service, self.links, options)
        self._nursery: trio.Nursery | None = None
        self._jobs: dict[str, _Job] = {}

    def _changed(self) -> None:
        self._version += 1

    # what it says of itself

    def summary(self) -> RegionSummary:
        """All regions that answer, as one."""
        return merged(
            self._version,
            [link.summary for link in self.links.values() if link.alive and link.summary is not None],
        )

    def lines(self) -> list[RegionLine]:
        """The regions in the order of the configuration."""
        guests = Counter(each.region for each in self._service.state.region_claims.guests.values())
        return [self._line(link, guests[link.name]) for link in self.links.values()]

    @staticmethod
    def _line(link: Link, guests: int) -> RegionLine:
        areas = link.summary.areas if link.summary is not None else ()
        return RegionLine(
            name=link.name,
            alive=link.alive,
            problem=link.problem,
            last=link.options.last,
            price=link.options.price,
            summary_age_ms=None if link.age is None else round(1_000 * link.age, 1),
            hosts=sum(each.hosts for each in areas),
            free_vcpus=sum(each.free_vcpus for each in areas),
            free_memory_mb=sum(each.free_memory_mb for each in areas),
            free_disk_gb=sum(each.free_disk_gb for each in areas),
            guests=guests,
            asked=link.asked,
            placed=link.placed,
            refused=link.refused,
            unanswered=link.unanswered,
            summaries=link.summaries,
        )

    @property
    def leftovers(self) -> int:
        """What regions may have claimed, and is to be released."""
        return len(self._service.state.region_claims.leftovers)

    # calls

    def takes(self, call: Any) -> bool:
        """True for commands and questions that are not the parent's own to answer."""
        return isinstance(call, (*_TAKEN, *_NOT_HERE))

    async def carry_out(
        self, identity: Identity, method: str, call: Any, key: str | None = None, fingerprint: bytes = b""
    ) -> Any:
        """The answer to a call, which is seen through even if the caller is gone. HostlerError."""
        service = self._service
        if isinstance(call, _NOT_HERE):
            raise InvalidValue(f"{method} is not for a parent of regions", field="method", hint="ask the region")
        if isinstance(call, Instance | Fits | Capacity):
            return await self._ask(identity, call)
        user = service.admit(identity, call)
        service.machine.check(Order(service.now(), user, call))
        whole_key = None if key is None else service.key_of(identity, user, key)
        if whole_key is not None:
            known = service.writer.answered(whole_key, fingerprint)
            if known is not None:
                result, error = known
                if error is not None:
                    raise error
                return result
        if self._nursery is None:
            refusal = service.writer.refusal()
            raise refusal if refusal is not None else NotLeader("this service is not ready yet")
        job = self._found(self._nursery, whole_key)
        if job is None:
            work = partial(self._do, Call(user, whole_key, fingerprint), method, call)
            job = self._begin(self._nursery, whole_key, work)
        return await job.outcome()

    def _found(self, nursery: trio.Nursery, key: str | None) -> _Job | None:
        """What is being done for a key, or was begun by a process that has ended, which is taken up now."""
        if key is None:
            return None
        if key not in self._jobs:
            claims = self._service.state.region_claims
            for claim in claims.claims.values():
                if claim.key == key and claim.id not in self.claiming.under_way:
                    self._take_up(nursery, claim)
                    break
            for name, group in claims.groups.items():
                if group.key == key and name not in self.claiming.under_way:
                    self._begin_giving_up(nursery, name, key)
                    break
        return self._jobs.get(key)

    def _begin(self, nursery: trio.Nursery, key: str | None, work: Callable[[], Awaitable[Any]]) -> _Job:
        job = _Job()
        if key is not None:
            self._jobs[key] = job
        nursery.start_soon(self._run_job, job, key, work)
        return job

    async def _run_job(self, job: _Job, key: str | None, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            job.result = await work()
        except HostlerError as error:
            job.error = error
        except trio.Cancelled:
            job.error = NotLeader("this service has stopped taking commands", hint="ask again with the same key")
            raise
        finally:
            if key is not None:
                self._jobs.pop(key, None)
            job.done.set()

    async def _do(self, call: Call, method: str, command: Any) -> Any:
        match command:
            case Place(request=request):
                return await self.claiming.place(call, request)
            case PlaceMany():
                return await self._place_many(call, command)
            case PlaceAcross(requests=requests, spread=spread):
                return await self.claiming.place_across(call, requests, spread=spread)
            case Release(uuids=uuids):
                return await self._release(call, uuids)
            case Spawned(uuids=uuids):
                for region, mine in self._by_region(uuids).items():
                    await self.links[region].call(method, {"uuids": mine})
                return None
        return await self._on_guest(call, method, command)

    async def _place_many(self, call: Call, command: PlaceMany) -> Placed:
        """One after the other, some at a time; a refusal does not stop the rest."""
        count = len(command.requests)
        hosts: list[str | None] = [None] * count
        uuids, refusals, removed = [""] * count, dict[int, tuple[str, str]](), Counter[str]()
        refused_by, turns = Counter[str](), trio.CapacityLimiter(AT_A_TIME)

        async def place(number: int) -> None:
            key = None if call.key is None else f"{call.key}\0{number}"
            async with turns:
                try:
                    decision = await self._place_one(Call(call.user, key, call.fingerprint), command.requests[number])
                except HostlerError as error:
                    refusals[number] = (error.code, str(error))
                    return
            if decision.placed:
                hosts[number], uuids[number] = decision.selections[0].host, decision.selections[0].instance_uuid
            elif decision.refusal is not None:
                refusals[number] = ("no_valid_host", decision.refusal.sentence)

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(place, number)
        return Placed(
            sequence=self._service.writer.sequence,
            hosts=hosts,
            instance_uuids=uuids,
            refusals=dict(sorted(refusals.items())),
            refused_by=dict(refused_by),
            removed=dict(removed),
        )

    async def _place_one(self, call: Call, request: Asked) -> Decision:
        """One of many: its answer if it has one, else what was begun for it, else a new claim."""
        if call.key is not None:
            known = self._service.writer.answered(call.key, call.fingerprint)
            if known is not None and known[0] is not None:
                decision: Decision = known[0]
                return decision
            assert self._nursery is not None, "jobs run in it"
            job = self._found(self._nursery, call.key)
            if job is not None:
                decision = await job.outcome()
                return decision
        return await self.claiming.place(call, request)

    async def _release(self, call: Call, uuids: Sequence[str]) -> int:
        """In each region all or none, and in all that answer. The error of one that does not is raised at the end: a
        repetition names what is left."""
        count, failed = 0, list[HostlerError]()
        for region, mine in self._by_region(uuids).items():
            try:
                count += await self.claiming.release_in(region, mine, key=call.key)
            except HostlerError as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return count

    async def _on_guest(self, call: Call, method: str, command: Any) -> Any:
        if getattr(command, "request", None) is not None:
            raise InvalidValue(
                "a guest in a region is moved as it is", field="request", hint="ask the region to resize"
            )
        region = self._service.state.region_claims.guest(command.uuid).region
        values = msgspec.structs.asdict(command)
        return await self._link(region).call(method, values, key=None if call.key is None else f"{call.key}@{region}")

    def _by_region(self, uuids: Sequence[str]) -> dict[str, list[str]]:
        """UnknownName if one of them is in no region, or the region is not configured."""
        found: dict[str, list[str]] = {}
        for uuid in uuids:
            region = self._service.state.region_claims.guest(uuid).region
            found.setdefault(self._link(region).name, []).append(uuid)
        return found

    def _link(self, region: str) -> Link:
        return self.claiming._link(region)

    # questions

    async def _ask(self, identity: Identity, query: Instance | Fits | Capacity) -> Any:
        """Rights are judged here, on the parent's tenants; regions answer the parent's own user."""
        service = self._service
        user = service.user(identity)
        match query:
            case Instance(uuid=uuid):
                line = service.ask(identity, RegionOf(uuid=uuid))
                return await self._link(line.region).call("instance", {"uuid": uuid})
            case Fits(request=request, limit=limit):
                service.state.tenants.require(user, "reader", project_scope(request.project_id))
                check_request_of_reader(service.state.tenants, user, request, service.state)
                found: list[Fit] = await self._ask_all(
                    "fits", lambda link: {"request": self.claiming.for_region(request, link)}
                )
                count = sum(each.count for each in found)
                return Fit(count if limit is None else min(count, limit), {})
        service.ask(identity, query)  # who may
        return _added(await self._ask_all("capacity", lambda link: {}))

    async def _ask_all(self, method: str, params: Callable[[Link], Any]) -> list[Any]:
        """The answers of all regions that answer. RegionsUnavailable where none does."""
        answers: list[Any] = []

        async def ask(link: Link) -> None:
            try:
                answers.append(await link.call(method, params(link)))
            except (ConnectionLost, DeadlineExceeded) as error:
                log.info("region %s did not answer %s: %s", link.name, method, error)

        async with trio.open_nursery() as nursery:
            for link in self.links.values():
                if link.alive:
                    nursery.start_soon(ask, link)
        if not answers:
            raise RegionsUnavailable(f"no region has answered {method}", hint="see hostler regions")
        return answers

    # the task

    async def run(self) -> None:
        """Keep up with the regions, and see through what is on record, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for link in self.links.values():
                    nursery.start_soon(link.run)
                resolving: set[str] = set()
                began = trio.current_time()
                while True:
                    claims = self._service.state.region_claims
                    for claim in [*claims.claims.values()]:
                        asked = self.links.get(claim.region)
                        early = trio.current_time() - began < FIRST_SECONDS and asked is not None and not asked.alive
                        if claim.id not in self.claiming.under_way and not claim.group and not early:
                            self._take_up(nursery, claim)
                    for name, group in [*claims.groups.items()]:
                        if name not in self.claiming.under_way:
                            self._begin_giving_up(nursery, name, group.key)
                    for leftover in [each for each in claims.leftovers.values() if each.id not in resolving]:
                        resolving.add(leftover.id)
                        nursery.start_soon(self._resolve, leftover, resolving)
                    await trio.sleep(RETRY_SECONDS)
            finally:
                self._nursery = None

    def _take_up(self, nursery: trio.Nursery, claim: RegionClaim) -> None:
        """Go on with a claim that no task sees through: its caller may ask again with its key."""
        self.claiming.under_way.add(claim.id)

        async def resume() -> Any:
            try:
                return await self.claiming.resume(claim)
            finally:
                self.claiming.under_way.discard(claim.id)

        self._begin(nursery, claim.key, resume)

    def _begin_giving_up(self, nursery: trio.Nursery, name: str, key: str | None) -> None:
        self.claiming.under_way.add(name)
        self._begin(nursery, key, partial(self._give_up_group, name))

    async def _give_up_group(self, name: str) -> Any:
        """Release what a group that no task sees through has claimed; its answer. Errors as the writer's."""
        claiming, claims = self.claiming, self._service.state.region_claims
        try:
            for claim in [each for each in claims.claims.values() if each.group == name]:
                await self._service.writer.submit(self._order(SettleRegionClaim(id=claim.id, unsure=True)))
            await claiming.compensate(name)
            outcome = PlacedAcross(refusal="the service stopped in between, and has released what was placed")
            group = claims.groups[name]
            return await self._service.writer.submit(
                self._order(SettleRegionGroup(id=name, outcome=outcome)), key=group.key, fingerprint=group.fingerprint
            )
        except HostlerError as error:
            log.warning("a group is not released yet: %s", error)
            raise
        finally:
            claiming.under_way.discard(name)

    def _order(self, command: Any) -> Order:
        return Order(self._service.now(), LOCAL, command)

    async def _resolve(self, leftover: Leftover, resolving: set[str]) -> None:
        pause = RETRY_SECONDS
        try:
            while True:
                try:
                    await self.claiming.resolve(leftover)
                    return
                except HostlerError as error:
                    log.info("what region %s may have claimed is not known yet: %s", leftover.region, error)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY)
        finally:
            resolving.discard(leftover.id)


def _added(answers: Sequence[Mapping[str, CapacityOf]]) -> dict[str, CapacityOf]:
    """Capacities of several regions as one; the fragmentation is weighed by what is free."""
    found: dict[str, CapacityOf] = {}
    for answer in answers:
        for name, each in answer.items():
            known = found.get(name)
            if known is None:
                found[name] = each
                continue
            free = [max(one.total - one.used, 0) for one in (known, each)]
            scraps = free[0] * known.fragmentation + free[1] * each.fragmentation
            fragmentation = scraps / sum(free) if any(free) else 0.0
            found[name] = CapacityOf(known.total + each.total, known.used + each.used, fragmentation)
    return found
