"""A parent of regions: takes over the calls that concern guests, and sees to it that what was begun ends, whichever
process has begun it."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
import trio

from ...placement.decide.fits import Fit
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, InvalidValue
from ...placement.types.moves import PendingMove
from ..engine_commands import Asked, Place, Placed, PlaceMany, Release, Spawned
from ..errors import NotLeader, RegionsUnavailable
from ..machine.orders import Order
from ..machine.queries import CapacityOf, Fits, Instance
from ..machine.region_claims import Leftover
from ..machine.region_queries import RegionLine, RegionOf
from ..machine.region_summary import RegionSummary, merged
from ..region_commands import PlaceAcross, RecordRegionCall
from ..service import Identity, Service
from ..tasks import in_thread
from ..tenancy.rights import check_request_of_reader, project_scope
from ..writer.idempotent_answers import check_fingerprint
from .calls import Asking, is_handed, is_refused, normalised
from .claiming import Call, Claiming
from .jobs import Job, Jobs, Pauses
from .link import Link, Links
from .options import CascadeOptions, RegionOptions
from .recording import REFUSALS, for_caller
from .releasing import LONGEST_RETRY, RETRY_SECONDS, short

FIRST_SECONDS: Final = 5.0
"""For regions to be connected, before what they were asked for by a process that has ended is given to others."""
AT_A_TIME: Final = 16
"""Requests of one ``place_many`` that are placed at a time."""

RESOLVED_AT_A_TIME: Final = 64
"""Leftovers of one region that it is asked for at a time."""
MOST_LEFTOVERS: Final = 10_000
"""Of one region: with so many it is given no more claims until it has answered for some of these."""

log = logging.getLogger("hostler.regions")


class Begun(NamedTuple):
    """What is on record: its id, the caller's key, how to go on, and the region that was asked last (empty: none)."""

    name: str
    key: str | None
    fingerprint: bytes
    work: Callable[[], Awaitable[Any]]
    region: str = ""


class Cascade:
    """The regions of one parent. ``run`` while the parent takes commands."""

    def __init__(self, service: Service, regions: Mapping[str, RegionOptions], options: CascadeOptions) -> None:
        """InvalidValue for a token or a file that is missing."""
        self._service, self._options = service, options
        self._version = 0
        self.links = Links(
            {name: Link(name, each, options.ask_seconds, self._changed) for name, each in regions.items()}
        )
        self.name = secrets.token_hex(8)
        """By which this parent is known in summaries."""
        for link in self.links.values():
            link.parent = self.name
        self.claiming = Claiming(service, self.links, options)
        self._nursery: trio.Nursery | None = None
        self._failures = service.writer.failures
        self._jobs, self._pauses = Jobs(self._failures), Pauses(RETRY_SECONDS, LONGEST_RETRY)
        self._resolved = Pauses(RETRY_SECONDS, LONGEST_RETRY)
        self._resolving: set[str] = set()
        """Leftovers of which it is being found out what became of them."""
        self._busy: Counter[str] = Counter()
        """How many of these, by region."""

    def _changed(self) -> None:
        self._version += 1

    async def read_again(self) -> Callable[[], None]:
        """Read the files of tokens and authorities as they are now; what is returned takes them into use for new
        connections. InvalidValue if one of them cannot be used."""
        read = [await in_thread(link.read_again) for link in self.links.values()]

        def take() -> None:
            for each in read:
                each()

        return take

    # what it says of itself

    def summary(self) -> RegionSummary:
        """All regions that answer, as one."""
        return merged(
            self._version,
            [link.summary for link in self.links.values() if link.alive and link.summary is not None],
            self.name,
        )

    def lines(self) -> list[RegionLine]:
        """The regions in the order of the configuration."""
        guests = self._service.state.region_claims.index.guests
        return [
            self._line(link, sum(guests[each] for each in (link.name, *link.options.formerly)))
            for link in self.links.values()
        ]

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
        return is_handed(type(call)) or is_refused(type(call))

    def require_running(self) -> None:
        """NotLeader, or why else, unless this process is the one that asks the regions."""
        self._running()

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            refusal = self._service.writer.refusal()
            raise refusal if refusal is not None else NotLeader("this service is not ready yet")
        return self._nursery

    def check_key(self, key: str, fingerprint: bytes) -> None:
        """KeyReused for the key of a call that is under way, if that is another one."""
        self._jobs.check(key, fingerprint)

    async def carry_out(
        self, identity: Identity, method: str, call: Any, key: str | None = None, fingerprint: bytes = b""
    ) -> Any:
        """The answer to a call, which is seen through even if the caller is gone. HostlerError."""
        service = self._service
        if is_refused(type(call)):
            service.user(identity)
            raise InvalidValue(f"{method} is not for a parent of regions", field="method", hint="ask the region")
        call = normalised(call)
        if isinstance(call, Asking):
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
        nursery = self._running()
        job = None if whole_key is None else self._found(nursery, whole_key, fingerprint)
        if job is None:
            work = partial(self._do, Call(user, whole_key, fingerprint), method, call)
            self._jobs.require_place(user)
            job = self._jobs.begin(nursery, method, work, whole_key, fingerprint, user)
        return await job.outcome()

    def _found(self, nursery: trio.Nursery, key: str, fingerprint: bytes) -> Job | None:
        """What is being done for a key, or was begun by a process that has ended, which is taken up now. KeyReused if
        that is another call."""
        job = self._jobs.get(key, fingerprint)
        if job is None:
            for name in self._service.state.region_claims.index.of_key(key):
                begun = self._begun(name)
                if begun is not None:
                    check_fingerprint(key, begun.fingerprint, fingerprint)
                    if name not in self.claiming.under_way:
                        self._take_up(nursery, begun)
            job = self._jobs.get(key, fingerprint)
        return job

    async def _do(self, call: Call, method: str, command: Any) -> Any:
        match command:
            case Place(request=request):
                return await self.claiming.place(call, request)
            case PlaceMany():
                return await self._place_many(call, command)
            case PlaceAcross(requests=requests, spread=spread):
                return await self.claiming.place_across(call, requests, spread=spread)
            case Release(uuids=uuids, claim=claim):
                return await self.claiming.releasing.release(call.user, uuids, claim, call.key, call.fingerprint)
            case Spawned(uuids=uuids):
                for region, mine in self.claiming.releasing.by_region(uuids).items():
                    await self._asked(region, method, {"uuids": mine})
                return await self._recorded(call, RecordRegionCall(method=method, uuids=uuids, user=call.user))
        return await self._on_guest(call, method, command)

    async def _recorded(self, call: Call, command: RecordRegionCall) -> Any:
        """Have the answer of regions kept by the call's key. HostlerError."""
        return await self.claiming.recorder.go_on(command, key=call.key, fingerprint=call.fingerprint)

    async def _place_many(self, call: Call, command: PlaceMany) -> Placed:
        """One after the other, some at a time; a refusal does not stop the rest. KeyReused for the key of another call
        that a process has begun which has ended."""
        count = len(command.requests)
        for number in range(count if call.key is not None else 0):
            self._service.writer.answered(f"{call.key}\0{number}", call.fingerprint)
        hosts: list[str | None] = [None] * count
        uuids, refusals, removed = [""] * count, dict[int, tuple[str, str]](), Counter[str]()
        refused_by, left = Counter[str](), iter(range(count))

        async def place(number: int) -> None:
            key = None if call.key is None else f"{call.key}\0{number}"
            try:
                decision = await self._place_one(Call(call.user, key, call.fingerprint), command.requests[number])
            except HostlerError as error:
                refusals[number] = (error.code, str(error))
                return
            if decision.placed:
                hosts[number], uuids[number] = decision.selections[0].host, decision.selections[0].instance_uuid
            elif decision.refusal is not None:
                refusals[number] = ("no_valid_host", decision.refusal.sentence)

        async def place_those_left() -> None:
            for number in left:
                await place(number)

        async with trio.open_nursery() as nursery:
            for _ in range(min(count, AT_A_TIME)):
                nursery.start_soon(place_those_left)
        placed = Placed(
            sequence=self._service.writer.sequence,
            hosts=hosts,
            instance_uuids=uuids,
            refusals=dict(sorted(refusals.items())),
            refused_by=dict(refused_by),
            removed=dict(removed),
        )
        if call.key is None:
            return placed
        kept: Placed = await self._recorded(call, RecordRegionCall(method="place_many", placed=placed, user=call.user))
        return kept

    async def _place_one(self, call: Call, request: Asked) -> Decision:
        """One of many: its answer if it has one, else what was begun for it, else a new claim."""
        if call.key is not None:
            known = self._service.writer.answered(call.key, call.fingerprint)
            if known is not None and known[0] is not None:
                decision: Decision = known[0]
                return decision
            job = self._found(self._running(), call.key, call.fingerprint)
            if job is not None:
                decision = await job.outcome()
                return decision
        return await self.claiming.place(call, request)

    async def _on_guest(self, call: Call, method: str, command: Any) -> Any:
        if getattr(command, "request", None) is not None:
            raise InvalidValue(
                "a guest in a region is moved as it is", field="request", hint="ask the region to resize"
            )
        region = self._service.state.region_claims.guest(command.uuid).region
        values = msgspec.structs.asdict(command)
        key = None if call.key is None else f"{short(call.key)}@{region}"
        answer = await self._asked(region, method, values, key=key)
        record = RecordRegionCall(
            method=method,
            uuids=(command.uuid,),
            decision=answer if isinstance(answer, Decision) else None,
            move=answer if isinstance(answer, PendingMove) else None,
            user=call.user,
        )
        return await self._recorded(call, record)

    async def _asked(self, region: str, method: str, params: Any, *, key: str | None = None) -> Any:
        """What a region answers to a caller's call. HostlerError, such as callers may see."""
        link = self.claiming.releasing.link(region)
        try:
            return await link.call(method, params, key=key)
        except HostlerError as error:
            raise for_caller(error, region) from error

    # questions

    async def _ask(self, identity: Identity, query: Asking) -> Any:
        """Rights are judged here, on the parent's tenants; regions answer the parent's own user."""
        service = self._service
        match query:
            case Instance(uuid=uuid):
                line = service.ask(identity, RegionOf(uuid=uuid))
                self.require_running()
                return await self._asked(line.region, "instance", {"uuid": uuid})
            case Fits(request=request, limit=limit):
                user = service.admit_question(identity, query)
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
        """The answers of all regions that give one. If none does: the refusal of one, RegionsUnavailable where none has
        judged the question."""
        self.require_running()
        answers, refusals = list[Any](), list[HostlerError]()

        async def ask(link: Link) -> None:
            try:
                answers.append(await link.call(method, params(link)))
            except HostlerError as error:
                log.info("region %s did not answer %s: %s", link.name, method, error)
                if isinstance(error, REFUSALS):
                    refusals.append(error)

        async with trio.open_nursery() as nursery:
            for link in self.links.values():
                if link.alive:
                    nursery.start_soon(ask, link)
        if answers:
            return answers
        if refusals:
            raise refusals[0]
        raise RegionsUnavailable(f"no region has answered {method}", hint="see hostler regions")

    # the task

    async def run(self) -> None:
        """Keep up with the regions, and see through what is on record, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for link in self.links.values():
                    nursery.start_soon(self._failures.keep_running, f"region {link.name}", link.run)
                began = trio.current_time()
                while True:
                    self._go_on(nursery, early=trio.current_time() - began < FIRST_SECONDS)
                    self._resolve_leftovers(nursery)
                    await trio.sleep(RETRY_SECONDS)
            finally:
                self._nursery = None

    def _begun(self, name: str) -> Begun | None:
        """What is on record under an id, and how to go on; None for claims of groups, which go on with these."""
        claims, claiming = self._service.state.region_claims, self.claiming
        if (claim := claims.claims.get(name)) is not None:
            if claim.group:
                return None
            return Begun(name, claim.key, claim.fingerprint, partial(claiming.resume, claim), claim.region)
        if (group := claims.groups.get(name)) is not None:
            return Begun(name, group.key, group.fingerprint, partial(claiming.give_up_group, name))
        if (release := claims.releases.get(name)) is not None:
            return Begun(name, release.key, release.fingerprint, partial(claiming.releasing.go_on, name))
        return None

    def _go_on(self, nursery: trio.Nursery, *, early: bool) -> None:
        """Take up what is on record and no task sees through; ``early``: only where the region that was asked
        answers."""
        claims = self._service.state.region_claims
        names = [*claims.claims, *claims.groups, *claims.releases]
        self._pauses.keep(set(names))
        for name in names:
            if name in self.claiming.under_way or not self._pauses.is_due(name):
                continue
            begun = self._begun(name)
            if begun is None:
                continue
            asked = self.links.find(begun.region)
            if not (early and asked is not None and not asked.alive):
                self._take_up(nursery, begun)

    def _take_up(self, nursery: trio.Nursery, begun: Begun) -> None:
        """Go on with what no task sees through: its caller may ask again with its key."""
        name = begun.name
        self.claiming.under_way.add(name)

        async def go_on() -> Any:
            try:
                return await begun.work()
            except Exception:
                self._pauses.failed(name)
                raise
            finally:
                self.claiming.under_way.discard(name)

        self._jobs.begin(nursery, f"what was begun as {name}", go_on, begun.key, begun.fingerprint)

    def _resolve_leftovers(self, nursery: trio.Nursery) -> None:
        """Begin to find out what became of leftovers that are due, some of each region at a time."""
        leftovers = self._service.state.region_claims.leftovers
        counts = self._service.state.region_claims.index.leftovers
        for link in self.links.values():
            link.suspend(sum(counts[each] for each in (link.name, *link.options.formerly)) >= MOST_LEFTOVERS)
        self._resolved.keep(set(leftovers))
        for leftover in leftovers.values():
            busy = leftover.id in self._resolving or self._busy[leftover.region] >= RESOLVED_AT_A_TIME
            if not busy and self._resolved.is_due(leftover.id):
                self._resolving.add(leftover.id)
                self._busy[leftover.region] += 1
                nursery.start_soon(self._resolve, leftover)

    async def _resolve(self, leftover: Leftover) -> None:
        try:
            await self.claiming.resolve(leftover)
        except HostlerError as error:
            log.info("what region %s may have claimed is not known yet: %s", leftover.region, error)
            self._resolved.failed(leftover.id)
        except Exception as error:  # it stays on record, and is tried again
            self._failures.counts["regions"] += 1
            log.exception("what region %s may have claimed is not known yet: %r", leftover.region, error)
            self._resolved.failed(leftover.id)
        finally:
            self._busy[leftover.region] -= 1
            self._resolving.discard(leftover.id)


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
