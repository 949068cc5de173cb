"""Volumes over RPC: idempotency keys, and events for those whose volumes they are about."""

from __future__ import annotations

from typing import Any

import trio

from hostler.core.rpc.client import open_client
from hostler.core.storage_commands import ExtendVolume, PlaceVolume
from hostler.core.tenancy.commands import CreateDomain, CreateProject, CreateUser, Grant
from tests.core.orders import uuid_of
from tests.volumes.values import report, reports, wish

from ..patience import HANG_SECONDS
from .serving import serving


async def test_a_command_with_a_key_is_carried_out_once() -> None:
    async with serving() as served, open_client(served.address) as client:
        await served.do(reports(report("node-0@lvm", ("a", 900))))
        asked = {"request": wish(size_gb=5)}
        first = await client.call("place_volume", asked, key="k")
        assert await client.call("place_volume", asked, key="k") == first
        assert len(await client.call("volumes")) == 1


async def test_a_reader_hears_of_the_volumes_of_their_project_only() -> None:
    async with serving(open_to_all=False) as served:
        await served.do(
            reports(report("node-0@lvm", ("a", 900))),
            CreateDomain(id="d"),
            *(CreateProject(id=name, domain="d") for name in ("p", "q")),
            CreateUser(id="ann", domain="d"),
            Grant(user="ann", role="member", scope="project:p"),
        )
        async with open_client(served.address, token=await served.token("ann")) as client:
            await client.call("watch", {"kinds": ["decisions", "refusals", "changes"]})
            for number, project in ((1, "q"), (2, "p")):
                place = PlaceVolume(request=wish(number, project=project))
                await served.do(place, ExtendVolume(uuid=uuid_of(number), new_size_gb=20))
            events: list[Any] = []
            with trio.fail_after(HANG_SECONDS):
                while len(events) < 2:
                    events.append(await client.events.receive())
    assert [(each.kind, each.project, each.backends) for each in events] == [
        ("decisions", "p", {uuid_of(2): "node-0@lvm#a"}),
        ("decisions", "p", {uuid_of(2): "node-0@lvm#a"}),
    ]
