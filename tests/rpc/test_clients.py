"""Clients: deadlines, lost connections, safe repetition, watching, and the same from code without an event loop."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from hostler.core.engine_commands import Placed
from hostler.core.errors import DeadlineExceeded, Stopped
from hostler.core.rpc import caller
from hostler.core.rpc.addresses import Address
from hostler.core.rpc.caller import ConnectionLost
from hostler.core.rpc.client import BlockingClient, Client, open_client
from hostler.core.rpc.connection import Limits
from hostler.core.rpc.framing import BadFrame
from hostler.core.rpc.tls import client_context, server_context
from hostler.core.tenancy.errors import NotAuthenticated
from hostler.placement.types.errors import HostlerError, InvalidValue, UnknownName
from hostler.placement.types.request import Flavor, Request, RequestSpec
from tests.core.orders import uuid_of

from ..patience import HANG_SECONDS
from .serving import Authority, serving, until

PATIENT_SECONDS = 1.0
"""A member that answers does so within this time, however busy the machine is."""
SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1}}
PLACE = {"request": {"spec": SPEC}}
WITHIN = 0.5
"""Seconds that a call is waited for which is never answered: enough for a connection on a loaded machine."""


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    with trio.fail_after(HANG_SECONDS):
        return await trio.to_thread.run_sync(work, *arguments, abandon_on_cancel=True)


async def received(stream: trio.SocketStream) -> bytes:
    """What a client sends next; empty once it has gone, with or without a goodbye."""
    try:
        return bytes(await stream.receive_some())
    except trio.BrokenResourceError:
        return b""


class Fake:
    """A server that a test scripts: it answers ``hello``, and everything else by ``answer``, which may be silent (None)
    or close the connection (b"")."""

    def __init__(self, answer: Callable[[Any], bytes | None]) -> None:
        self.answer, self.calls, self.connections = answer, list[Any](), 0
        self.refusal: Any = None
        """What ``hello`` is refused with."""

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        unpacker = msgpack.Unpacker()
        async with stream:
            while data := await received(stream):
                unpacker.feed(data)
                for call in unpacker:
                    if call[2] == "hello":
                        await stream.send_all(msgpack.packb([1, call[1], self.refusal, {"user": None, "version": "0"}]))
                        continue
                    self.calls.append(call)
                    reply = self.answer(call)
                    if reply == b"":
                        return
                    await stream.send_all(reply or b"")


@asynccontextmanager
async def fake(answer: Callable[[Any], bytes | None]) -> AsyncIterator[tuple[str, Fake]]:
    server = Fake(answer)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), server.serve, 0)
        yield f"tcp:127.0.0.1:{listener.socket.getsockname()[1]}", server
        nursery.cancel_scope.cancel()


async def test_a_command_is_repeated_with_its_key_when_the_connection_is_lost() -> None:
    def answer(call: Any) -> bytes:
        return b"" if len(server.calls) < 3 else msgpack.packb([1, call[1], None, 7])

    async with fake(answer) as (at, server), open_client(at) as client:
        assert await client.release(["a"]) == 7
    keys = {call[3][1]["key"] for call in server.calls}
    assert (len(server.calls), len(keys), server.connections) == (3, 1, 3)


async def test_an_error_says_whether_an_earlier_attempt_may_have_been_carried_out() -> None:
    def refusal(call: Any, code: str = "no_valid_host") -> bytes:
        return bytes(msgpack.packb([1, call[1], {"code": code, "message": "no"}, None]))

    def only(call: Any) -> bytes:
        return refusal(call)

    def second(call: Any) -> bytes:
        return b"" if len(server.calls) < 2 else refusal(call)

    def in_doubt(call: Any) -> bytes:
        return refusal(call, "storage_failed")

    for answer, doubtful in ((only, False), (second, True), (in_doubt, True)):
        async with fake(answer) as (at, server), open_client(at) as client:
            with pytest.raises(HostlerError) as caught:
                await client.release(["a"])
            assert caught.value.maybe_done is doubtful
    async with fake(second) as (at, server), open_client(at) as client:
        with pytest.raises(HostlerError) as caught:
            await client.call("capacity")
        assert not caught.value.maybe_done, "a question does nothing"
    async with fake(lambda call: None) as (at, server), open_client(at, within=WITHIN) as client:
        with pytest.raises(DeadlineExceeded) as late:
            await client.release(["a"])
        assert late.value.maybe_done
    async with open_client("tcp:127.0.0.1:1", within=0.1) as client:
        with pytest.raises(ConnectionLost) as lost:
            await client.release(["a"])
        assert not lost.value.maybe_done


async def test_what_cannot_be_repeated_is_not() -> None:
    async with fake(lambda call: b"") as (at, server), open_client(at) as client:
        for ask in (client.batch([("release", {"uuids": []})]), client.pipeline([("release", {"uuids": []})])):
            with pytest.raises(ConnectionLost):
                await ask
        with pytest.raises(ConnectionLost, match="may have been carried out"):
            await client.call("create_token", {"user": "ann"})
    assert len(server.calls) == 3


async def test_a_deadline_is_kept_while_an_answer_does_not_come_and_says_what_may_have_happened() -> None:
    async with fake(lambda call: None) as (at, server), open_client(at, within=WITHIN) as client:
        with pytest.raises(DeadlineExceeded, match="may have been carried out"):
            await client.release(["a"])
        with pytest.raises(DeadlineExceeded):
            await in_thread(lambda: BlockingClient(at, within=WITHIN).release(["a"]))
    assert all(0 <= call[3][1]["timeout"] <= WITHIN for call in server.calls)


async def test_an_unreachable_service_is_an_error_once_the_time_is_over(tmp_path: Path) -> None:
    for address in (f"unix:{tmp_path}/nobody", "tcp:127.0.0.1:1"):
        async with open_client(address, within=0.1) as client:
            with pytest.raises(ConnectionLost, match="no connection"):
                await client.call("status")
        with BlockingClient(address, within=0.1) as blocking, pytest.raises(ConnectionLost, match="no connection"):
            blocking.call("status")


async def test_what_no_server_sends_ends_the_connection() -> None:
    async with fake(lambda call: b"\xc1") as (at, _):
        async with open_client(at, within=WITHIN) as client:
            with pytest.raises((ConnectionLost, DeadlineExceeded)):
                await client.call("status")
        with pytest.raises((ConnectionLost, DeadlineExceeded)):
            await in_thread(lambda: BlockingClient(at, within=WITHIN).call("status"))


async def test_an_answer_of_another_type_is_an_error_that_names_the_method() -> None:
    async with fake(lambda call: msgpack.packb([1, call[1], None, {"ready": 7}])) as (at, _), open_client(at) as client:
        with pytest.raises(InvalidValue, match="answer of status"):
            await client.call("status")


async def test_a_late_answer_is_not_taken_for_that_of_another_call() -> None:
    """The first call is given up before it is answered, on a slow machine maybe before it is sent."""

    def answer(call: Any) -> bytes | None:
        return both(server.calls) if "['b']" in repr(call) else None

    async with fake(answer) as (at, server), open_client(at) as client:
        with pytest.raises(DeadlineExceeded):
            await client.call("release", {"uuids": ["a"]}, within=0.1)
        assert await client.call("release", {"uuids": ["b"]}, within=HANG_SECONDS) == len(server.calls)


def both(calls: Any) -> bytes:
    return b"".join(msgpack.packb([1, call[1], None, number]) for number, call in enumerate(calls, 1))


async def test_a_client_that_sends_too_much_learns_why_and_does_not_try_again() -> None:
    async with serving(limits=Limits(frame_bytes=100_000)) as served:
        long = {"uuids": ["x" * 400_000]}
        async with open_client(served.address) as client:
            with pytest.raises(BadFrame, match="longer than 100000 bytes"):
                await client.call("release", long)
            assert (await client.call("status")).ready
        with BlockingClient(served.address) as blocking:
            with pytest.raises(BadFrame, match="longer than 100000 bytes"):
                await in_thread(blocking.call, "release", long)
            assert (await in_thread(blocking.call, "status")).ready


async def test_parameters_that_cannot_be_sent_are_refused_before_anything_is_sent() -> None:
    async with serving() as served, open_client(served.address) as client:
        for wrong in ({"uuids": [object()]}, {"uuids": [2**70]}):
            with pytest.raises(InvalidValue, match="cannot be sent"):
                await client.call("release", wrong)
        spec = RequestSpec(flavor=Flavor(name="x", vcpus=2**70, memory_mb=1))
        with pytest.raises(InvalidValue, match="cannot be sent"):
            await client.place(Request(spec=spec))
        assert (await client.call("status")).ready


async def test_many_tasks_share_a_connection() -> None:
    async with serving() as served, open_client(served.address) as client:
        sequences = set()

        async def place() -> None:
            sequences.add((await client.call("place", PLACE)).sequence)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(place)
        assert sequences == set(range(1, 101))
        assert len(served.server.connections) == 1


async def test_a_caller_that_is_cancelled_leaves_the_others_alone() -> None:
    async with serving() as served, open_client(served.address) as client:
        await client.call("status")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.call("place", PLACE)
        assert (await client.call("status")).ready


async def test_whoever_watches_does_so_again_after_the_service_was_away(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    async with open_client(address) as client:
        async with serving(address, journal=tmp_path / "data"):
            await client.call("watch", {"kinds": ["decisions"]})
            await client.call("place", PLACE)
            assert (await client.events.receive()).sequence == 2
        async with serving(address, journal=tmp_path / "data", count=0) as served:
            await until(lambda: len(served.server.watchers) == 1)
            async with open_client(address) as other:
                await other.call("place", PLACE)
            with trio.fail_after(HANG_SECONDS):
                assert (await client.events.receive()).sequence == 3


async def test_a_blocking_client_that_watches_does_so_again(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    with BlockingClient(address) as client:
        async with serving(address, journal=tmp_path / "data"):
            await in_thread(client.call, "watch", {"kinds": ["decisions"]})
            await in_thread(client.call, "place", PLACE)
            assert (await in_thread(next, client.events())).sequence == 2
        async with serving(address, journal=tmp_path / "data", count=0), trio.open_nursery() as nursery:

            async def place_later() -> None:
                async with open_client(address) as other:
                    while True:
                        await trio.sleep(0.1)
                        await other.call("place", PLACE)

            nursery.start_soon(place_later)
            assert (await in_thread(next, client.events())).sequence >= 3
            nursery.cancel_scope.cancel()


def blocking_calls(address: str, tls: ssl.SSLContext | None = None) -> None:
    with BlockingClient(address, tls=tls, within=HANG_SECONDS) as client:
        request = Request(spec=RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=1)))
        placed = client.place_many([request] * 20)
        assert isinstance(placed, Placed)
        assert client.release(placed.instance_uuids) == 20
        # Some 6 MB of answers. Each of these questions forks the process, which takes long once many tests ran in it.
        answers = client.pipeline([("place", PLACE)] * 500 + [("hosts", None)] * 60)
        assert [answer.sequence for answer in answers[:500]] == list(range(21, 521))
        assert all(len(lines) == 500 for lines in answers[500:])
        hosts, missing = client.batch([("host", {"name": "node-1"}), ("host", {"name": "x"})])
        assert hosts["line"]["node"] == "node-1"
        assert isinstance(missing, UnknownName)
        assert client.pipeline([]) == []
    with pytest.raises(Stopped):
        client.call("status")


async def test_a_blocking_client_pipelines_more_than_any_buffer_holds() -> None:
    async with serving(count=500, limits=Limits(unread_bytes=50_000, outstanding=20)) as served:
        await in_thread(blocking_calls, served.address)


async def test_a_blocking_client_does_the_same_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = server_context(*authority.sign("localhost"))
    async with serving("tls:localhost:0", count=500, tls=tls, limits=Limits(unread_bytes=50_000)) as served:
        address = f"tls:localhost:{Address.parse(served.address).port}"
        await in_thread(blocking_calls, address, client_context(authority.ca))


async def test_placing_by_number_in_a_pipeline_keeps_the_order() -> None:
    async with serving() as served, open_client(served.address) as client:
        calls = [("place", {"request": {"spec": SPEC, "instance_uuids": [uuid_of(number)]}}) for number in range(100)]
        answers = await client.pipeline(calls)
        assert [answer.selected.instance_uuid for answer in answers] == [uuid_of(number) for number in range(100)]


# members that hang


def no_hosts(call: Any) -> bytes:
    return bytes(msgpack.packb([1, call[1], None, [] if call[2] == "hosts" else None]))


@pytest.mark.parametrize("blocking", [False, True], ids=["trio", "blocking"])
async def test_a_question_that_a_member_does_not_answer_is_put_to_another(
    blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "HANGS_SECONDS", PATIENT_SECONDS)
    async with fake(lambda call: None) as (silent, hanging), fake(no_hosts) as (speaks, answering):
        addresses = [silent, speaks]
        if blocking:
            with BlockingClient(addresses) as waiting:
                assert await in_thread(waiting.call, "hosts") == []
        else:
            async with open_client(addresses) as client:
                assert await client.call("hosts") == []
                assert await client.call("hosts") == []
        assert len(hanging.calls) == 1
        assert len(answering.calls) == (1 if blocking else 2), "later calls go there too"


@pytest.mark.parametrize("blocking", [False, True], ids=["trio", "blocking"])
async def test_a_member_that_takes_connections_and_never_answers_is_left_for_another(
    blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "HANGS_SECONDS", PATIENT_SECONDS)

    async def hang(stream: trio.SocketStream) -> None:
        async with stream:
            while await received(stream):
                pass

    async with trio.open_nursery() as nursery, fake(no_hosts) as (speaks, answering):
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), hang, 0)
        addresses = [f"tcp:127.0.0.1:{listener.socket.getsockname()[1]}", speaks]
        for key in (None, "k"):
            method = "hosts" if key is None else "remove_host"
            params = None if key is None else {"name": "none"}
            if blocking:
                with BlockingClient(addresses) as waiting:
                    await in_thread(partial(waiting.call, method, params, key=key))
            else:
                async with open_client(addresses) as client:
                    await client.call(method, params, key=key)
        assert [call[2] for call in answering.calls] == ["hosts", "remove_host"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("blocking", [False, True], ids=["trio", "blocking"])
async def test_a_member_that_does_not_let_a_client_in_is_left_for_another(blocking: bool) -> None:
    stranger = {"code": "not_authenticated", "message": "there is no such token"}
    async with fake(no_hosts) as (behind, refusing), fake(no_hosts) as (knows, answering):
        refusing.refusal = stranger  # such as where a member has not carried out yet what has made the token
        addresses = ["tcp:127.0.0.1:1", behind, knows]

        async def ask() -> Any:
            if blocking:
                with BlockingClient(addresses, token="t") as waiting:
                    return await in_thread(waiting.call, "hosts")
            async with open_client(addresses, token="t") as client:
                return await client.call("hosts")

        assert await ask() == []
        assert (len(refusing.calls), len(answering.calls)) == (0, 1)
        answering.refusal = stranger
        with pytest.raises(NotAuthenticated), trio.fail_after(HANG_SECONDS):  # and not once the time is over
            await ask()


@pytest.mark.parametrize("blocking", [False, True], ids=["trio", "blocking"])
async def test_a_leader_that_is_not_reached_where_it_says_it_is_is_found_among_the_addresses(blocking: bool) -> None:
    def refuse(call: Any) -> bytes:
        leader = ["tcp:127.0.0.1:1"]  # such as an address of a network that the client is not in
        return bytes(
            msgpack.packb([1, call[1], {"code": "not_leader", "message": "no", "extra": {"leader": leader}}, None])
        )

    async with fake(refuse) as (first, _), fake(refuse) as (second, _), fake(no_hosts) as (third, leading):
        if blocking:
            with BlockingClient([first, second, third]) as waiting:
                await in_thread(partial(waiting.call, "remove_host", {"name": "none"}))
        else:
            async with open_client([first, second, third]) as client:
                await client.call("remove_host", {"name": "none"})
    assert [call[2] for call in leading.calls] == ["remove_host"]


async def test_a_question_that_takes_long_is_waited_for_twice_as_long_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller, "HANGS_SECONDS", 0.02)
    patience: list[float] = []
    exchange = Client._exchange

    async def noted(*given: Any) -> Any:
        patience.append(given[-1])
        return await exchange(*given)

    monkeypatch.setattr(Client, "_exchange", noted)

    def answer_at_last(call: Any) -> bytes | None:
        return no_hosts(call) if len(patience) >= 4 else None

    async with (
        fake(answer_at_last) as (first, _),
        fake(answer_at_last) as (second, _),
        open_client([first, second]) as client,
    ):
        assert await client.call("hosts") == []
    assert patience[:4] == [0.02, 0.04, 0.08, 0.16]


async def test_a_question_to_one_address_is_waited_for_as_long_as_the_caller_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller, "HANGS_SECONDS", 0.01)
    async with fake(lambda call: None) as (address, server), open_client(address, within=WITHIN) as client:
        with pytest.raises(DeadlineExceeded):
            await client.call("hosts")
        assert len(server.calls) == 1
