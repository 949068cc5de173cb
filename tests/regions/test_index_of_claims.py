"""What a parent looks up of its claims is what a walk over all of them finds, whatever has been done to them."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from hostler.core.machine.region_claims import RegionClaims
from hostler.core.region_commands import (
    BeginRegionGroup,
    BeginRegionRelease,
    ClaimInRegion,
    ForgetRegionGuests,
    ForgetRegionLeftover,
    PlacedAcross,
    SettleRegionClaim,
    SettleRegionGroup,
    SettleRegionRelease,
)
from hostler.core.tenancy.tenants import LOCAL, Tenants
from hostler.core.tenancy.usage import Usage
from hostler.placement.types.decision import Decision
from hostler.placement.types.errors import HostlerError

from ..core.orders import asked, uuid_of
from ..seeds import seeds

REGIONS, KEYS, PROJECTS = ("eu", "us", "ap"), (None, "k1", "k2"), ("p", "p\U0010ffff", "")


def some_command(claims: RegionClaims, chance: random.Random) -> Any:
    name, key, uuids = f"n{chance.randrange(8)}", chance.choice(KEYS), [chance.randrange(12) for _ in range(2)]
    guests = tuple({uuid_of(each): None for each in uuids})
    request = asked(*set(uuids), project=chance.choice(PROJECTS))
    group, unsure = chance.choice(["", *claims.groups]), chance.random() < 0.5
    placed = Decision(sequence=1, request_id=None, considered=1, removed={})
    return chance.choice(
        [
            ClaimInRegion(name, chance.choice(REGIONS), request, unsure, key, b"", group),
            SettleRegionClaim(id=chance.choice([name, *claims.claims]), unsure=unsure),
            SettleRegionClaim(id=chance.choice([name, *claims.claims]), decision=placed, unsure=unsure),
            ForgetRegionGuests(uuids=guests, release=chance.choice(["", *claims.releases])),
            ForgetRegionLeftover(chance.choice(["x", *claims.leftovers])),
            BeginRegionGroup(f"g{chance.randrange(3)}", key),
            SettleRegionGroup(f"g{chance.randrange(3)}", PlacedAcross()),
            BeginRegionRelease(f"r{chance.randrange(3)}", guests, key),
            SettleRegionRelease(id=f"r{chance.randrange(3)}"),
        ]
    )


@pytest.mark.parametrize("seed", seeds(3, "index of claims"))
def test_the_index_of_claims_is_that_of_what_is_stored(seed: int) -> None:
    chance, claims, carried_out = random.Random(seed), RegionClaims(), 0
    assert not claims.index.guests
    for _ in range(400):
        with suppress(HostlerError):
            claims.change(Tenants(), Usage(), some_command(claims, chance), LOCAL, {})
            carried_out += 1
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(claims), type=RegionClaims)
        for name in claims.index.__slots__:
            assert getattr(claims.index, name) == getattr(stored.index, name), name
        region, project = chance.choice([None, *REGIONS, "gone"]), chance.choice([None, *PROJECTS, "none"])
        after, limit = chance.choice(["", "5", uuid_of(chance.randrange(12))]), chance.randrange(1, 6)
        wanted = [
            uuid
            for uuid, guest in sorted(claims.guests.items())
            if uuid > after and region in (None, guest.region) and project in (None, guest.project_id)
        ]
        assert claims.index.order.page(after, limit, region=region, project=project) == wanted[:limit]
    assert carried_out > 100
