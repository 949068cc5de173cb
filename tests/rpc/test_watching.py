"""Subscriptions: a watcher is told what they may know, and nothing else."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.core.engine_commands import AddHosts, PlaceMany
from hostler.core.machine.event_log import Event
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order, PlacementWrite
from hostler.core.rpc.client import Client, open_client
from hostler.core.rpc.methods import Watch
from hostler.core.rpc.turns import ROUND_TURNS, Turns
from hostler.core.rpc.watching import BACKLOG_BYTES, TURN, Watchers
from hostler.core.service import Identity, Service
from hostler.core.tenancy.commands import CreateDomain, CreateProject, CreateUser, Grant, Revoke, SetLimits
from hostler.core.tenancy.errors import NotAllowed, NotAuthenticated
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import open_writer
from hostler.placement.api.commands import ConsumerAllocations, SetAllocations
from hostler.placement.types.errors import UnknownName
from tests.core.orders import NOW, asked, hosts, uuid_of

from ..patience import HANG_SECONDS
from ..seeds import seeds
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
    """(kind, command, project) of all that happened; ends with what every watcher of p1 is told."""
    await admin.call(*place(99, "p1"))
    seen: list[tuple[str, str, str | None]] = []
    with trio.fail_after(HANG_SECONDS):
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
            ("changes", "release", "p1"),
        ]


@pytest.mark.parametrize(("watching", "told_of"), [("reader", []), ("operator", ["eve"] * 5)])
async def test_what_strangers_to_a_project_try_there_is_told_to_the_cloud_only(
    watching: str, told_of: list[str]
) -> None:
    async with cloud(watching) as (served, admin, watcher):
        await served.do(CreateUser(id="eve", domain="d"), Grant(user="eve", role="member", scope="project:p2"))
        await admin.call(*place(1, "p1"))
        await watcher.call("watch", {"kinds": ["refusals"]})
        async with open_client(served.address, token=await served.token("eve")) as stranger:
            tried: list[tuple[str, Any]] = [
                place(2, "p1"),
                ("release", {"uuids": [uuid_of(1)]}),
                ("resize", {"uuid": uuid_of(1), "request": {"spec": SMALL}}),
                ("set_limits", {"scope": "project:p1", "limits": {"VCPU": 1}}),
                ("create_project", {"id": "p1", "domain": "d"}),
            ]
            await stranger.pipeline(tried)
        await admin.call(*place(3, "p1", BIG))
        seen: list[Event] = []
        with trio.fail_after(HANG_SECONDS):
            while not seen or seen[-1].command != "place" or seen[-1].user == "eve":
                seen.append(await watcher.events.receive())
        assert [event.user for event in seen[:-1]] == told_of
        assert {event.project for event in seen[:-1]} <= {None}


async def test_whose_guests_were_released_is_told_to_each_project_by_itself() -> None:
    async with cloud("reader") as (_, admin, reader):
        await admin.pipeline([place(number, project) for number, project in ((1, "p1"), (2, "p2"), (3, "p1"))])
        await reader.call("watch", {"kinds": ["changes", "refusals"]})
        await admin.call("spawned", {"uuids": [uuid_of(2), uuid_of(3)]})
        with pytest.raises(UnknownName):
            await admin.call("release", {"uuids": [uuid_of(3), uuid_of(77)]})
        with pytest.raises(UnknownName):
            await admin.call("release", {"uuids": [uuid_of(2), uuid_of(3), uuid_of(77)]})
        await admin.call("release", {"uuids": [uuid_of(2)]})
        await admin.call("release", {"uuids": [uuid_of(1), uuid_of(3)]})
        with trio.fail_after(HANG_SECONDS):
            seen = [await reader.events.receive() for _ in range(3)]
    assert [(event.kind, event.command, event.project, event.instances) for event in seen] == [
        ("changes", "spawned", "p1", [uuid_of(3)]),
        ("refusals", "release", "p1", [uuid_of(3)]),
        ("changes", "release", "p1", [uuid_of(1), uuid_of(3)]),
    ]


async def test_what_changes_a_project_is_told_to_its_readers() -> None:
    async with cloud("reader") as (served, _, reader):
        await reader.call("watch", {"kinds": ["changes"]})
        await served.do(
            SetLimits(scope="project:p1", limits={"instances": 9}),
            SetLimits(scope="project:p2", limits={"instances": 9}),
            SetLimits(scope="domain:d", limits={"instances": 90}),
            Grant(user="operator", role="member", scope="project:p1"),
            CreateProject(id="p11", parent="p1"),
            CreateProject(id="p3", domain="d"),
        )
        assert await told(reader, 3) == [
            ("changes", "set_limits", "p1"),
            ("changes", "grant", "p1"),
            ("changes", "create_project", "p11"),
        ]


async def test_claims_through_the_placement_api_are_told_to_the_projects_that_lose_or_get_them() -> None:
    def claim(project: str, held: dict[str, Any]) -> PlacementWrite:
        claimed = ConsumerAllocations(allocations=held, project_id=project, user_id="u")
        return PlacementWrite(command=SetAllocations(now=NOW, consumers={uuid_of(5): claimed}))

    async with cloud("reader") as (served, _, reader):
        await reader.call("watch", {"kinds": ["changes"]})
        provider = served.service.state.fleet.uuid(0)
        await served.do(claim("p2", {provider: {"VCPU": 1}}), claim("p1", {provider: {"VCPU": 1}}), claim("p1", {}))
        assert await told(reader, 2) == [("changes", "placement", "p1")] * 2


async def test_a_reader_of_the_cloud_is_told_everything() -> None:
    async with cloud("operator") as (_, admin, operator):
        await operator.call("watch", {"kinds": ALL})
        await happenings(admin)
        seen = await events(admin, operator)
        assert ("decisions", "place", "p2") in seen
        assert ("changes", "release", "p1") in seen
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


# coming back


def cut(served: Served) -> None:
    """End a watcher's connection, as a network does."""
    (session,) = served.server.watchers._subscriptions
    (connection,) = [each for each in served.server.connections if each._session is session]
    connection.scope.cancel()


async def placed(client: Client, count: int) -> list[tuple[int, str]]:
    """(sequence, instance) of the next decisions."""
    found: list[tuple[int, str]] = []
    with trio.fail_after(HANG_SECONDS):
        while len(found) < count:
            event = await client.events.receive()
            assert event.kind == "decisions"
            found += [(event.sequence, uuid) for uuid in event.hosts]
    return found


async def test_whoever_was_cut_off_is_told_what_he_missed_and_nothing_twice() -> None:
    async with cloud("operator") as (served, admin, operator):
        await operator.call("watch", {"kinds": ["decisions"]})
        await admin.call(*place(1, "p1"))
        first = await placed(operator, 1)
        cut(served)
        await admin.pipeline([place(number, "p1") for number in range(2, 22)])
        assert [uuid for _, uuid in first + await placed(operator, 20)] == [uuid_of(number) for number in range(1, 22)]


async def test_nothing_is_lost_or_doubled_however_often_the_connection_breaks() -> None:
    [seed] = seeds(1, "broken connections")
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with cloud("operator") as (served, admin, operator):
        room = {"vcpus_total": 1_000, "total_usable_ram_mb": 1 << 20, "total_usable_disk_gb": 10_000}
        await admin.call("add_hosts", {"hosts": [{"host": "large", **room}]})
        await operator.call("watch", {"kinds": ["decisions"]})
        seen: list[tuple[int, str]] = []

        async def watch() -> None:
            seen.extend(await placed(operator, 60 * 3))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for turn in range(60):
                numbers = [100 + 3 * turn + each for each in range(3)]
                requests = [asked(number, project=f"p{1 + number % 2}", vcpus=1) for number in numbers]
                await admin.call("place_many", {"requests": requests})
                await trio.sleep(chance.choice([0, 0, 0.001, 0.01]))
                if chance.random() < 0.4 and len(served.server.watchers):
                    cut(served)
        assert sorted(uuid for _, uuid in seen) == [uuid_of(100 + number) for number in range(180)]
        assert [sequence for sequence, _ in seen] == sorted(sequence for sequence, _ in seen)


async def test_a_foreign_client_names_the_command_after_which_it_wants_to_be_told() -> None:
    async with cloud("operator") as (served, admin, operator):
        await admin.pipeline([place(number, "p1") for number in range(1, 6)])
        last = served.service.writer.sequence
        assert await operator.call("watch", {"kinds": ["decisions"], "after": last - 3}) == last - 3
        assert await placed(operator, 3) == [(last - 3 + number, uuid_of(2 + number)) for number in (1, 2, 3)]


@pytest.mark.parametrize(("after", "complete_from"), [(0, 8), (10_000, 12)])
async def test_what_is_too_old_or_never_was_is_a_gap(after: int, complete_from: int) -> None:
    async with serving(remembered=4) as served, open_client(served.address) as client:
        await client.pipeline([place(number, "p1") for number in range(1, 11)])
        assert served.service.writer.sequence == 11
        await client.call("watch", {"kinds": ["decisions"], "after": after})
        gap = await client.events.receive()
        assert (gap.kind, gap.sequence) == ("gap", complete_from)
        await client.call(*place(11, "p1"))
        expected = [(sequence, uuid_of(sequence - 1)) for sequence in range(complete_from, 13)]
        assert await placed(client, len(expected)) == expected


async def test_rights_that_were_taken_meanwhile_are_minded_in_what_was_missed() -> None:
    async with cloud("reader") as (served, admin, reader):
        before = served.service.writer.sequence
        await admin.pipeline([place(1, "p1"), place(2, "p2")])
        await reader.call("watch", {"kinds": ALL, "after": before})
        assert await events(admin, reader) == [("decisions", "place", "p1")]


async def test_what_happens_to_a_guest_carries_the_project_even_if_the_guest_is_gone_at_once(tmp_path: Path) -> None:
    again = {"request": {"spec": SMALL}}
    calls: list[tuple[str, Any]] = [
        place(1, "p1"),
        ("move", {"uuid": uuid_of(1), **again}),
        ("resize", {"uuid": uuid_of(1), **again}),
        ("resize", {"uuid": uuid_of(1), "request": {"spec": BIG}}),
        ("release", {"uuids": [uuid_of(1)]}),
    ]
    expected = [
        ("decisions", "place", "p1"),
        ("decisions", "move", "p1"),
        ("decisions", "resize", "p1"),
        ("refusals", "resize", "p1"),
        ("changes", "release", "p1"),
    ]
    async with serving(journal=tmp_path) as served, open_client(served.address) as client:
        begin = await client.call("watch", {"kinds": ALL})
        await client.pipeline(calls)
        assert await told(client, 5) == expected
    async with serving(journal=tmp_path) as served, open_client(served.address) as client:
        await client.call("watch", {"kinds": ALL, "after": begin})
        assert await told(client, 5) == expected


async def told(client: Client, count: int) -> list[tuple[str, str, str | None]]:
    with trio.fail_after(HANG_SECONDS):
        seen = [await client.events.receive() for _ in range(count)]
    return [(event.kind, event.command, event.project) for event in seen]


class SlowWatcher:
    """A session whose peer does not read, while ``waiting_bytes`` says so."""

    def __init__(self) -> None:
        self.identity, self.waiting_bytes, self.sent = Identity(LOCAL), 2 * BACKLOG_BYTES, list[bytes]()

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def spawn(self, work: Any) -> None:
        """Events are not looked at."""


@pytest.mark.parametrize("kind", ["capacity", "summary"])
async def test_a_peer_that_did_not_read_is_told_how_things_are_once_it_does(
    kind: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_writer(ServiceMachine()) as writer, trio.open_nursery() as nursery:
        service = Service(writer.machine, writer, clock=lambda: NOW)  # type: ignore[arg-type]  # it is a ServiceMachine
        watchers, slow, other = Watchers(service), SlowWatcher(), SlowWatcher()
        other.waiting_bytes = 0
        for each in (slow, other):
            watchers.add(each, Watch(kinds=[kind]))
        nursery.start_soon(watchers.tell_capacity)
        nursery.start_soon(watchers.tell_summary)
        await writer.submit(Order(NOW, LOCAL, AddHosts(hosts=hosts(2))))
        await trio.sleep(5)
        assert (len(slow.sent), len(other.sent)) == (0, 2)
        slow.waiting_bytes = 0
        await trio.sleep(5)
        assert slow.sent == other.sent[1:]
        nursery.cancel_scope.cancel()


class Steps(SlowWatcher):
    """A session whose peer reads at once; how much it had been told whenever others had their turn is ``seen``."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting_bytes, self.work, self.seen = 0, list[Any](), list[int]()

    def spawn(self, work: Any) -> None:
        self.work.append(work)

    async def run(self) -> None:
        """Do the work, while others note how far it has got."""
        with trio.fail_after(HANG_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._note)
                for each in self.work:
                    await each()
                nursery.cancel_scope.cancel()

    async def _note(self) -> None:
        while True:
            self.seen.append(len(self.sent))
            await trio.lowlevel.checkpoint()


async def test_what_is_read_from_the_event_log_is_told_in_turns_with_others() -> None:
    requests, calls = 40, 50
    async with open_writer(ServiceMachine()) as writer:
        service = Service(writer.machine, writer)  # type: ignore[arg-type]  # it is a ServiceMachine
        turns, watcher = Turns(), Steps()
        watchers = Watchers(service, turns)
        for _ in range(calls):
            await writer.submit(Order(NOW, LOCAL, PlaceMany(requests=(asked(project="p1"),) * requests)))
        watchers.add(watcher, Watch(kinds=["refusals"], after=0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns.run)
            await watcher.run()
            nursery.cancel_scope.cancel()
    assert len(watcher.sent) == requests * calls
    assert max(after - before for before, after in pairwise(watcher.seen)) <= ROUND_TURNS * (TURN + requests)
