"""Which region each guest of a parent is in, what regions are being asked for, and the commands that change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from ...ext.tables import format_uuid
from ...placement.request.placement_query import resources_of
from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, InvalidValue, UnknownName
from ...placement.types.request import Request, RequestSpec
from ...placement.types.validation import uuid_words
from ..engine_commands import Asked
from ..region_commands import (
    BeginRegionGroup,
    BeginRegionRelease,
    ClaimInRegion,
    ForgetRegionGuests,
    ForgetRegionLeftover,
    PlaceAcross,
    RecordRegionCall,
    RegionCommand,
    SettleRegionClaim,
    SettleRegionGroup,
    SettleRegionRelease,
)
from ..tenancy.tenants import Tenants
from ..tenancy.usage import INSTANCES, Usage
from .region_index import RegionIndex


class RegionGuest(msgspec.Struct, array_like=True, frozen=True):
    """A guest in a region; ``amounts``: what it counts against its project's limits."""

    region: str
    project_id: str
    amounts: dict[str, int]
    claim: str = ""
    """The id of the claim by which it was placed."""
    above: str = ""
    """The id of the claim of this parent's own parent, if that has asked for it."""


class RegionClaim(msgspec.Struct, array_like=True, frozen=True):
    """What ``region`` is being asked for, after the regions ``tried``."""

    id: str
    region: str
    request: Asked
    amounts: dict[str, int]
    key: str | None = None
    fingerprint: bytes = b""
    group: str = ""
    tried: tuple[str, ...] = ()
    user: str = ""


class Leftover(msgspec.Struct, array_like=True, frozen=True):
    """What ``region`` may have claimed, though the claim went to another one: it is to be released."""

    id: str
    claim: str
    region: str
    request: Asked


class RegionGroup(msgspec.Struct, array_like=True):
    """Requests that are being placed, all or nothing, and the guests that have been."""

    key: str | None = None
    fingerprint: bytes = b""
    guests: list[str] = []


class RegionRelease(msgspec.Struct, array_like=True):
    """Guests that are being released: those that are ``left``, and how many others were there."""

    left: dict[str, None]
    key: str | None = None
    fingerprint: bytes = b""
    user: str = ""
    count: int = 0


class RegionClaims(msgspec.Struct, dict=True):
    """All of a parent's guests, claims, leftovers, groups and releases, by uuid or id. Uuids are dashed and in lower
    case. ``index``: of them, made on first use."""

    guests: dict[str, RegionGuest] = {}
    claims: dict[str, RegionClaim] = {}
    leftovers: dict[str, Leftover] = {}
    groups: dict[str, RegionGroup] = {}
    made: int = 0
    """Leftovers so far, by which they are named."""
    releases: dict[str, RegionRelease] = {}

    @cached_property
    def index(self) -> RegionIndex:
        """O(guests x log guests + claims + leftovers) the first time."""
        made = RegionIndex()
        made.fill((uuid, guest.region, guest.project_id) for uuid, guest in self.guests.items())
        for claim in self.claims.values():
            made.claim(claim.id, claim.request.instance_uuids, claim.group, claim.key)
        for leftover in self.leftovers.values():
            made.leave(leftover.id, leftover.region, leftover.request.instance_uuids)
        for name, group in self.groups.items():
            made.begin(name, group.key)
        for name, release in self.releases.items():
            made.begin(name, release.key)
        return made

    def find(self, uuid: str) -> RegionGuest | None:
        """A guest, however its uuid is spelled; None if it is in no region. O(1)."""
        known = self.guests.get(uuid)
        if known is None:
            try:
                known = self.guests.get(normal(uuid))
            except InvalidValue:
                return None
        return known

    def guest(self, uuid: str) -> RegionGuest:
        """A guest. UnknownName if it is in no region."""
        known = self.find(uuid)
        if known is None:
            raise UnknownName(f"no instance {uuid[:40]} is in a region", field="uuid")
        return known

    def count(self, tenants: Tenants, usage: Usage) -> None:
        """Count all guests and claims as used by their projects. O(guests)."""
        for guest in self.guests.values():
            usage.add(tenants, guest.project_id, guest.amounts)
        for claim in self.claims.values():
            usage.add(tenants, claim.request.project_id, claim.amounts)

    def change(
        self, tenants: Tenants, usage: Usage, command: RegionCommand, user: str, amounts: Mapping[str, int]
    ) -> Any:
        """Carry out a command that a user has given. HostlerError, with nothing changed, if it is refused.
        ``amounts``: of the request in ClaimInRegion."""
        match command:
            case ClaimInRegion():
                return self._claim(tenants, usage, command, user, amounts)
            case SettleRegionClaim():
                return self._settle(tenants, usage, command)
            case BeginRegionRelease():
                return self._begin_release(command, user)
            case SettleRegionRelease(id=name):
                return self._settle_release(name)
            case ForgetRegionGuests():
                return self._forget(tenants, usage, command)
            case RecordRegionCall():
                return command.answer
            case ForgetRegionLeftover(id=name):
                self._forget_leftover(name)
                return None
            case BeginRegionGroup(id=name, key=key, fingerprint=fingerprint):
                self._end_group(name)
                self.index.begin(name, key)
                self.groups[name] = RegionGroup(key, fingerprint)
                return None
            case SettleRegionGroup(id=name, outcome=outcome):
                self._end_group(name)
                for claim in [self.claims[each] for each in self.index.of_group(name)]:
                    self._drop(tenants, usage, claim)
                    self._leave(claim)
                return outcome
            case PlaceAcross():
                hint = "name them in [regions] of the configuration"
                raise InvalidValue("this service has no regions", field="regions", hint=hint)
        raise InvalidValue(f"{type(command).__name__} is unknown", field="command")

    def _claim(
        self, tenants: Tenants, usage: Usage, command: ClaimInRegion, user: str, amounts: Mapping[str, int]
    ) -> None:
        known, request = self.claims.get(command.id), command.request
        if known is not None:
            if command.unsure:
                self._leave(known)
            self.claims[known.id] = msgspec.structs.replace(
                known, region=command.region, tried=(*known.tried, known.region)
            )
            return
        request = normal_request(request)
        self._check_free(request.instance_uuids)
        usage.check(tenants, request.project_id, amounts)
        usage.add(tenants, request.project_id, amounts)
        self.index.claim(command.id, request.instance_uuids, command.group, command.key)
        self.claims[command.id] = RegionClaim(
            command.id,
            command.region,
            request,
            dict(amounts),
            command.key,
            command.fingerprint,
            command.group,
            user=user,
        )

    def _check_free(self, uuids: Sequence[str]) -> None:
        """DuplicateName for a guest that is in a region, is being asked for, or may be left over. O(uuids)."""
        if not uuids:
            raise InvalidValue("a claim in a region names its instances", field="instance_uuids")
        index = self.index
        for uuid in uuids:
            if uuid in self.guests or uuid in index.claimed:
                raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")
            if uuid in index.left:
                region = next(iter(index.left[uuid].values()))
                problem = f"region {region} may still hold consumer {uuid}, which is released there"
                hint = "repeat this once the region answers, or give another uuid"
                raise DuplicateName(problem, field="instance_uuids", hint=hint)

    def _end_claim(self, claim: RegionClaim) -> None:
        del self.claims[claim.id]
        self.index.unclaim(claim.id, claim.request.instance_uuids, claim.group, claim.key)

    def _end_group(self, name: str) -> None:
        group = self.groups.pop(name, None)
        if group is not None:
            self.index.end(name, group.key)

    def _forget_leftover(self, name: str) -> None:
        leftover = self.leftovers.pop(name, None)
        if leftover is not None:
            self.index.forget(name, leftover.region, leftover.request.instance_uuids)

    def _drop(self, tenants: Tenants, usage: Usage, claim: RegionClaim) -> None:
        self._end_claim(claim)
        usage.add(tenants, claim.request.project_id, claim.amounts, -1)

    def _leave(self, claim: RegionClaim) -> None:
        self.made += 1
        name = f"{claim.id}-{self.made}"
        self.index.leave(name, claim.region, claim.request.instance_uuids)
        self.leftovers[name] = Leftover(name, claim.id, claim.region, claim.request)

    def _settle(self, tenants: Tenants, usage: Usage, command: SettleRegionClaim) -> Decision | None:
        claim = self.claims.get(command.id)
        if claim is None:
            raise UnknownName(f"there is no claim {command.id}", field="id")
        if command.unsure:
            self._leave(claim)
        uuids, decision = claim.request.instance_uuids, command.decision
        if decision is None or not decision.placed:
            self._drop(tenants, usage, claim)
            return decision
        self._end_claim(claim)
        each = {name: amount // len(uuids) for name, amount in claim.amounts.items()}
        request = claim.request
        for uuid in uuids:
            if (known := self.guests.get(uuid)) is not None:
                self.index.guest_gone(uuid, known.region, known.project_id)
            self.index.guest(uuid, claim.region, request.project_id)
            self.guests[uuid] = RegionGuest(claim.region, request.project_id, each, claim.id, request.claim)
        if claim.group in self.groups:
            self.groups[claim.group].guests += uuids
        return decision

    def _begin_release(self, command: BeginRegionRelease, user: str) -> None:
        uuids = dict.fromkeys(map(normal, command.uuids))
        for uuid in uuids:
            self.guest(uuid)  # which says if there is none
        if (known := self.releases.get(command.id)) is not None:
            self.index.end(command.id, known.key)
        self.index.begin(command.id, command.key)
        self.releases[command.id] = RegionRelease(uuids, command.key, command.fingerprint, user)

    def _settle_release(self, name: str) -> int:
        known = self.releases.pop(name, None)
        if known is None:
            raise UnknownName(f"there is no release {name}", field="id")
        self.index.end(name, known.key)
        return known.count

    def _forget(self, tenants: Tenants, usage: Usage, command: ForgetRegionGuests) -> int:
        gone, record = set[str](), self.releases.get(command.release)
        for uuid in command.uuids:
            guest = self.guests.get(uuid)
            if guest is not None and command.claim not in ("", guest.claim):
                continue  # another guest has the uuid by now
            if guest is not None:
                del self.guests[uuid]
                self.index.guest_gone(uuid, guest.region, guest.project_id)
                usage.add(tenants, guest.project_id, guest.amounts, -1)
                gone.add(uuid)
            if record is not None:
                record.left.pop(uuid, None)
        if gone:  # a guest that comes later under such a uuid is in no release that was on record before
            for other in self.releases.values():
                for uuid in gone & other.left.keys():
                    del other.left[uuid]
        if record is not None:
            record.count += len(gone)
        return len(gone)

    def projects(self, uuids: Iterable[str]) -> dict[str, str]:
        """Projects of those that are in regions."""
        return {uuid: self.guests[uuid].project_id for uuid in uuids if uuid in self.guests}


def normal(uuid: str) -> str:
    """A uuid dashed and in lower case. InvalidValue if it is none. O(1)."""
    return format_uuid(*uuid_words(uuid, "uuid"))


def normal_request(request: Asked) -> Asked:
    """A request whose instances are named by uuids as this service spells them. InvalidValue if one is none, or is
    there twice."""
    uuids = tuple(format_uuid(*uuid_words(each, "instance_uuids")) for each in request.instance_uuids)
    if len(set(uuids)) < len(uuids):
        raise InvalidValue("an instance is named twice", field="instance_uuids")
    return request if uuids == request.instance_uuids else msgspec.structs.replace(request, instance_uuids=uuids)


def amounts_of(spec: RequestSpec, count: int, release: str) -> dict[str, int]:
    """What so many guests of a spec count against limits: instances, and amounts by resource class as a release of
    Nova asks Placement for them. InvalidValue and UnknownName if flavor, image or requested resources are malformed."""
    found = resources_of(Request(spec=spec), release)
    return {INSTANCES: max(count, 1), **{name: max(count, 1) * amount for name, amount in found.items()}}
