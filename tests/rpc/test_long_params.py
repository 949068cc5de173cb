"""Long parameters are judged before they are decoded: by their sender's rights, and by how many entries they have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.machine import queries as q
from hostler.core.machine.request_limits import RequestLimits
from hostler.core.machine.what_if import WhatIf
from hostler.core.rpc import long_params
from hostler.core.rpc.connection import Limits
from hostler.core.rpc.messages import encode
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed
from hostler.core.tenancy.records import User
from hostler.core.tenancy.tenants import Tenants
from hostler.placement.types.errors import InvalidValue

from .serving import serving
from .test_adversity import peer, send_all_it_takes

LIMITS = RequestLimits(instances=10, requests=20, uuids=30, candidates=30, group_members=5)
SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1}}
PADDED = {"image": {"properties": {"os_distro": "x" * long_params.LONG_BYTES}}}
"""A spec that makes a request long."""


def check(kind: type[Any], params: Any, user: str = "member") -> None:
    """``params``: a value, or MessagePack."""
    roles = {"member": ("member", "project:p"), "reader": ("reader", "cloud"), "admin": ("cloud_admin", "cloud")}
    tenants = Tenants(users={name: User("d", roles=[role]) for name, role in roles.items()})
    raw = msgspec.Raw(params if isinstance(params, bytes) else encode(params))
    long_params.check(tenants, LIMITS, user, kind, raw)


def claims(count: int) -> bytes:
    """A list that says it has so many entries, of which none is there: who decodes it gets another error."""
    return b"\xdd" + count.to_bytes(4, "big")


LONG: list[tuple[type[Any], Any, str]] = [
    (p.Release, b"\x91\x81\xa5uuids" + claims(31), "uuids"),
    (p.Release, b"\x91" + claims(31), "uuids"),
    (p.Release, b"\x92\x81\xa5uuids" + claims(31) + b"\x80", "uuids"),
    (p.ConfirmHold, b"\x91\x81\xa5uuids" + claims(2**32 - 1), "uuids"),
    (s.DeleteVolumes, b"\x91\x81\xa5uuids" + claims(31), "uuids"),
    (s.DeleteVolumeBackups, [{"uuids": [""] * 31}], "uuids"),
    (p.PlaceMany, b"\x91\x81\xa8requests" + claims(21), "requests"),
    (p.PlaceCandidates, b"\x91\x81\xaacandidates\xdf" + (31).to_bytes(4, "big"), "candidates"),
    (p.Place, b"\x91\x81\xa7request\x82\xa4spec\x80\xaeinstance_uuids" + claims(11), "request.instance_uuids"),
    (p.Place, [{"request": {"server_group": {"policy": "affinity", "members": [""] * 6}}}], "server_group.members"),
    (p.PlaceMany, [{"requests": [{"spec": SPEC}, {"spec": PADDED, "instance_uuids": [1] * 11}]}], "instance_uuids"),
    (q.Fits, [{"limit": None, "request": {"spec": {}, "instance_uuids": [0] * 11}}], "request.instance_uuids"),
    (c.CreateUser, b"\x91\x81\xaaidentities" + claims(long_params.MOST_ENTRIES + 1), "identities"),
    (c.SetLimits, b"\x91\x81\xa6limits\xdf" + (30_000).to_bytes(4, "big"), "limits"),
]


@pytest.mark.parametrize("number", range(len(LONG)))
def test_a_list_that_is_too_long_is_refused_whatever_is_in_it(number: int) -> None:
    kind, params, field = LONG[number]
    with pytest.raises(InvalidValue, match="are taken") as refused:
        check(kind, params, "admin" if kind is p.PlaceCandidates else "member")
    assert str(refused.value.field).endswith(field)


@pytest.mark.parametrize(
    ("kind", "params", "user"),
    [
        (p.Release, [{"uuids": [""] * 30}], "member"),
        (p.Release, [[""] * 30, {"key": "k"}], "member"),
        (p.PlaceMany, [{"requests": [{"spec": PADDED, "instance_uuids": [""] * 10}] * 20}], "member"),
        (p.Place, [{"request": {"spec": {"scheduler_hints": {"uuids": [""] * 100}}}}], "member"),
        (p.Heartbeats, [{"names": [""] * 30_000}], "admin"),
        (s.DeleteVolumes, [{"uuids": [""] * 30}], "member"),
        (q.FitsMany, [{"requests": [{"spec": PADDED}] * 21}], "member"),
        (WhatIf, [{"commands": []}], "reader"),
        (p.Release, {"uuids": 1}, "member"),
        (p.Release, [{1: [""] * 40}], "member"),
        (p.Release, [[], [], [], []], "member"),
        (p.Release, b"\x91", "member"),
        (p.Release, [], "member"),
        (p.Release, b"\x91\x81\xa5uuids", "member"),
    ],
)
def test_what_keeps_to_the_limits_and_what_is_malformed_is_left_to_the_decoder(
    kind: type[Any], params: Any, user: str
) -> None:
    check(kind, params, user)


@pytest.mark.parametrize(
    ("kind", "user"), [(p.AddHosts, "member"), (p.AddHosts, "reader"), (WhatIf, "member"), (q.Explain, "nobody")]
)
def test_what_is_the_clouds_is_not_read_for_others(kind: type[Any], user: str) -> None:
    with pytest.raises(NotAllowed):
        check(kind, b"\x91\x81\xa5hosts" + claims(2**31), user)


async def test_a_long_call_that_is_refused_is_not_in_the_journal_and_the_connection_goes_on() -> None:
    async with serving(open_to_all=False) as served, peer(served) as member:
        await served.do(c.CreateDomain(id="d"), c.CreateUser(id="ann", domain="d"))
        assert (await member.ask("hello", {"token": await served.token("ann")}))[0] is None
        before = served.service.writer.sequence
        error, _ = await member.ask("add_hosts", {"hosts": [{"host": f"h{number}"} for number in range(1_000)]})
        assert error[0] == "not_allowed"
        error, _ = await member.ask("release", {"uuids": [""] * 10_001})
        assert error == ["invalid_value", str(InvalidValue("10001 uuids, at most 10000 are taken", hint=HINT))]
        assert served.service.writer.sequence == before
        error, _ = await member.ask("release", {"uuids": [""] * 10_000})
        assert error[0] in ("invalid_value", "not_allowed")
        assert "are taken" not in error[1]


HINT = "ask in several calls, or have the operator raise [limits]"


async def test_members_may_send_shorter_messages_than_readers_of_the_cloud() -> None:
    limits = Limits(frame_bytes=1 << 20, member_bytes=20_000, stranger_bytes=10_000)
    long = {"hosts": [{"host": "h" * 30_000}]}
    async with serving(open_to_all=False, limits=limits) as served, peer(served) as member, peer(served) as reader:
        await served.do(c.CreateDomain(id="d"), c.CreateUser(id="ann", domain="d"), c.CreateUser(id="eve", domain="d"))
        await served.do(c.Grant(user="eve", role="reader", scope="cloud"))
        for each, name in ((member, "ann"), (reader, "eve")):
            assert (await each.ask("hello", {"token": await served.token(name)}))[0] is None
        assert (await reader.ask("add_hosts", long))[0][0] == "not_allowed"
        await send_all_it_takes(member.stream, encode([0, 1, "add_hosts", [long]]))
        assert "longer than 20000 bytes" in await member.dismissed()
