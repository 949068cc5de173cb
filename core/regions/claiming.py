"""Claims in regions: each is on record before a region is asked, so that a parent that dies goes on where it was, and
nothing is claimed twice. The claim itself is the region's: there is no transaction over several of them."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, HostlerError, InvalidValue
from ..engine_commands import Asked
from ..errors import KeyReused, RegionsUnavailable
from ..machine.region_claims import Leftover, RegionClaim, RegionGuest, normal_request
from ..region_commands import (
    AcrossGuest,
    BeginRegionGroup,
    ClaimInRegion,
    ForgetRegionLeftover,
    PlacedAcross,
    SettleRegionClaim,
    SettleRegionGroup,
)
from ..rpc.client import ConnectionLost
from ..service import Service
from ..tenancy.tenants import LOCAL
from .choice import Wish, ordered, room, stripped, wish_of
from .link import Link, Links
from .options import CascadeOptions
from .recording import REFUSALS, Recorder, for_caller, may_be_done
from .releasing import Releasing, key_in

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

    def __init__(self, service: Service, links: Links, options: CascadeOptions) -> None:
        self._service, self._links, self._options = service, links, options
        self.recorder = Recorder(service)
        self.under_way: set[str] = set()
        """Claims, groups and releases that a task sees through."""
        self.releasing = Releasing(service, links, self.recorder, self.under_way)
        self.hopeful = 0
        """Refusals of regions that had room by their summaries."""

    # one request

    async def place(self, call: Call, request: Asked, *, group: str = "", without: Sequence[str] = ()) -> Decision:
        """Place one request in the best region that takes it, ``without`` some. Raises what the parent's rights and
        quotas refuse, RegionsUnavailable, and the error of the region that was asked last."""
        if isinstance(request.server_group, str):
            hint = "use place_across for guests in different regions"
            raise InvalidValue("a parent of regions keeps no server groups", field="server_group", hint=hint)
        uuids = request.instance_uuids or (str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),)
        request = normal_request(msgspec.structs.replace(request, instance_uuids=uuids))
        spec = self._service.state.spec_of(request)
        wish = wish_of(spec, len(uuids))
        order = [each for each in self._order(wish) if each not in without]
        kept = msgspec.structs.replace(request, spec=msgspec.Raw(self._service.state.kept_spec(request)))
        before = self._claimed_before(kept)
        if before is not None:
            return await self._placed_before(before, kept)
        if not order:
            raise RegionsUnavailable("no region that might take the request answers", hint="see hostler regions")
        name = secrets.token_hex(8)
        key, fingerprint = call.key, call.fingerprint
        self.under_way.add(name)
        try:
            await self.recorder.begin(
                ClaimInRegion(id=name, region=order[0], request=kept, key=key, fingerprint=fingerprint, group=group),
                call.user,
            )
            return await self._see_through(name, wish, order)
        finally:
            self.under_way.discard(name)

    def _claimed_before(self, request: Asked) -> RegionGuest | None:
        """A guest of the request, if this parent's own parent has had all of them placed under the same claim."""
        guests = self._service.state.region_claims.guests
        found = [guests.get(each) for each in request.instance_uuids] if request.claim else []
        first = found[0] if found else None
        whose = request.claim, request.project_id
        if first is None or any(each is None or (each.above, each.project_id) != whose for each in found):
            return None
        return first

    async def _placed_before(self, guest: RegionGuest, request: Asked) -> Decision:
        """The decision on guests that were placed before, from their region, which knows the claim."""
        link = self._link(guest.region)
        try:
            decision: Decision = await link.call("place", {"request": self.for_region(request, link, guest.claim)})
        except HostlerError as error:
            raise for_caller(error, guest.region) from error
        return decision

    async def resume(self, claim: RegionClaim) -> Decision:
        """See a claim through that another process has begun. Errors as ``place``'s."""
        more: list[str] = []
        wish = Wish(0, 0, len(claim.request.instance_uuids))
        try:
            wish = wish_of(self._service.state.spec_of(claim.request), len(claim.request.instance_uuids))
            more = [each for each in self._order(wish) if each != claim.region and each not in claim.tried]
        except HostlerError as error:
            log.warning("claim %s is not given to other regions than %s: %s", claim.id, claim.region, error)
        return await self._see_through(claim.id, wish, [claim.region, *more])

    def _order(self, wish: Wish) -> list[str]:
        """UnknownName and InvalidValue for a wish that no configured region can fulfil; empty if none that can
        answers."""
        options, known = self._options, [link.known for link in self._links.values()]
        order = ordered(known, wish, options.policy, attempts=options.attempts, doubtful=options.doubtful)
        return [each for each in order if not self._links[each].suspended]

    async def _see_through(self, name: str, wish: Wish, order: Sequence[str]) -> Decision:
        """Ask regions in order, the first of which is on record, until one takes the claim; settle it."""
        unsure = False
        last: Decision | HostlerError | None = None
        for position, region in enumerate(order):
            request = self._service.state.region_claims.claims[name].request
            if position:
                await self.recorder.go_on(ClaimInRegion(id=name, region=region, request=request, unsure=unsure))
            found = await self._ask(region, request, name, wish)
            unsure = isinstance(found, HostlerError) and may_be_done(found)
            if isinstance(found, Decision) and found.placed:
                placed: Decision = await self._settled(name, found)
                return placed
            if last is None or not unsure:
                last = found
            if isinstance(found, _SAME_EVERYWHERE) and not unsure:
                break
        if isinstance(last, Decision):
            settled: Decision = await self._settled(name, last, unsure=unsure)
            return settled
        await self._settled(name, None, unsure=unsure)
        if isinstance(last, REFUSALS) and not may_be_done(last):
            raise last
        log.info("no region has answered claim %s: %s", name, last)
        raise RegionsUnavailable("no region that might take the request has answered", hint="see hostler regions")

    async def _settled(self, name: str, decision: Decision | None, *, unsure: bool = False) -> Any:
        claims = self._service.state.region_claims.claims
        claim = claims[name]
        command = SettleRegionClaim(
            id=name, decision=decision, unsure=unsure, user=claim.user, project=claim.request.project_id
        )
        key = claim.key if decision is not None else None
        answer = await self.recorder.go_on(command, key=key, fingerprint=claim.fingerprint)
        if name in claims:  # the key had an answer already, which was given instead
            answer = await self.recorder.go_on(command)
        return answer

    async def _ask(self, region: str, request: Asked, claim: str, wish: Wish) -> Decision | HostlerError:
        """What a region answers; a repetition gets the same. The link learns how far its summary can be trusted."""
        link = self._links.find(region)
        if link is None:
            gone = ConnectionLost(f"region {region} is not configured any more")
            gone.maybe_done = True
            return gone
        promised = self._promised(link, wish)
        link.asked += 1
        since = link.summaries
        try:
            decision: Decision = await link.call(
                "place", {"request": self.for_region(request, link, claim)}, key=key_in(region, claim)
            )
        except HostlerError as error:
            if may_be_done(error):
                link.unanswered += 1
                link.broke_its_word()
            else:
                link.refused += 1
                judged = isinstance(error, REFUSALS) and not isinstance(error, (DuplicateName, *_SAME_EVERYWHERE))
                self._note_refusal(link, promised and judged)
            return error
        if decision.placed:
            link.took(wish.vcpus * wish.guests, wish.memory_mb * wish.guests, since)
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

    def for_region(self, request: Asked, link: Link, claim: str = "") -> Asked:
        """The request as the region gets it: without the hints that were for this parent, under this parent's own
        claim."""
        spec = self._service.state.spec_of(request)
        of_regions = link.summary is not None and link.summary.of_regions
        hints = stripped(spec.scheduler_hints, link.name, of_regions=of_regions)
        request = msgspec.structs.replace(request, claim=claim)
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
            await self.recorder.begin(BeginRegionGroup(id=name, key=call.key, fingerprint=call.fingerprint), LOCAL)
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
            outcome = PlacedAcross(guests) if refusal is None else PlacedAcross(refusal=refusal)
            return await self._end_group(name, outcome)
        finally:
            self.under_way.discard(name)

    async def give_up_group(self, name: str) -> PlacedAcross:
        """End a group that no task sees through: nothing of it stays."""
        refusal = "the service stopped in between, and has released what was placed"
        return await self._end_group(name, PlacedAcross(refusal=refusal))

    async def _end_group(self, name: str, outcome: PlacedAcross) -> PlacedAcross:
        """Settle a group. Where it is refused, what was placed for it is released first, however long that takes; its
        claims that are still on record become leftovers."""
        claims = self._service.state.region_claims
        group = claims.groups[name]
        if not outcome.placed:
            await self.releasing.surely(group.guests)
        command = SettleRegionGroup(id=name, outcome=outcome)
        answer = await self.recorder.go_on(command, key=group.key, fingerprint=group.fingerprint)
        if name in claims.groups:  # the key had an answer already, which was given instead
            answer = await self.recorder.go_on(command)
        return outcome if answer is None else answer

    def _link(self, region: str) -> Link:
        return self.releasing.link(region)

    # leftovers

    async def resolve(self, leftover: Leftover) -> None:
        """Find out what a region has claimed by asking it the same once more, and release what is of this claim; forget
        the leftover. HostlerError where it is not known yet."""
        link = self._links.find(leftover.region)
        if link is None:
            log.warning(
                "region %s is not configured any more: what it may hold of claim %s (%s) is not released",
                leftover.region,
                leftover.claim,
                ", ".join(leftover.request.instance_uuids[:10]),
            )
        elif await self._may_hold(leftover, link):
            await self.releasing.of_claim(link, leftover.request.instance_uuids, leftover.claim)
        await self.recorder.go_on(ForgetRegionLeftover(id=leftover.id))

    async def _may_hold(self, leftover: Leftover, link: Link) -> bool:
        """False once the region has refused for good. HostlerError for an answer that says nothing of the first
        attempt."""
        request = self.for_region(leftover.request, link, leftover.claim)
        try:
            decision: Decision = await link.call(
                "place", {"request": request}, key=key_in(leftover.region, leftover.claim)
            )
        except (*REFUSALS, KeyReused) as error:
            if error.maybe_done:
                raise
            return True  # of what it was asked first, or of this: it is asked for the claim's own
        return decision.placed
