"""Old answers by idempotency key, sessions and events are for those who may still have them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core.rpc.client import Client, open_client
from hostler.core.service import Identity
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed, NotAuthenticated
from tests.core.orders import place, uuid_of
from tests.rpc.serving import Served, serving

MEMBER: dict[str, Any] = {"user": "bob", "role": "member", "scope": "project:b1"}


@asynccontextmanager
async def world(folder: Path | None = None) -> AsyncIterator[Served]:
    async with serving(open_to_all=False, journal=folder) as served:
        if not served.service.state.tenants.users:
            await served.do(c.CreateDomain(id="b"), c.CreateProject(id="b1", domain="b"))
            await served.do(c.CreateUser(id="bob", domain="b"), c.Grant(**MEMBER))
        yield served


def params(command: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(command))
    found.pop("do")
    return found


@asynccontextmanager
async def client_of(served: Served, user: str = "bob") -> AsyncIterator[Client]:
    async with open_client(served.address, token=await served.token(user)) as client:
        yield client


COMMANDS: list[tuple[str, Any]] = [
    ("place", place(1, project="b1")),
    ("place_many", p.PlaceMany(requests=(place(2, project="b1").request,))),
    ("resize", p.Resize(uuid=uuid_of(1), request=place(vcpus=2).request)),
    ("add_server_group", p.AddServerGroup(uuid=uuid_of(9), policy="affinity", project_id="b1")),
    ("release", p.Release(uuids=(uuid_of(1),))),
    ("remove_server_group", p.RemoveServerGroup(uuid=uuid_of(9))),
]


async def test_an_answer_comes_again_while_one_has_the_role_and_not_when_it_is_gone(tmp_path: Path) -> None:
    first: dict[str, Any] = {}
    async with world(tmp_path) as served, client_of(served) as client:
        for method, command in COMMANDS:
            first[method] = await client.call(method, params(command), key=method)
        for method, command in COMMANDS:  # the guests are gone by now, the answers are not
            assert await client.call(method, params(command), key=method) == first[method]
    for _ in range(2):  # from the journal, then from a snapshot
        async with world(tmp_path) as served:
            async with client_of(served) as client:
                for method, command in COMMANDS:
                    assert await client.call(method, params(command), key=method) == first[method]
                await served.do(c.Revoke(**MEMBER))
                for method, command in COMMANDS:
                    with pytest.raises(NotAllowed):
                        await client.call(method, params(command), key=method)
            await served.do(c.Grant(**MEMBER))
            await served.service.writer.snapshot()


async def test_who_has_the_name_of_a_user_who_is_gone_has_none_of_their_answers_and_sessions() -> None:
    async with world() as served, client_of(served) as client:
        command = params(place(1, project="b1"))
        first = await client.call("place", command, key="k")
        by_certificate = Identity("bob", serial=served.service.state.tenants.serial_of("bob"))
        assert served.service.user(by_certificate) == "bob"
        await served.do(c.DeleteUser(id="bob"), c.CreateUser(id="bob", domain="b"))
        with pytest.raises(NotAuthenticated):
            await client.call("place", command, key="k")
        with pytest.raises(NotAuthenticated):
            served.service.user(by_certificate)
        async with client_of(served) as another:
            with pytest.raises(NotAllowed):
                await another.call("place", command, key="k")
            await served.do(c.Grant(**MEMBER))
            again = await another.call("place", params(place(project="b1")), key="k2")
            assert again.selections[0].instance_uuid != first.selections[0].instance_uuid


async def test_events_of_an_earlier_project_of_the_name_are_not_told() -> None:
    async with world() as served:
        await served.do(place(1, project="b1"), p.Release(uuids=(uuid_of(1),)), c.DeleteProject(id="b1"))
        await served.do(
            c.CreateDomain(id="x"), c.CreateProject(id="b1", domain="x"), c.CreateUser(id="eve", domain="x")
        )
        await served.do(c.Grant(user="eve", role="member", scope="project:b1"), place(2, project="b1"))
        async with client_of(served, "eve") as client:
            await client.call("watch", {"kinds": ["decisions", "changes", "refusals"], "after": 0, "project": "b1"})
            told = [await anext(client.events) for _ in range(3)]
        assert [event.command for event in told] == ["create_project", "grant", "place"]
        assert uuid_of(2) in told[-1].hosts
