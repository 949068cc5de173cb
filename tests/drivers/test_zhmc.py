"""The driver zhmc passes the conformance suite on zhmcclient's mock behind an HTTPS server. The mock cannot show jobs
that take time, duplicate names, full machines and busy partitions; errors of those kinds are tested by their codes."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

zhmcclient = pytest.importorskip("zhmcclient", reason="zhmcclient is not installed")
pytest.importorskip("cryptography", reason="cryptography is not installed")

from cryptography import x509  # noqa: E402  # after the skip
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402  # after the skip
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402  # after the skip
from cryptography.x509.oid import NameOID  # noqa: E402  # after the skip
from zhmcclient.mock import FakedSession  # noqa: E402  # after the skip

from hostler.drivers import log_ons  # noqa: E402  # after the skip
from hostler.drivers.compute import zhmc  # noqa: E402  # after the skip
from hostler.drivers.conformance import ComputeBench, ComputeConformance  # noqa: E402  # after the skip
from hostler.drivers.protocol import (  # noqa: E402  # after the skip
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Transient,
    Unknown,
)

from .outages import Outages  # noqa: E402  # after the skip


def certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "tls.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


class Console:
    """The mock of a console with two machines, served over HTTPS. ``losing``: answers to changes are not sent.
    ``log_ons``: how often one was tried. ``ended``: each session has ended."""

    def __init__(self, pem: Path) -> None:
        self.losing = False
        self.outage, self.going_on = Outages(), threading.Event()
        self.going_on.set()
        with warnings.catch_warnings(action="ignore"):
            self.mock = FakedSession("127.0.0.1", "hmc", "2.16.0", "4.10", userid="user", password="secret")
        cpcs = [
            {
                "properties": {
                    "object-id": f"cpc-{number}",
                    "name": f"CPC{number}",
                    "dpm-enabled": True,
                    "status": "active",
                    "processor-count-ifl": 32,
                    "processor-count-general-purpose": 8,
                    "storage-customer": 1_048_576,
                }
            }
            for number in (1, 2)
        ]
        consoles = [{"properties": {"object-id": "c1", "name": "hmc"}}]
        self.mock.hmc.add_resources({"consoles": consoles, "cpcs": cpcs})
        self._sessions, self._lock = set[str](), threading.Lock()
        self.password, self.log_ons, self.ended = "secret", 0, False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = int(self.server.server_address[1])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        console = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536  # answers leave in one piece

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                session = self.headers.get("X-API-Session", "")
                lost, arrives = console.outage.fate()
                console.going_on.wait()
                if lost and not arrives:
                    self.close_connection = True
                    return
                status, body = console.answer(self.command, self.path, json.loads(raw) if raw else None, session)
                reads = self.command == "GET" or self.path.startswith("/api/services/aggregation/")
                if lost or (console.losing and not reads):
                    self.close_connection = True
                    return
                sent = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_POST = do_DELETE = do_GET

        return Handler

    def answer(self, method: str, path: str, body: Any, session: str) -> tuple[int, Any]:
        if path == "/api/sessions":
            self.log_ons += 1
            if (body or {}).get("userid") != "user" or body.get("password") != self.password:
                return self._refusal(403, 0, "log on failed")
            made, secrets = uuid.uuid4().hex, {"shared-secret-key": "c", "session-credential": "d"}
            self._sessions.add(made)
            return 200, {"api-session": made, "notification-topic": "a", "job-notification-topic": "b", **secrets}
        if path != "/api/version" and (self.ended or session not in self._sessions):
            return self._refusal(403, 5 if session else 4, "no session")
        if path == "/api/sessions/this-session":
            self._sessions.discard(session)
            return 204, None
        try:
            with self._lock:
                found = {
                    "GET": lambda: self.mock.get(path),
                    "POST": lambda: self.mock.post(path, body=body),
                    "DELETE": lambda: self.mock.delete(path),
                }[method]()
        except zhmcclient.HTTPError as error:
            return self._refusal(error.http_status, error.reason, error.message)
        return (204, None) if found is None else (200, found)

    @staticmethod
    def _refusal(status: int, reason: int, text: str) -> tuple[int, Any]:
        return status, {"http-status": status, "reason": reason, "message": text}

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        self.losing = True
        try:
            yield
        finally:
            self.losing = False

    @contextmanager
    def hang(self) -> Iterator[None]:
        self.going_on.clear()
        try:
            yield
        finally:
            self.going_on.set()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def console(pem: Path) -> Iterator[Console]:
    console = Console(pem)
    threading.Thread(target=console.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield console
    console.server.shutdown()
    console.server.server_close()


@pytest.fixture
def options(console: Console, pem: Path) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": console.port,
        "username": "user",
        "password": "secret",
        "ca_file": str(pem),
        "boot": {"installer": {"boot-device": "none", "boot-timeout": 120}},
    }


def bench_of(console: Console, options: dict[str, Any]) -> ComputeBench:
    cpcs = zhmcclient.Client(console.mock).cpcs

    async def make_stranger() -> str:
        properties = {"name": uuid.uuid4().hex[:20], "ifl-processors": 1, "initial-memory": 1024}
        made = cpcs.find(name="CPC1").partitions.create({**properties, "maximum-memory": 1024})
        return str(made.uri)

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        partition = cpcs.find(name="CPC1").partitions.find(name=f"hostler-{uuid}")
        await trio.to_thread.run_sync(partition.stop if what == "stop" else partition.delete)

    return ComputeBench(
        open=lambda context: zhmc.open_driver(options, context),
        node="CPC1",
        memory_mb=1_024,
        lose_answers=console.lose_answers,
        outage=console.outage,
        hang=console.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
    )


class TestZhmcComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, console: Console, options: dict[str, Any]) -> ComputeBench:
        return bench_of(console, options)


async def test_memory_is_rounded_up_and_reported_so(console: Console, options: dict[str, Any]) -> None:
    bench = bench_of(console, options)
    async with bench.driver() as driver:
        spec = bench.spec()._replace(memory_mb=1_025, image="installer")
        assert (await driver.create_guest(spec)).memory_mb == 2_048
        assert (await driver.create_guest(spec)).memory_mb == 2_048
        await driver.delete_guest(spec.mark.uuid)
        with pytest.raises(NotFound, match="no image"):
            await driver.create_guest(bench.spec()._replace(image="else"))
        with pytest.raises(Permanent, match="properties"):
            await driver.create_guest(bench.spec()._replace(disk_gb=1))


@pytest.mark.parametrize("changed", [{"name": "db"}, {"description": "taken over"}], ids=str)
async def test_a_partition_that_others_take_while_it_stops_is_left_to_them(
    console: Console, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    bench = bench_of(console, options)
    partitions = zhmcclient.Client(console.mock).cpcs.find(name="CPC1").partitions
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        theirs = partitions.find(name=f"hostler-{spec.mark.uuid}")
        answer = console.answer

        def take(method: str, path: str, body: Any, session: str) -> tuple[int, Any]:
            found = answer(method, path, body, session)
            if path.endswith("/operations/stop"):
                theirs.update_properties(changed)
            return found

        monkeypatch.setattr(console, "answer", take)
        with pytest.raises(Conflict, match="taken by others"):
            await driver.delete_guest(spec.mark.uuid)
    assert theirs.uri in [each.uri for each in partitions.list()]
    theirs.delete()


@pytest.mark.parametrize("lost", ["/api/cpcs", "/api/cpcs/cpc-1/partitions", "/api/partitions/"])
async def test_a_listing_that_is_not_there_is_not_an_empty_one(
    console: Console, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    bench = bench_of(console, options)
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        answer = console.answer

        def miss(method: str, path: str, body: Any, session: str) -> tuple[int, Any]:
            if method == "GET" and path.startswith(lost):
                return 404, {"http-status": 404, "reason": 1, "message": "not found"}
            return answer(method, path, body, session)

        with monkeypatch.context() as patch:
            patch.setattr(console, "answer", miss)
            for work in (driver.get_guest, driver.delete_guest):
                with pytest.raises(Transient, match="listed"):
                    await work(spec.mark.uuid)
        await driver.delete_guest(spec.mark.uuid)
        with pytest.raises(NotFound):
            await driver.get_guest(spec.mark.uuid)


async def test_a_session_that_has_ended_is_renewed(console: Console, options: dict[str, Any]) -> None:
    bench = bench_of(console, options)
    async with bench.driver() as driver:
        console._sessions.clear()
        assert [page async for page in driver.nodes()]


async def together(driver: zhmc.ZhmcDriver) -> list[type[Exception] | None]:
    """What four lookups at the same time raise."""
    raised = list[type[Exception] | None]()

    async def ask() -> None:
        try:
            await driver.get_guest(str(uuid.uuid4()))
        except DriverError as error:
            raised.append(type(error))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    return raised


async def test_calls_at_the_same_time_log_on_once(
    console: Console, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with zhmc.open_driver(options, DriverContext("a", "b")) as driver:
        for _ in range(3):
            console._sessions.clear()
            console.log_ons = 0
            assert await together(driver) == [NotFound] * 4
            assert console.log_ons == 1
            assert len(console._sessions) == 1
        monkeypatch.setattr(console, "password", "changed")
        console._sessions.clear()
        console.log_ons = 0
        for _ in range(2):
            assert await together(driver) == [Denied] * 4
        assert console.log_ons == 1, "so that the account is not locked"
        monkeypatch.setattr(console, "password", "secret")
        assert await together(driver) == [Denied] * 4
        monkeypatch.setattr(log_ons, "DENIED_SECONDS", 0.0)
        assert await together(driver) == [NotFound] * 4
        assert console.log_ons == 2
    assert not console._sessions


async def test_a_new_session_that_is_refused_too_is_denied(
    console: Console, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with zhmc.open_driver(options, DriverContext("a", "b")) as driver:
        console.log_ons = 0
        with monkeypatch.context() as patch:
            patch.setattr(console, "ended", True)
            with pytest.raises(Denied, match="no session"):
                await driver.get_guest(str(uuid.uuid4()))
        assert console.log_ons == 1


async def test_a_log_on_whose_answer_is_lost_leaves_no_outcome_unknown(
    console: Console, options: dict[str, Any]
) -> None:
    async with zhmc.open_driver(options, DriverContext("a", "b")) as driver:
        console._sessions.clear()
        with console.lose_answers(), pytest.raises(Transient):
            await driver.set_power(str(uuid.uuid4()), "on")
        with pytest.raises(NotFound):
            await driver.set_power(str(uuid.uuid4()), "on")
    console._sessions.clear()


async def test_a_wrong_password_is_denied(options: dict[str, Any]) -> None:
    with pytest.raises(Denied):
        async with zhmc.open_driver({**options, "password": "wrong"}, DriverContext("a", "b")):
            pass


async def test_a_console_that_is_not_there_is_transient(options: dict[str, Any]) -> None:
    with pytest.raises(Transient):
        async with zhmc.open_driver({**options, "port": 9}, DriverContext("a", "b")):
            pass


@pytest.mark.parametrize(("status", "reason"), sorted(zhmc.STATUS, key=str))
def test_each_status_and_reason_has_its_class(status: int, reason: int | None) -> None:
    def refuse() -> None:
        raise zhmcclient.HTTPError({"http-status": status, "reason": 999 if reason is None else reason, "message": "x"})

    with pytest.raises(DriverError) as caught:
        zhmc.as_ours(refuse)
    assert type(caught.value) is zhmc.STATUS[status, reason]


def test_an_operation_that_does_not_end_is_of_unknown_outcome() -> None:
    def wait() -> None:
        raise zhmcclient.OperationTimeout("no end", 600)

    with pytest.raises(Unknown):
        zhmc.as_ours(wait)
