"""Claims in regions: each is on record before a region is asked, so that a parent that dies goes on where it was, and
nothing is claimed twice. The claim itself is the region's: there is no transaction over several of them."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import trio

from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName
from ..engine_commands import Asked
from ..errors import DeadlineExceeded, InternalError, LeadershipLost, RegionsUnavailable
from ..machine.orders import AnyCommand, Order
from ..machine.region_claims import Leftover, RegionClaim
from ..region_commands import (
    AcrossGuest,
    BeginRegionGroup,
    ClaimInRegion,
    ForgetRegionGuests,
    ForgetRegionLeftover,
    PlacedAcross,
    SettleRegionClaim,
    SettleRegionGroup,
)
from ..rpc.client import ConnectionLost
from ..service import Service
from ..tenancy.tenants import LOCAL
from .choice import Wish, ordered, room, stripped, wish_of
from .link import Link
from .options import CascadeOptions

RETRY_SECONDS: Final = 0.5
LONGEST_RETRY: Final = 30.0
_UNSURE: Final = (ConnectionLost, DeadlineExceeded, LeadershipLost, InternalError)
"""After these a region may have done what it was asked for."""
_SAME_EVERYWHERE: Final = (InvalidValue,)
"""A request that is malformed in one region is so in the others."""

log = logging.getLogger("hostler.regions")


class Call:
    """Who calls, and the key by which the answer is kept: the writer's, or None."""

    __slots__ = ("fingerprint", "key", "user")

    def __init__(self, user: str, key: str | None = None, fingerprint: bytes = b"") -> None:
        self.user, self.key, self.fingerprint = user, key, fingerprint


class Claiming:
    """Asks regions to claim, and to release what must not stay."""

    def __init__(self, service: Service, links: Mapping[str, Link], options: CascadeOptions) -> None:
        self._service, self._links, self._options = service, links, options
        self.under_way: set[str] = set()
        """Claims and groups that a task sees through."""
        self.hopeful = 0
        """Refusals of regions that had room by their summaries."""

    async def _submit(
        self, command: AnyCommand, user: str = LOCAL, *, key: str | None = None, fingerprint: bytes = b""
    ) -> Any:
        order = Order(self._service.now(), user, command)
        return await self._service.writer.submit(order, key=key, fingerprint=fingerprint)

    # one request

    async def place(self, call: Call, request: Asked, *, group: str = "", without: Sequence[str] = ()) -> Decision:
        """Place one request in the best region that takes it, ``without`` some. Raises what the parent's rights and
        quotas refuse, RegionsUnavailable, and the error of the region that was asked last."""
        if isinstance(request.server_group, str):
            hint = "use place_across for guests in different regions"
            raise InvalidValue("a parent of regions keeps no server groups", field="server_group", hint=hint)
        uuids = request.instance_uuids or (str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),)
        request = msgspec.structs.replace(request, instance_uuids=uuids)
        spec = self._service.state.spec_of(request)
        wish = wish_of(spec, len(uuids))
        order = [each for each in self._order(wish) if each not in without]
        if not order:
            raise RegionsUnavailable("no region that might take the request answers", hint="see hostler regions")
        name = secrets.token_hex(8)
        kept = msgspec.structs.replace(request, spec=msgspec.Raw(self._service.state.kept_spec(request)))
        key, fingerprint = call.key, call.fingerprint
        self.under_way.add(name)
        try:
            await self._submit(
                ClaimInRegion(id=name, region=order[0], request=kept, key=key, fingerprint=fingerprint, group=group),
                call.user,
            )
            return await self._see_through(name, wish, order)
        finally:
            self.under_way.discard(name)

    async def resume(self, claim: RegionClaim) -> Decision:
        """See a claim through that another process has begun. Errors as ``place``'s."""
        wish = wish_of(self._service.state.spec_of(claim.request), len(claim.request.instance_uuids))
        more = [each for each in self._order(wish) if each != claim.region and each not in claim.tried]
        return await self._see_through(claim.id, wish, [claim.region, *more])

    def _order(self, wish: Wish) -> list[str]:
        known = [link.known for link in self._links.values() if link.alive or link.name in wish.regions]
        if not known:
            return []
        missing = [each for each in wish.regions if each not in self._links]
        if missing:
            raise UnknownName.among("region", missing[0], self._links, field="spec.scheduler_hints.region")
        options = self._options
        return ordered(known, wish, options.policy, attempts=options.attempts, doubtful=options.doubtful)

    async def _see_through(self, name: str, wish: Wish, order: Sequence[str]) -> Decision:
        """Ask regions in order, the first of which is on record, until one takes the claim; settle it."""
        unsure = False
        last: Decision | HostlerError | None = None
        for position, region in enumerate(order):
            claim = self._service.state.region_claims.claims[name]
            if position:
                await self._submit(ClaimInRegion(id=name, region=region, request=claim.request, unsure=unsure))
            link = self._links.get(region)
            found = await self._ask(link, claim.request, name, wish) if link is not None else None
            unsure = isinstance(found, _UNSURE)
            if isinstance(found, Decision) and found.placed:
                return await self._settled(name, found)
            if found is not None and not (unsure and last is not None):
                last = found
            if isinstance(found, _SAME_EVERYWHERE):
                break
        if isinstance(last, Decision) and not unsure:
            return await self._settled(name, last)
        if isinstance(last, Decision):
            claim = self._service.state.region_claims.claims[name]
            answer: Decision = await self._submit(
                SettleRegionClaim(id=name, decision=last, unsure=True), key=claim.key, fingerprint=claim.fingerprint
            )
            return answer
        await self._submit(SettleRegionClaim(id=name, unsure=unsure))
        if last is None or isinstance(last, _UNSURE):
            problem = "no region that might take the request has answered"
            raise RegionsUnavailable(f"{problem}: {last}" if last is not None else problem, hint="see hostler regions")
        raise last

    async def _settled(self, name: str, decision: Decision) -> Decision:
        claim = self._service.state.region_claims.claims[name]
        answer: Decision = await self._submit(
            SettleRegionClaim(id=name, decision=decision), key=claim.key, fingerprint=claim.fingerprint
        )
        return answer

    async def _ask(self, link: Link, request: Asked, claim: str, wish: Wish) -> Decision | HostlerError:
        """What a region answers; a repetition gets the same. The link learns how far its summary can be trusted."""
        promised = self._promised(link, wish)
        link.asked += 1
        try:
            decision: Decision = await link.call(
                "place", {"request": self.for_region(request, link)}, key=key_in(link.name, claim)
            )
        except DuplicateName as error:
            # The region has forgotten the key: these are the claim's own guests, or another's of the same uuid.
            link.refused += 1
            return error
        except HostlerError as error:
            if isinstance(error, _UNSURE):
                link.unanswered += 1
                link.broke_its_word()
            else:
                link.refused += 1
                self._note_refusal(link, promised and not isinstance(error, _SAME_EVERYWHERE))
            return error
        if decision.placed:
            link.took(wish.vcpus * wish.guests, wish.memory_mb * wish.guests)
        else:
            link.refused += 1
            self._note_refusal(link, promised)
        return decision

    def _note_refusal(self, link: Link, promised: bool) -> None:
        """A region has refused, what its summary has promised or not."""
        if promised:
            self.hopeful += 1
            link.broke_its_word()

    @staticmethod
    def _promised(link: Link, wish: Wish) -> bool:
        known = link.known
        return known.summary is not None and room(known.summary, wish, known.claimed)[0] >= wish.guests

    def for_region(self, request: Asked, link: Link) -> Asked:
        """The request as the region gets it: without the hints that were for this parent."""
        spec = self._service.state.spec_of(request)
        of_regions = link.summary is not None and link.summary.of_regions
        hints = stripped(spec.scheduler_hints, link.name, of_regions=of_regions)
        if hints == dict(spec.scheduler_hints):
            return request
        value: dict[str, Any] = msgspec.msgpack.decode(request.spec)
        value["scheduler_hints"] = hints
        return msgspec.structs.replace(request, spec=msgspec.Raw(msgspec.msgpack.encode(value)))

    # several requests, all or nothing

    async def place_across(self, call: Call, requests: Sequence[Asked], *, spread: bool) -> PlacedAcross:
        """Place all requests, or none; with ``spread`` each in a region of its own."""
        name, used, guests = secrets.token_hex(8), list[str](), list[AcrossGuest]()
        refusal: str | None = None
        self.under_way.add(name)
        try:
            await self._submit(BeginRegionGroup(id=name, key=call.key, fingerprint=call.fingerprint))
            for request in requests:
                try:
                    decision = await self.place(Call(call.user), request, group=name, without=used if spread else ())
                except HostlerError as error:
                    refusal = f"{error.code}: {error}"
                    break
                if not decision.placed:
                    assert decision.refusal is not None
                    refusal = f"no_valid_host: {decision.refusal.sentence}"
                    break
                for each in decision.selections:
                    region = self._service.state.region_claims.guest(each.instance_uuid).region
                    used.append(region)
                    guests.append(AcrossGuest(each.instance_uuid, region, each.host))
            if refusal is not None:
                await self.compensate(name)
            outcome = PlacedAcross(guests) if refusal is None else PlacedAcross(refusal=refusal)
            answer: PlacedAcross = await self._submit(
                SettleRegionGroup(id=name, outcome=outcome), key=call.key, fingerprint=call.fingerprint
            )
            return answer
        finally:
            self.under_way.discard(name)

    async def compensate(self, group: str) -> None:
        """Release what was placed for a group, however long that takes."""
        known = self._service.state.region_claims.groups.get(group)
        by_region: dict[str, list[str]] = {}
        for guest in known.guests if known is not None else ():
            if guest in self._service.state.region_claims.guests:
                by_region.setdefault(self._service.state.region_claims.guests[guest].region, []).append(guest)
        async with trio.open_nursery() as nursery:
            for region, uuids in by_region.items():
                nursery.start_soon(self._release_surely, region, uuids)

    async def _release_surely(self, region: str, uuids: Sequence[str]) -> None:
        pause = RETRY_SECONDS
        while True:
            try:
                await self.release_in(region, uuids, key=None)
                return
            except HostlerError as error:
                log.warning("what region %s has claimed for a group is not released yet: %s", region, error)
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY)

    # release

    async def release_in(self, region: str, uuids: Sequence[str], *, key: str | None) -> int:
        """Release guests in their region, and forget them; those that are not there any more too. HostlerError."""
        link = self._link(region)
        try:
            await link.call("release", {"uuids": list(uuids)}, key=None if key is None else key_in(region, key))
        except UnknownName:
            for each in uuids if len(uuids) > 1 else ():
                try:
                    await link.call("release", {"uuids": [each]})
                except UnknownName:
                    continue
        guests = self._service.state.region_claims.guests
        held = [guests[uuid].amounts for uuid in uuids if uuid in guests]
        link.gave_back(*(sum(each.get(name, 0) for each in held) for name in ("VCPU", "MEMORY_MB")))
        count: int = await self._submit(ForgetRegionGuests(uuids=tuple(uuids)))
        return count

    def _link(self, region: str) -> Link:
        link = self._links.get(region)
        if link is None:
            hint = "it is not in [regions] of the configuration any more"
            raise UnknownName(f"region {region} is not known", field="region", hint=hint)
        return link

    # leftovers

    async def resolve(self, leftover: Leftover) -> None:
        """Find out what a region has claimed by asking it the same once more, and release that; forget the leftover.
        HostlerError where the region does not answer."""
        link = self._links.get(leftover.region)
        uuids = leftover.request.instance_uuids
        if link is not None:
            try:
                decision: Decision = await link.call(
                    "place",
                    {"request": self.for_region(leftover.request, link)},
                    key=key_in(leftover.region, leftover.claim),
                )
                there = decision.placed
            except DuplicateName:
                there = True
            except _UNSURE:
                raise
            except HostlerError:
                there = False
            if there and not self._is_in(leftover.region, uuids):
                try:
                    await link.call("release", {"uuids": list(uuids)})
                except UnknownName:
                    log.info("what region %s had claimed is released already", leftover.region)
        await self._submit(ForgetRegionLeftover(id=leftover.id))

    def _is_in(self, region: str, uuids: Sequence[str]) -> bool:
        guests = self._service.state.region_claims.guests
        return any(uuid in guests and guests[uuid].region == region for uuid in uuids)


def key_in(region: str, claim: str) -> str:
    """The key by which a region knows a claim when it is asked again."""
    return f"{claim}@{region}"
