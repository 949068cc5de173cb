"""Which region each guest of a parent is in, what regions are being asked for, and the commands that change it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...placement.types.decision import Decision
from ...placement.types.errors import DuplicateName, InvalidValue, UnknownName
from ...placement.types.request import Flavor
from ..engine_commands import Asked
from ..region_commands import (
    BeginRegionGroup,
    ClaimInRegion,
    ForgetRegionGuests,
    ForgetRegionLeftover,
    PlaceAcross,
    RegionCommand,
    SettleRegionClaim,
    SettleRegionGroup,
)
from ..tenancy.tenants import Tenants
from ..tenancy.usage import INSTANCES, Usage


class RegionGuest(msgspec.Struct, array_like=True, frozen=True):
    """A guest in a region; ``amounts``: what it counts against its project's limits."""

    region: str
    project_id: str
    amounts: dict[str, int]


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


class RegionClaims(msgspec.Struct):
    """All of a parent's guests, claims, leftovers and groups, by uuid or id."""

    guests: dict[str, RegionGuest] = {}
    claims: dict[str, RegionClaim] = {}
    leftovers: dict[str, Leftover] = {}
    groups: dict[str, RegionGroup] = {}
    made: int = 0
    """Leftovers so far, by which they are named."""

    def guest(self, uuid: str) -> RegionGuest:
        """A guest. UnknownName if it is in no region."""
        known = self.guests.get(uuid)
        if known is None:
            raise UnknownName(f"no instance {uuid[:40]} is in a region", field="uuid")
        return known

    def count(self, tenants: Tenants, usage: Usage) -> None:
        """Count all guests and claims as used by their projects. O(guests)."""
        for guest in self.guests.values():
            usage.add(tenants, guest.project_id, guest.amounts)
        for claim in self.claims.values():
            usage.add(tenants, claim.request.project_id, claim.amounts)

    def change(self, tenants: Tenants, usage: Usage, command: RegionCommand, flavor: Flavor | None) -> Any:
        """Carry out a command. HostlerError, with nothing changed, if it is refused. ``flavor``: of the request in
        ClaimInRegion."""
        match command:
            case ClaimInRegion():
                assert flavor is not None
                return self._claim(tenants, usage, command, flavor)
            case SettleRegionClaim():
                return self._settle(tenants, usage, command)
            case ForgetRegionGuests(uuids=uuids):
                return self._forget(tenants, usage, uuids)
            case ForgetRegionLeftover(id=name):
                self.leftovers.pop(name, None)
                return None
            case BeginRegionGroup(id=name, key=key, fingerprint=fingerprint):
                self.groups[name] = RegionGroup(key, fingerprint)
                return None
            case SettleRegionGroup(id=name, outcome=outcome):
                self.groups.pop(name, None)
                return outcome
            case PlaceAcross():
                hint = "name them in [regions] of the configuration"
                raise InvalidValue("this service has no regions", field="regions", hint=hint)
        raise InvalidValue(f"{type(command).__name__} is unknown", field="command")

    def _claim(self, tenants: Tenants, usage: Usage, command: ClaimInRegion, flavor: Flavor) -> None:
        known, request = self.claims.get(command.id), command.request
        if known is not None:
            if command.unsure:
                self._leave(known)
            self.claims[known.id] = msgspec.structs.replace(
                known, region=command.region, tried=(*known.tried, known.region)
            )
            return
        if not request.instance_uuids:
            raise InvalidValue("a claim in a region names its instances", field="instance_uuids")
        for uuid in request.instance_uuids:
            if uuid in self.guests or any(uuid in each.request.instance_uuids for each in self.claims.values()):
                raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")
        amounts = amounts_of(flavor, len(request.instance_uuids))
        usage.check(tenants, request.project_id, amounts)
        usage.add(tenants, request.project_id, amounts)
        key, fingerprint, group = command.key, command.fingerprint, command.group
        self.claims[command.id] = RegionClaim(command.id, command.region, request, amounts, key, fingerprint, group)

    def _leave(self, claim: RegionClaim) -> None:
        self.made += 1
        name = f"{claim.id}-{self.made}"
        self.leftovers[name] = Leftover(name, claim.id, claim.region, claim.request)

    def _settle(self, tenants: Tenants, usage: Usage, command: SettleRegionClaim) -> Decision | None:
        claim = self.claims.pop(command.id, None)
        if claim is None:
            raise UnknownName(f"there is no claim {command.id}", field="id")
        if command.unsure:
            self._leave(claim)
        uuids, decision = claim.request.instance_uuids, command.decision
        if decision is None or not decision.placed:
            usage.add(tenants, claim.request.project_id, claim.amounts, -1)
            return decision
        each = {name: amount // len(uuids) for name, amount in claim.amounts.items()}
        for uuid in uuids:
            self.guests[uuid] = RegionGuest(claim.region, claim.request.project_id, each)
        if claim.group in self.groups:
            self.groups[claim.group].guests += uuids
        return decision

    def _forget(self, tenants: Tenants, usage: Usage, uuids: Sequence[str]) -> int:
        gone = 0
        for uuid in uuids:
            guest = self.guests.pop(uuid, None)
            if guest is not None:
                usage.add(tenants, guest.project_id, guest.amounts, -1)
                gone += 1
        return gone

    def projects(self, uuids: Iterable[str]) -> dict[str, str]:
        """Projects of those that are in regions."""
        return {uuid: self.guests[uuid].project_id for uuid in uuids if uuid in self.guests}


def amounts_of(flavor: Flavor, count: int) -> dict[str, int]:
    """What guests of a flavor count against limits: instances, VCPU, MEMORY_MB (MiB) and DISK_GB (GiB)."""
    disk_gb = flavor.root_gb + flavor.ephemeral_gb + -(-flavor.swap // 1_024)
    amounts = {"VCPU": flavor.vcpus, "MEMORY_MB": flavor.memory_mb, "DISK_GB": disk_gb}
    return {INSTANCES: count, **{name: count * amount for name, amount in amounts.items() if amount}}
