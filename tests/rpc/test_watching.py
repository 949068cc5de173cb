"""Subscriptions: whoever watches is told what he may know, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from hostler.core.client import Client, open_client
from hostler.core.tenancy.commands import CreateDomain, CreateProject, CreateUser, Grant, Revoke
from hostler.core.tenancy.errors import NotAllowed, NotAuthenticated
from tests.core.orders import asked, uuid_of

from .serving import Served, serving, until

BIG = {"flavor": {"name": "big", "vcpus": 1_000, "memory_mb": 1}}
SMALL = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1}}
ALL = ["decisions", "refusals", "changes"]


def place(number: int, project: str, spec: Any = SMALL) -> tuple[str, Any]:
    return "place", {"request": {"spec": spec, "project_id": project, "instance_uuids": [uuid_of(number)]}}


@asynccontextmanager
async def cloud(user: str) -> AsyncIterator[tuple[Served, Client, Client]]:
    """A service, an admin of it, and a user: ``reader`` reads project p1, ``operator`` the cloud."""
    async with serving(open_to_all=False) as served:
        await served.do(
            CreateDomain(id="d"),
            *(CreateProject(id=name, domain="d") for name in ("p1", "p2")),
            *(CreateUser(id=name, domain="d") for name in ("admin", "reader", "operator")),
            Grant(user="admin", role="cloud_admin", scope="cloud"),
            Grant(user="reader", role="reader", scope="project:p1"),
            Grant(user="operator", role="reader", scope="cloud"),
        )
        tokens = await served.token("admin"), await served.token(user)
        at = served.address
        async with open_client(at, token=tokens[0]) as admin, open_client(at, token=tokens[1]) as watcher:
            yield served, admin, watcher


async def events(admin: Client, watcher: Client) -> list[tuple[str, str, str | None]]:
    """(kind, command, project) of all that happened; ends with what everybody who watches p1 is told."""
    await admin.call(*place(99, "p1"))
    seen: list[tuple[str, str, str | None]] = []
    with trio.fail_after(10):
        while True:
            event = await watcher.events.receive()
            if event.hosts.keys() == {uuid_of(99)}:
                return seen
            seen.append((event.kind, event.command, event.project))


async def happenings(admin: Client) -> None:
    many = {"requests": [asked(3, project="p1"), asked(4, project="p2"), asked(5, project="p1", vcpus=1_000)]}
    calls: list[tuple[str, Any]] = [
        place(1, "p1"),
        place(2, "p2"),
        place(6, "p1", BIG),
        place(1, "p1"),
        ("place_many", many),
        ("move", {"uuid": uuid_of(1), "request": {"spec": SMALL}}),
    ]
    await admin.pipeline(calls)
    calls = [
        ("release", {"uuids": [uuid_of(1)]}),
        ("set_service", {"name": "node-1", "disabled": True}),
        ("set_service", {"name": "nobody", "disabled": True}),
    ]
    await admin.pipeline(calls)


async def test_a_reader_of_a_project_is_told_of_its_guests_only() -> None:
    async with cloud("reader") as (_, admin, reader):
        await reader.call("watch", {"kinds": ALL})
        await happenings(admin)
        assert await events(admin, reader) == [
            ("decisions", "place", "p1"),
            ("refusals", "place", "p1"),
            ("refusals", "place", "p1"),
            ("decisions", "place_many", "p1"),
            ("refusals", "place_many", "p1"),
            ("decisions", "move", "p1"),
        ]


async def test_a_reader_of_the_cloud_is_told_everything() -> None:
    async with cloud("operator") as (_, admin, operator):
        await operator.call("watch", {"kinds": ALL})
        await happenings(admin)
        seen = await events(admin, operator)
        assert ("decisions", "place", "p2") in seen
        assert ("changes", "release", None) in seen
        assert ("changes", "set_service", None) in seen
        assert ("refusals", "set_service", None) in seen
        assert len(seen) == 11


async def test_only_the_kinds_and_the_project_that_were_asked_for_are_told() -> None:
    async with cloud("operator") as (_, admin, operator):
        await operator.call("watch", {"kinds": ["decisions"], "project": "p1"})
        await happenings(admin)
        assert {kind for kind, *_ in await events(admin, operator)} == {"decisions"}
        await operator.call("watch", {"kinds": ["refusals", "decisions"], "project": "p1"})
        await admin.call(*place(7, "p1", BIG))
        assert (await operator.events.receive()).kind == "refusals"


async def test_what_one_may_not_read_cannot_be_watched() -> None:
    async with cloud("reader") as (served, _, reader):
        for wish in ({"kinds": ALL, "project": "p2"}, {"kinds": ["capacity"]}):
            with pytest.raises(NotAllowed):
                await reader.call("watch", wish)
        assert len(served.server.watchers) == 0
        async with open_client(served.address) as stranger:
            with pytest.raises(NotAuthenticated):
                await stranger.call("watch", {"kinds": ALL})


async def test_a_role_that_is_taken_back_ends_what_is_told() -> None:
    async with cloud("reader") as (served, admin, reader):
        await reader.call("watch", {"kinds": ALL})
        await served.do(Revoke(user="reader", role="reader", scope="project:p1"))
        await admin.call(*place(1, "p1"))
        await reader.call("status")
        with pytest.raises(trio.WouldBlock):
            reader.events.receive_nowait()


async def test_a_token_that_is_revoked_ends_the_subscription() -> None:
    async with cloud("reader") as (served, admin, reader):
        await reader.call("watch", {"kinds": ALL})
        (token,) = await admin.call("tokens", {"user": "reader"})
        await admin.call("revoke_token", {"id": token.id})
        await admin.call(*place(1, "p1"))
        await until(lambda: len(served.server.watchers) == 0)


async def test_whoever_is_gone_watches_no_more() -> None:
    async with cloud("operator") as (served, admin, _):
        async with open_client(served.address, token=await served.token("operator")) as gone:
            await gone.call("watch", {"kinds": ALL})
            assert len(served.server.watchers) == 1
        await until(lambda: len(served.server.watchers) == 0)
        await admin.call(*place(1, "p1"))
