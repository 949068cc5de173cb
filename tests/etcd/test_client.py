"""The client of etcd: the same tests against real servers and against the model that fast tests use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import MockClock

from hostler.core.etcd.client import Etcd
from hostler.core.etcd.errors import (
    EtcdCompacted,
    EtcdDenied,
    EtcdFull,
    EtcdLeaseGone,
    EtcdRefused,
    EtcdUnavailable,
    error_of,
)
from hostler.core.etcd.values import created_at, delete, end_of, get, modified_at, put

from ..patience import HANG_SECONDS
from .model import EtcdModel
from .servers import NEEDS_ETCD, EtcdServers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServers]:
    with EtcdServers(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture(params=["model", pytest.param("servers", marks=NEEDS_ETCD)])
async def etcd(request: pytest.FixtureRequest) -> AsyncIterator[Etcd]:
    if request.param == "model":
        client = Etcd(["http://a", "http://b", "http://c"], transport=EtcdModel())
    else:
        client = Etcd(request.getfixturevalue("servers").endpoints, timeout=10)
    try:
        await client.transaction((), [delete("t/", "t0")])
        yield client
    finally:
        await client.close()


async def test_a_key_is_created_only_once(etcd: Etcd) -> None:
    first = await etcd.transaction([created_at("t/a", 0)], [put("t/a", b"1")], [get("t/a")])
    second = await etcd.transaction([created_at("t/a", 0)], [put("t/a", b"2")], [get("t/a")])
    assert (first.succeeded, second.succeeded) == (True, False)
    ((item,),) = second.found
    assert (item.value, item.created, item.modified) == (b"1", first.revision, first.revision)


async def test_a_change_is_made_only_to_the_revision_that_was_seen(etcd: Etcd) -> None:
    seen = (await etcd.transaction((), [put("t/a", b"1")])).revision
    assert (await etcd.transaction([modified_at("t/a", seen)], [put("t/a", b"2")])).succeeded
    assert not (await etcd.transaction([modified_at("t/a", seen)], [put("t/a", b"3")])).succeeded
    item = await etcd.read("t/a")
    assert item is not None
    assert item.value == b"2"
    assert item.created == seen < item.modified


async def test_ranges_are_in_order_and_end_at_their_limit(etcd: Etcd) -> None:
    await etcd.transaction((), [put(f"t/{number}", b"%d" % number) for number in range(5)])
    answer = await etcd.transaction(
        (), [get("t/1", "t/4", limit=2), get("t/", end_of("t/"), limit=1, newest_first=True)]
    )
    assert [[item.value for item in found] for found in answer.found] == [[b"1", b"2"], [b"4"]]
    assert [item.key for item in await etcd.read_all("t/")] == [f"t/{number}" for number in range(5)]
    assert await etcd.read("t/none") is None


async def test_the_keys_of_a_lease_end_with_it(etcd: Etcd) -> None:
    lease, seconds = await etcd.grant(5)
    assert seconds >= 5
    await etcd.transaction((), [put("t/a", b"", lease)])
    item = await etcd.read("t/a")
    assert item is not None
    assert item.lease == lease
    assert await etcd.keep_alive(lease) >= 4
    await etcd.revoke(lease)
    await etcd.revoke(lease)
    assert await etcd.read("t/a") is None
    with pytest.raises(EtcdLeaseGone):
        await etcd.keep_alive(lease)
    with pytest.raises(EtcdLeaseGone):
        await etcd.transaction((), [put("t/a", b"", lease)])


async def test_a_watch_gives_changes_in_order_from_a_revision_on(etcd: Etcd) -> None:
    before = (await etcd.transaction((), [put("t/a", b"1")])).revision
    await etcd.transaction((), [put("t/a", b"2"), put("t/b", b"3")])
    seen = []
    with trio.fail_after(HANG_SECONDS):
        async with etcd.watch("t/", after=before) as changes:
            await etcd.transaction((), [delete("t/a")])
            async for some in changes:
                seen += [(change.deleted, change.item.key, change.item.value) for change in some]
                if len(seen) >= 3:
                    break
    assert seen == [(False, "t/a", b"2"), (False, "t/b", b"3"), (True, "t/a", b"")]


async def test_a_watch_from_a_compacted_revision_says_so(etcd: Etcd) -> None:
    for value in (b"1", b"2", b"3"):
        revision = (await etcd.transaction((), [put("t/a", value)])).revision
    await etcd.compact(revision)
    await etcd.compact(revision)

    async def watch() -> None:
        async with etcd.watch("t/", after=1) as changes:
            async for _ in changes:
                pass

    with trio.fail_after(HANG_SECONDS), pytest.raises(EtcdCompacted) as caught:
        await watch()
    assert caught.value.revision >= revision
    item = await etcd.read("t/a")
    assert item is not None
    assert item.value == b"3"


async def test_a_request_above_the_limit_is_refused(etcd: Etcd) -> None:
    with pytest.raises(EtcdRefused, match="too large"):
        await etcd.transaction((), [put("t/a", bytes(1_700_000))])


async def test_an_endpoint_that_is_gone_is_left_for_the_next() -> None:
    model = EtcdModel()
    model.cut = {"a", "b"}
    client = Etcd(["http://a", "http://b", "http://c"], transport=model)
    assert (await client.transaction((), [put("k", b"")])).succeeded
    assert client.failovers == 2
    model.cut = {"a", "b", "c"}
    with pytest.raises(EtcdUnavailable):
        await client.read("k", within=0.1)


async def test_a_transaction_whose_answer_is_lost_is_repeated_and_done_once() -> None:
    model = EtcdModel()
    client = Etcd(["http://a"], transport=model)
    lost = iter([True, False])
    model.lose_answer = lambda path: next(lost)
    answer = await client.transaction([created_at("k", 0)], [put("k", b"1")], [get("k")])
    assert not answer.succeeded  # the first one was, which the caller finds by the value
    assert [item.value for item in answer.found[0]] == [b"1"]


@NEEDS_ETCD
async def test_a_full_database_has_an_error_of_its_own(tmp_path: Path) -> None:
    with EtcdServers(tmp_path, 1, quota=4 << 20) as servers:
        client = Etcd(servers.endpoints, timeout=10)
        model = EtcdModel()
        other = Etcd(["http://a"], transport=model)

        async def fill() -> None:
            for number in range(40):
                await client.transaction((), [put(f"k{number}", bytes(500_000))])

        try:
            with pytest.raises(EtcdFull):
                await fill()
            model.full = True
            for each in (client, other):
                with pytest.raises(EtcdFull):
                    await each.transaction((), [put("k", b"")])
                with pytest.raises(EtcdFull):
                    await each.grant(10)
                assert (await each.transaction((), [delete("k0")])).succeeded
        finally:
            await client.close()
            await other.close()


@NEEDS_ETCD
async def test_a_user_needs_the_right_password_and_survives_a_restart_of_etcd(tmp_path: Path) -> None:
    with EtcdServers(tmp_path, 1) as servers:
        servers.ask("/v3/auth/user/add", {"name": "root", "password": "secret"})
        servers.ask("/v3/auth/role/add", {"name": "root"})
        servers.ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
        servers.ask("/v3/auth/enable", {})
        for arguments in ({}, {"user": "root", "password": "wrong"}):
            client = Etcd(servers.endpoints, timeout=10, **arguments)  # type: ignore[arg-type]  # texts all
            with pytest.raises(EtcdDenied):
                await client.read("k")
            await client.close()
        client = Etcd(servers.endpoints, timeout=20, user="root", password="secret")
        assert (await client.transaction((), [put("k", b"1")])).succeeded
        servers.kill(0)
        servers.start(0)
        servers.wait(0)
        assert await client.read("k") is not None
        await client._ask("/v3/auth/disable", {})
        later = Etcd(servers.endpoints, timeout=20, user="root", password="secret")
        assert await later.read("k") is not None, "etcd needs no users any more"
        servers.ask("/v3/auth/enable", {})
        assert await later.read("k") is not None
        await later.close()
        await client.close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, {"error": "etcdserver: no leader", "code": 14}, EtcdUnavailable),
        (500, {"error": "etcdserver: request timed out", "code": 2}, EtcdUnavailable),
        (503, None, EtcdUnavailable),
        (200, {"error": {"grpc_code": 14, "message": "transport is closing"}}, EtcdUnavailable),
        (400, {"error": "etcdserver: duplicate key given in txn request", "code": 3}, EtcdRefused),
        (401, {"error": "etcdserver: invalid auth token", "code": 16}, EtcdDenied),
        (400, {"error": "etcdserver: revision of auth store is old", "code": 3}, EtcdDenied),
        (500, {"error": "auth: revision in header is old", "code": 2}, EtcdDenied),
    ],
)
def test_answers_that_are_no_success_are_errors_of_a_closed_set(status: int, body: object, kind: type) -> None:
    assert type(error_of(status, body)) is kind


@pytest.mark.parametrize("text", ["auth: revision in header is old", "etcdserver: revision of auth store is old"])
async def test_a_token_of_before_a_change_of_users_is_replaced(text: str) -> None:
    class Changed(EtcdModel):
        tokens = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v3/auth/authenticate":
                self.tokens += 1
                return httpx.Response(200, json={"token": f"t{self.tokens}"})
            if request.headers["authorization"] == "t1":
                return httpx.Response(400, json={"error": text, "code": 3})
            return await super().handle_async_request(request)

    model = Changed()
    client = Etcd(["http://a"], transport=model, user="hostler", password="secret")
    assert (await client.transaction((), [put("k", b"v")])).succeeded
    assert model.tokens == 2
    await client.close()


async def test_a_client_that_is_closed_has_an_error_of_the_same_set() -> None:
    client = Etcd(["http://a", "http://b"], transport=EtcdModel())
    await client.close()
    await client.close()
    for work in (lambda: client.read("k"), lambda: client.transaction((), [put("k", b"v")]), lambda: client.grant(1)):
        with trio.fail_after(HANG_SECONDS), pytest.raises(EtcdUnavailable):
            await work()
    with pytest.raises(EtcdUnavailable):
        async with client.watch("k") as changes:
            await anext(changes)


class LateEtcd(EtcdModel):
    """Each answer takes ``seconds``."""

    seconds = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self.seconds)
        return await super().handle_async_request(request)


async def test_endpoints_that_are_all_slow_are_waited_for_longer(autojump_clock: MockClock) -> None:
    model = LateEtcd()
    client = Etcd(["http://a", "http://b", "http://c"], transport=model)
    await client.transaction((), [put("t/a", b"1")])
    model.seconds = 1.2
    failed = 0
    with trio.fail_after(HANG_SECONDS):
        while True:
            try:
                item = await client.read("t/a")
                break
            except EtcdUnavailable:
                failed += 1
    assert item is not None
    assert failed <= 2
    began = trio.current_time()
    await client.read("t/a")
    assert trio.current_time() - began == pytest.approx(1.2), "one attempt is enough from then on"
    model.seconds = 0.0
    await client.read("t/a")
    model.seconds = 2.0
    before = client.failovers
    with pytest.raises(EtcdUnavailable):
        await client.read("t/a")
    assert client.failovers - before >= 2, "the next endpoint has its turn soon again"
