"""Releases in regions: on record until every region has answered, so that what was begun ends, and a repetition gets
the same answer."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import trio

from ...placement.types.errors import HostlerError, UnknownName
from ..errors import RegionsUnavailable
from ..machine.region_claims import RegionClaims
from ..region_commands import BeginRegionRelease, ForgetRegionGuests, SettleRegionRelease
from ..service import Service
from ..tenancy.tenants import CLOUD, RANK
from .link import Link, Links
from .recording import Recorder

RETRY_SECONDS: Final = 0.5
LONGEST_RETRY: Final = 30.0

log = logging.getLogger("hostler.regions")


class Releasing:
    """Has regions release guests."""

    def __init__(self, service: Service, links: Links, recorder: Recorder, under_way: set[str]) -> None:
        self._service, self._links, self._recorder, self._under_way = service, links, recorder, under_way

    @property
    def _claims(self) -> RegionClaims:
        return self._service.state.region_claims

    def link(self, region: str) -> Link:
        """UnknownName if a region is not configured."""
        link = self._links.find(region)
        if link is None:
            hint = "it is not in [regions] of the configuration any more, nor a name in formerly of another one"
            raise UnknownName(f"region {region} is not known", field="region", hint=hint)
        return link

    def by_region(self, uuids: Iterable[str], above: str = "", *, removed: bool = False) -> dict[str, list[str]]:
        """Guests by their regions. UnknownName if one of them is in no region or, but for ``removed``, in one that is
        not configured, or if this parent's parent has placed it under another claim than ``above`` (empty: under
        any)."""
        found: dict[str, list[str]] = {}
        for uuid in uuids:
            guest = self._claims.guest(uuid)
            if above and guest.above != above:
                raise UnknownName(f"no consumer {uuid} of claim {above}", field="uuids")
            known = self._links.find(guest.region) if removed else self.link(guest.region)
            found.setdefault(guest.region if known is None else known.name, []).append(uuid)
        return found

    async def release(
        self, user: str, uuids: Sequence[str], above: str, key: str | None = None, fingerprint: bytes = b""
    ) -> int:
        """Release guests of a user; how many there were. RegionsUnavailable where a region does not answer: the release
        stays on record, and is gone on with. A cloud admin releases what is in regions that are not configured any
        more, too: from this parent's records."""
        tenants = self._service.state.tenants
        self.by_region(uuids, above, removed=tenants.role(user, CLOUD) >= RANK["cloud_admin"])  # says if there is none
        name = secrets.token_hex(8)
        self._under_way.add(name)
        try:
            command = BeginRegionRelease(id=name, uuids=tuple(uuids), key=key, fingerprint=fingerprint)
            await self._recorder.begin(command, user)
            return await self.go_on(name)
        finally:
            self._under_way.discard(name)

    async def go_on(self, name: str) -> int:
        """Release what is left of a release that is on record, once. RegionsUnavailable as for ``release``."""
        record, failed = self._claims.releases[name], list[HostlerError]()
        left: dict[str, list[str]] = {}
        for uuid in record.left:
            guest = self._claims.guests.get(uuid)
            left.setdefault("" if guest is None else guest.region, []).append(uuid)

        async def release(region: str, uuids: Sequence[str]) -> None:
            try:
                await self.release_in(region, uuids, name=name, user=record.user)
            except HostlerError as error:
                log.info("region %s has not released %d instances yet: %s", region, len(uuids), error)
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for region, uuids in left.items():
                nursery.start_soon(release, region, uuids)
        if failed:
            text = f"{len(record.left)} instances are not released yet, which goes on: a region has not answered"
            error = RegionsUnavailable(text, field="uuids", hint="ask again with the same idempotency key")
            error.maybe_done = True
            raise error
        command = SettleRegionRelease(id=name, user=record.user)
        count: int = await self._recorder.go_on(command, key=record.key, fingerprint=record.fingerprint)
        if name in self._claims.releases:  # the key had an answer already, which was given instead
            count = await self._recorder.go_on(command)
        return count

    async def surely(self, uuids: Iterable[str]) -> None:
        """Release guests, however long that takes; of each what is of its claim, as the uuid may be another guest's by
        the time that a region is asked again."""
        by_claim: dict[tuple[str, str], list[str]] = {}
        for uuid in uuids:
            guest = self._claims.guests.get(uuid)
            if guest is not None:
                by_claim.setdefault((guest.region, guest.claim), []).append(uuid)
        async with trio.open_nursery() as nursery:
            for (region, claim), mine in by_claim.items():
                nursery.start_soon(self._surely_in, region, claim, mine)

    async def _surely_in(self, region: str, claim: str, uuids: Sequence[str]) -> None:
        pause = RETRY_SECONDS
        while True:
            try:
                await self.release_in(region, uuids, claim=claim)
                return
            except HostlerError as error:
                log.warning("what region %s has claimed for a group is not released yet: %s", region, error)
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY)

    async def release_in(
        self, region: str, uuids: Sequence[str], *, name: str = "", user: str = "", claim: str = ""
    ) -> None:
        """Release guests in their region (empty: they are in none any more), and forget them; those that are not there
        any more too. ``name``: of the release that is on record; ``claim``: only what is of it. HostlerError."""
        link = self._links.find(region)
        if link is None and region:
            log.warning(
                "region %s is not configured any more: what it may hold of %d instances (%s) is not released",
                region,
                len(uuids),
                ", ".join(uuids[:10]),
            )
        elif link is not None:
            key = key_in(region, f"{name}-{short(','.join(uuids))}") if name else None
            await self._call(link, uuids, claim=claim, key=key)
            known = [guest for guest in map(self._claims.guests.get, uuids) if guest is not None]
            held = [guest.amounts for guest in known if claim in ("", guest.claim)]
            cpus = sum(each.get("VCPU", 0) + each.get("PCPU", 0) for each in held)
            link.gave_back(cpus, sum(each.get("MEMORY_MB", 0) for each in held))
        await self._recorder.go_on(ForgetRegionGuests(uuids=tuple(uuids), release=name, user=user, claim=claim))

    async def of_claim(self, link: Link, uuids: Sequence[str], claim: str) -> None:
        """Release what a region holds of a claim of this parent, and nothing of others. HostlerError."""
        await self._call(link, uuids, claim=claim)

    @staticmethod
    async def _call(link: Link, uuids: Sequence[str], *, claim: str = "", key: str | None = None) -> None:
        """All at once, or those that are there one by one."""
        params = {"claim": claim} if claim else {}
        try:
            await link.call("release", {"uuids": list(uuids), **params}, key=key)
        except UnknownName:
            for each in uuids if len(uuids) > 1 else ():
                try:
                    await link.call("release", {"uuids": [each], **params})
                except UnknownName:
                    continue


def key_in(region: str, name: str) -> str:
    """The key by which a region knows a claim or a release when it is asked again."""
    return f"{name}@{region}"


def short(key: str) -> str:
    """A caller's key as part of one for a region: no longer than a key may be."""
    return blake2b(key.encode(), digest_size=16).hexdigest()
