"""Calls over sockets: every way in, every way to say what is wanted, and what comes back."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pynvim
import pytest
import trio

from hostler.core.engine_commands import Placed
from hostler.core.rpc.addresses import Address, AddressInUse
from hostler.core.rpc.client import BlockingClient, open_client
from hostler.core.rpc.server import RpcServer
from hostler.core.rpc.tls import TlsFailed, client_context, server_context
from hostler.core.tenancy.commands import CreateDomain, CreateUser, Grant
from hostler.core.tenancy.errors import NotAuthenticated
from hostler.placement.types.decision import Decision
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName
from hostler.placement.types.request import Flavor, Request, RequestSpec
from tests.core.orders import uuid_of

from .serving import Authority, raw_stream, serving

SPEC = RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=1024))
ASKED = {"request": {"spec": {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1024}}}}


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_placement_is_answered_with_its_decision(kind: str, tmp_path: Path) -> None:
    wanted = f"unix:{tmp_path}/rpc.sock" if kind == "unix" else "tcp:127.0.0.1:0"
    async with serving(wanted) as served, open_client(served.address) as client:
        decision = await client.place(Request(spec=SPEC, instance_uuids=(uuid_of(1),)))
        assert isinstance(decision, Decision)
        assert decision.host == "node-0"
        assert (await client.call("instance", {"uuid": uuid_of(1)})).node == "node-0"
        assert await client.release([uuid_of(1)]) == 1
        with pytest.raises(UnknownName):
            await client.call("instance", {"uuid": uuid_of(1)})


async def test_many_placements_in_one_command() -> None:
    async with serving() as served, open_client(served.address) as client:
        placed = await client.place_many(Request(spec=SPEC) for _ in range(100))
        assert isinstance(placed, Placed)
        assert placed.placed == 100


async def test_errors_arrive_as_what_they_were() -> None:
    async with serving() as served, open_client(served.address) as client:
        await client.place(Request(spec=SPEC, instance_uuids=(uuid_of(1),)))
        with pytest.raises(DuplicateName) as error:
            await client.place(Request(spec=SPEC, instance_uuids=(uuid_of(1),)))
        assert error.value.field == "instance_uuids"
        with pytest.raises(UnknownName, match="unknown method"):
            await client.call("plaice")
        with pytest.raises(InvalidValue) as wrong:
            await client.call("hosts", {"limit": "many"})
        assert wrong.value.field == "params.limit"


async def test_pipelined_and_batched_calls_are_answered_in_order() -> None:
    calls = [("place", ASKED), ("status", None), ("release", {"uuids": [uuid_of(77)]}), ("place", ASKED)]
    async with serving() as served, open_client(served.address) as client:
        first, status, missing, second = await client.pipeline(calls)
        assert (first.sequence, second.sequence) == (1, 2)
        assert status.hosts == 3
        assert isinstance(missing, UnknownName)
        first, status, missing, second = await client.batch(calls)
        assert (first["sequence"], second["sequence"]) == (3, 4)
        assert isinstance(missing, UnknownName)
        (nested,) = await client.batch([("batch", {"calls": []})])
        assert isinstance(nested, InvalidValue)
        assert await client.batch([]) == []


async def test_parameters_may_come_by_name_or_by_position() -> None:
    async with serving() as served:
        stream = await raw_stream(served.address)
        for params in ([{"name": "node-1", "disabled": True}], ["node-1", True], [{"name": "node-1"}, {"key": "k"}]):
            assert await exchange(stream, [0, 7, "set_service", params]) == [1, 7, None, None]
        kind, number, error, result = await exchange(stream, [0, 8, "set_service", ["node-1", 1, 2, 3, 4, 5]])
        assert (kind, number, error[0], result) == (1, 8, "invalid_value", None)
        assert (await exchange(stream, [0, 9, "set_service", [{"name": "node-1"}, {"nonsense": 1}]]))[2][0] == (
            "invalid_value"
        )
        assert (await exchange(stream, [0, 10, "status", [{}, {"key": "k"}]]))[2][0] == "invalid_value"


async def exchange(stream: trio.SocketStream, message: Any) -> Any:
    await stream.send_all(msgpack.packb(message))
    unpacker = msgpack.Unpacker()
    while True:
        unpacker.feed(await stream.receive_some())
        for answer in unpacker:
            return answer


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("list", ["unknown_name", "{text} ({hint})"]),
        ("text", "unknown_name: {text} ({hint})"),
        ("map", {"code": "unknown_name", "message": "{text}", "field": "method", "hint": "{hint}"}),
    ],
)
async def test_a_connection_chooses_the_form_of_its_errors(style: str, expected: Any) -> None:
    async with serving() as served:
        stream = await raw_stream(served.address)
        assert (await exchange(stream, [0, 1, "hello", [{"errors": style}]]))[2] is None
        error = (await exchange(stream, [0, 2, "plaice", []]))[2]
        text, hint = "unknown method 'plaice'", "closest: place, policy, place_many"
        assert error == filled(expected, text=text, hint=hint)


def filled(form: Any, **values: str) -> Any:
    if isinstance(form, dict):
        return {name: filled(part, **values) for name, part in form.items()}
    return [filled(part, **values) for part in form] if isinstance(form, list) else form.format(**values)


async def test_a_notification_is_carried_out_and_not_answered() -> None:
    async with serving() as served:
        stream = await raw_stream(served.address)
        await stream.send_all(msgpack.packb([2, "place", [ASKED]]))
        assert (await exchange(stream, [0, 1, "status", []]))[1] == 1
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert served.service.state.engine.sequence == 1


async def test_a_client_that_has_sent_all_it_wants_still_gets_its_answers() -> None:
    async with serving() as served:
        stream = await raw_stream(served.address)
        for number in range(50):
            await stream.send_all(msgpack.packb([0, number, "place", [ASKED]]))
        await stream.send_eof()
        unpacker = msgpack.Unpacker()
        while data := await stream.receive_some():
            unpacker.feed(data)
        assert sorted(answer[1] for answer in unpacker) == list(range(50))


async def test_a_repeated_key_gets_the_first_answer_and_another_command_with_it_is_refused() -> None:
    async with serving() as served, open_client(served.address) as client:
        first = await client.call("place", ASKED, key="k")
        assert await client.call("place", ASKED, key="k") == first
        with pytest.raises(HostlerError) as error:
            await client.call("release", {"uuids": [first.selected.instance_uuid]}, key="k")
        assert error.value.code == "key_reused"


async def test_what_if_and_explain_and_fits_change_nothing() -> None:
    async with serving() as served, open_client(served.address) as client:
        tried = await client.call("what_if", {"commands": [{"do": "place", **ASKED}, {"do": "release", "uuids": []}]})
        assert tried[0].result["selections"][0]["host"] == "node-0"
        policy = {"filter_scheduler": {"enabled_filters": ["AllHostsFilter"]}}
        assert (await client.call("what_if", {"commands": [], "policy": policy})) == []
        explained = await client.call("explain", ASKED)
        assert [each.node for each in explained.top] == ["node-0", "node-1", "node-2"]
        assert (await client.call("fits", ASKED)).count == 3 * 64
        assert served.service.state.engine.sequence == 0


async def test_what_if_holds_guests_and_confirms_them_without_holding_any() -> None:
    async with serving() as served, open_client(served.address) as client:
        held = uuid_of(1)
        commands = [
            {"do": "confirm_hold", "uuids": [held]},
            {"do": "hold", "request": {**ASKED["request"], "instance_uuids": [held]}, "expires_in": 60.0},
            {"do": "confirm_hold", "uuids": [held]},
            {"do": "confirm_hold", "uuids": [held]},
        ]
        unknown, placed, confirmed, again = await client.call("what_if", {"commands": commands})
        assert unknown.error.code == "unknown_name"
        assert placed.result["selections"][0]["host"] == "node-0"
        assert confirmed.result == 1
        assert (again.error.code, again.error.field) == ("invalid_value", "uuids")
        assert served.service.state.engine.sequence == len(served.service.state.holds) == 0


async def test_watchers_are_told_what_happened() -> None:
    async with serving() as served, open_client(served.address) as client:
        await client.call("watch", {"kinds": ["decisions", "refusals", "changes"]})
        await client.place(Request(spec=SPEC, instance_uuids=(uuid_of(1),), project_id="p1"))
        await client.place(Request(spec=RequestSpec(flavor=Flavor(name="big", vcpus=999, memory_mb=1))))
        await client.call("set_service", {"name": "node-1", "disabled": True})
        placed, refused, changed = [await client.events.receive() for _ in range(3)]
        assert (placed.kind, placed.hosts, placed.project) == ("decisions", {uuid_of(1): "node-0"}, "p1")
        assert (refused.kind, refused.code) == ("refusals", "no_valid_host")
        assert (changed.kind, changed.command) == ("changes", "set_service")
        await client.call("unwatch")
        await client.place(Request(spec=SPEC))
        await client.call("watch", {"kinds": ["capacity"]})
        await client.place(Request(spec=SPEC))
        used = [(await client.events.receive()).capacity["VCPU"].used for _ in range(2)]
        assert used == [2, 3]


def blocking(address: str) -> None:
    with BlockingClient(address) as client:
        assert client.place(Request(spec=SPEC, instance_uuids=(uuid_of(1),))).host == "node-0"
        with pytest.raises(DuplicateName):
            client.place(Request(spec=SPEC, instance_uuids=(uuid_of(1),)))
        client.call("watch", {"kinds": ["decisions"]})
        client.place(Request(spec=SPEC))
        assert [event.kind for event in client.events(0.2)] == ["decisions"]
    with pytest.raises(HostlerError):
        client.call("status")


async def test_the_blocking_client_does_the_same() -> None:
    async with serving() as served:
        await trio.to_thread.run_sync(blocking, served.address)


def neovim(path: str) -> None:
    session = pynvim.socket_session(path=path)
    try:
        assert session.request("status", {})["hosts"] == 3
        assert session.request("place", ASKED)["selections"][0]["host"] == "node-0"
        with pytest.raises(Exception, match="is named"):
            session.request("host", "nobody")
    finally:
        session.close()


def neovim_over_tcp(address: str, token: str) -> None:
    """Tokens, options, pipelining of notifications, and events."""
    at = Address.parse(address)
    session = pynvim.tcp_session(at.host, at.port)
    try:
        with pytest.raises(Exception, match="authenticate first"):
            session.request("hosts", {})
        assert session.request("hello", {"token": token})["user"] == "ann"
        assert isinstance(session.request("watch", {"kinds": ["decisions"]}), int)
        placed = [session.request("place", ASKED, {"key": "k1", "timeout": 5.0}) for _ in range(2)]
        assert placed[0] == placed[1]
        (uuid,) = (selection["instance_uuid"] for selection in placed[0]["selections"])
        kind, method, ((event,)) = session.next_message()
        assert (kind, method, list(event["hosts"])) == ("notification", "event", [uuid])
        session.request("release", {"uuids": [uuid]}, async_=True)
        with pytest.raises(Exception, match="no consumer has the uuid"):
            session.request("release", {"uuids": [uuid]})  # it is gone already
    finally:
        session.close()


async def test_a_foreign_client_is_served(tmp_path: Path) -> None:
    """pynvim, Neovim's client, speaks MessagePack-RPC and knows nothing of Hostler."""
    async with serving(f"unix:{tmp_path}/rpc.sock"):
        await trio.to_thread.run_sync(neovim, f"{tmp_path}/rpc.sock")
    async with serving(open_to_all=False) as served:
        await served.do(
            CreateDomain(id="d"),
            CreateUser(id="ann", domain="d"),
            Grant(user="ann", role="cloud_admin", scope="cloud"),
        )
        await trio.to_thread.run_sync(neovim_over_tcp, served.address, await served.token("ann"))


# TLS and who is who


async def test_a_certificate_says_who_somebody_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server_tls = server_context(*authority.sign("localhost"), authority.ca)
    async with serving("tls:localhost:0", tls=server_tls, open_to_all=False) as served:
        await served.do(
            CreateDomain(id="d"),
            CreateUser(id="ann", domain="d", identities=("ann.example",)),
            Grant(user="ann", role="cloud_admin", scope="cloud"),
        )
        port = Address.parse(served.address).port
        address = Address("tls", "localhost", port)
        mutual = client_context(authority.ca, *authority.sign("ann.example"))
        async with open_client(address, tls=mutual) as client:
            assert (await client.call("hello")).user == "ann"
            assert len(await client.call("hosts")) == 3
        async with open_client(address, tls=client_context(authority.ca)) as client:
            with pytest.raises(NotAuthenticated):
                await client.call("hosts")
        async with open_client(address, tls=client_context(authority.ca, *authority.sign("eve"))) as client:
            with pytest.raises(NotAuthenticated, match="stands for no user"):
                await client.call("hosts")
        async with open_client(address, tls=client_context(), within=1.0) as client:
            with pytest.raises(TlsFailed):
                await client.call("hosts")


async def test_a_token_says_who_somebody_is_until_it_is_revoked_or_expires(tmp_path: Path) -> None:
    async with serving(open_to_all=False) as served:
        await served.do(
            CreateDomain(id="d"),
            CreateUser(id="ann", domain="d"),
            Grant(user="ann", role="cloud_admin", scope="cloud"),
        )
        token = await served.token("ann")
        async with open_client(served.address, token=token) as client:
            assert len(await client.call("hosts")) == 3
            mine = await client.call("create_token", {"days": 1})
            async with open_client(served.address, token=mine.token) as other:
                assert len(await other.call("hosts")) == 3
                await client.call("revoke_token", {"id": mine.id})
                with pytest.raises(NotAuthenticated):
                    await other.call("hosts")
                status = await other.call("status")
                assert (status.ready, status.hosts, status.user, status.version) == (True, 0, None, "")
        for wrong in ("", "x", token[:-1] + ("a" if token[-1] != "a" else "b"), mine.token):
            async with open_client(served.address, token=wrong) as client:
                with pytest.raises(NotAuthenticated):
                    await client.call("status")
        async with open_client(served.address) as client:
            with pytest.raises(NotAuthenticated):
                await client.call("hosts")
            status = await client.call("status")
            assert (status.ready, status.hosts, status.sequence, status.version) == (True, 0, 0, "")


async def test_the_daemons_own_user_is_a_cloud_admin_on_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    async with serving(address, open_to_all=False), open_client(address) as client:
        assert len(await client.call("hosts")) == 3


# addresses


@pytest.mark.parametrize("text", ["", "tcp", "tcp:x", "tcp:x:y", "tcp:x:99999", "udp:x:1", "unix:", "tls::1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="is not an address"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["unix:/run/x", "tcp:h:1", "tls:10.0.0.1:65535", "tcp:[::1]:7"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(Address.parse(text)) == text


async def test_a_socket_that_is_in_use_is_refused_and_one_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    address = Address.parse(f"unix:{tmp_path}/rpc.sock")
    async with serving(str(address)) as served:
        with pytest.raises(AddressInUse):
            await RpcServer(served.service).serve([address])
    left = trio.socket.socket(trio.socket.AF_UNIX)
    await left.bind(address.host)
    left.close()
    async with serving(str(address)), open_client(address) as client:
        assert (await client.call("status")).hosts == 3
    (tmp_path / "file").touch()
    async with serving() as served:
        with pytest.raises(AddressInUse):
            await RpcServer(served.service).serve([Address("unix", str(tmp_path / "file"))])


async def test_a_client_waits_for_a_service_that_comes_back(tmp_path: Path) -> None:
    address, data = f"unix:{tmp_path}/rpc.sock", tmp_path / "data"
    async with open_client(address) as client:
        async with serving(address, journal=data):
            first = await client.call("place", ASKED, key="k")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, address, data, 3)
            assert await client.call("place", ASKED, key="k") == first
            assert (await client.call("place", ASKED)).sequence == 2
            nursery.cancel_scope.cancel()


async def later(address: str, data: Path, count: int) -> None:
    await trio.sleep(0.2)
    async with serving(address, journal=data, count=count):
        await trio.sleep_forever()


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nonsense")
    with pytest.raises(InvalidValue, match=r"x\.pem"):
        server_context(tmp_path / "x.pem", tmp_path / "x.pem")
    with pytest.raises(InvalidValue, match=r"missing\.pem"):
        client_context(tmp_path / "missing.pem")


def test_a_context_takes_no_old_tls(tmp_path: Path) -> None:
    context = server_context(*Authority(tmp_path).sign("localhost"))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_every_answer_can_be_sent() -> None:
    assert msgspec.msgpack.encode(Decision(sequence=1, request_id=None, considered=0, removed={}))
