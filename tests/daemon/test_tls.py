"""TLS of a real daemon: which clients are heard, and as whom."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.core.rpc.client import BlockingClient, open_client
from hostler.core.rpc.tls import TlsFailed, client_context
from hostler.core.tenancy.errors import NotAuthenticated
from tests.rpc.serving import Authority

from ..patience import HANG_SECONDS
from .processes import HOSTLER, Daemon


@contextmanager
def served(
    folder: Path, authority: Authority, *, signed: tuple[Path, Path] | None = None, **tls: str
) -> Iterator[tuple[Daemon, str]]:
    """A daemon that knows ``ann`` by her certificate, and its TLS address."""
    certificate, key = signed or authority.sign("localhost")
    values = {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.ca), **tls}
    config = "[rpc.tls]\n" + "".join(f'{name} = "{value}"\n' for name, value in values.items())
    with Daemon(folder, "--rpc", "tls:localhost:0", "--rpc", "tcp:localhost:0", config=config) as daemon:
        with daemon.client() as client:
            client.call("create_domain", {"id": "home"})
            client.call("create_user", {"id": "ann", "domain": "home", "identities": ["ann.example"]})
        yield daemon, f"tls:localhost:{port_of(daemon, 'tls')}"


def port_of(daemon: Daemon, kind: str) -> int:
    """Where a daemon listens on TCP, with TLS or without."""
    (address,) = set(re.findall(rf"{kind}:127[^ ,\"]+", daemon.log()))
    return int(address.rpartition(":")[2])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


def whoever_shows(authority: Authority, name: str | None) -> Callable[[str], Any]:
    """Asks who he is, over TLS, with a certificate for that name."""
    shown = authority.sign(name) if name is not None else ()
    tls = client_context(authority.ca, *shown)

    def ask(address: str) -> Any:
        with BlockingClient(address, tls=tls, within=HANG_SECONDS) as client:
            return client.call("status").user

    return ask


def test_where_certificates_are_required_nobody_is_heard_without(tmp_path: Path, authority: Authority) -> None:
    with served(tmp_path, authority, client_certificates="required") as (daemon, address):
        assert whoever_shows(authority, "ann.example")(address) == "ann"
        with pytest.raises(NotAuthenticated, match="a client certificate is required"):
            whoever_shows(authority, None)(address)
        with pytest.raises(NotAuthenticated, match="stands for no user"):
            whoever_shows(authority, "bob.example")(address)
        with daemon.client() as client:
            assert client.call("status").user == "@local"


async def refusal(address: str, tls: ssl.SSLContext | None) -> str:
    """The error that both clients have, without waiting for anything."""
    found = []
    with BlockingClient(address, tls=tls) as client, pytest.raises(TlsFailed) as blocking:
        client.call("status")
    found.append(str(blocking.value))
    with trio.fail_after(HANG_SECONDS), pytest.raises(TlsFailed) as waiting:
        async with open_client(address, tls=tls) as other:
            await other.call("status")
    found.append(str(waiting.value))
    assert found[0] == found[1]
    return found[0]


async def test_a_client_whose_certificate_is_no_good_is_told_so_by_an_alert(
    tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "other").mkdir()
    foreign = Authority(tmp_path / "other", "a foreign authority").sign("ann.example")
    with served(tmp_path, authority) as (daemon, address):
        for shown, expected in (
            (authority.sign("ann.example", expired=True), "the client certificate has expired"),
            (foreign, "the service does not trust the authority of the client certificate"),
        ):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = client_context(authority.ca, *shown)
                context.maximum_version = version
                assert expected in await refusal(address, context)
        # Of unknown peers only the first is logged at once; those after it are counted.
        assert "no TLS with a client: its certificate is invalid: certificate has expired" in daemon.log()
        assert whoever_shows(authority, "ann.example")(address) == "ann"


async def test_a_service_whose_certificate_is_no_good_is_not_spoken_to(tmp_path: Path, authority: Authority) -> None:
    for folder in ("other", "foreign", "expired", "wrong"):
        (tmp_path / folder).mkdir()
    with served(tmp_path / "foreign", Authority(tmp_path / "other")) as (_, address):
        assert "no authority that is trusted (name the authority" in await refusal(
            address, client_context(authority.ca)
        )
        assert "no authority that is trusted" in await refusal(address, None)
    expired = authority.sign("localhost", expired=True)
    with served(tmp_path / "expired", authority, signed=expired) as (_, address):
        assert "the service's certificate has expired" in await refusal(address, client_context(authority.ca))
    with served(tmp_path / "wrong", authority, signed=authority.sign("elsewhere")) as (_, address):
        assert "is not valid for 'localhost'" in await refusal(address, client_context(authority.ca))


async def test_whoever_speaks_tls_where_there_is_none_or_none_where_there_is_learns_it(
    tmp_path: Path, authority: Authority
) -> None:
    with served(tmp_path, authority) as (daemon, address):
        tls, tcp = port_of(daemon, "tls"), port_of(daemon, "tcp")
        context = client_context(authority.ca)
        assert "the service speaks no TLS there (is tcp: meant" in await refusal(f"tls:localhost:{tcp}", context)
        assert "this is TLS, which is not spoken on this port" in daemon.log()  # the first of unknown peers
        assert "this port speaks TLS, and nothing else (use tls:" in await refusal(f"tcp:localhost:{tls}", None)
        with socket.create_connection(("localhost", tls)) as stranger:  # a silent peer holds up no other connection
            assert whoever_shows(authority, "ann.example")(address) == "ann"
            stranger.shutdown(socket.SHUT_WR)
            assert len(stranger.recv(100)) < 10
        assert "unexpected eof" not in daemon.log()  # a probe of the port is not logged


def test_where_they_are_optional_a_token_will_do(tmp_path: Path, authority: Authority) -> None:
    with served(tmp_path, authority) as (daemon, address):
        assert whoever_shows(authority, None)(address) is None
        assert whoever_shows(authority, "ann.example")(address) == "ann"
        with daemon.client() as client:
            token = client.call("create_token", {"user": "ann"}).token
        with BlockingClient(address, tls=client_context(authority.ca), token=token) as client:
            assert client.call("status").user == "ann"


@pytest.mark.parametrize(("oldest", "spoken"), [("1.2", {"TLSv1.2", "TLSv1.3"}), ("1.3", {"TLSv1.3"})])
def test_protocols_older_than_the_oldest_wanted_are_not_spoken(
    tmp_path: Path, authority: Authority, oldest: str, spoken: set[str]
) -> None:
    heard = set()
    with served(tmp_path, authority, minimum_version=oldest) as (_, address):
        port = int(address.rpartition(":")[2])
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(authority.ca)
            context.minimum_version = context.maximum_version = version
            with socket.create_connection(("localhost", port)) as raw:
                try:
                    with context.wrap_socket(raw, server_hostname="localhost") as secured:
                        heard.add(secured.version())
                except ssl.SSLError:
                    continue
    assert heard == spoken


def test_the_command_line_shows_certificates(tmp_path: Path, authority: Authority) -> None:
    with served(tmp_path, authority, client_certificates="required") as (_, address):
        certificate, key = authority.sign("ann.example")
        command = [str(HOSTLER), "token", "list", "ann", "--server", address, "--ca", str(authority.ca)]
        shown = ["--certificate", str(certificate), "--private-key", str(key)]
        answer = subprocess.run([*command, *shown], capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
        assert (answer.returncode, answer.stderr) == (0, "")
        answer = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
        assert answer.returncode == 5
        assert answer.stderr == "hostler: a client certificate is required here (show one)\n"
        answer = subprocess.run(command[:-2], capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
        assert answer.returncode == 5
        assert answer.stderr == (
            "hostler: the service's certificate is of no authority that is trusted "
            "(name the authority that signed it (--ca))\n"
        )


def serial_of(address: str, authority: Authority) -> int:
    """Serial number of the certificate that a service shows now."""
    host, port = address.removeprefix("tls:").rsplit(":", 1)
    context = client_context(authority.ca)
    with (
        socket.create_connection((host, int(port)), HANG_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        shown = tls.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def reload(daemon: Daemon, said: str) -> None:
    """SIGHUP, and wait until the log says that it was obeyed."""
    assert daemon.process is not None
    before = daemon.log().count(said)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + HANG_SECONDS
    while daemon.log().count(said) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sighup_has_new_connections_use_the_certificate_that_the_files_hold_then(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.sign("localhost")
    with served(tmp_path, authority, signed=(certificate, key)) as (daemon, address):
        first, open_before = serial_of(address, authority), BlockingClient(address, tls=client_context(authority.ca))
        with open_before as client:
            client.call("status")
            authority.sign("localhost")  # into the same files
            assert serial_of(address, authority) == first
            reload(daemon, "the configuration was read again")
            second = serial_of(address, authority)
            assert second != first
            assert "needs a restart" not in daemon.log()
            assert client.call("status").ready  # on the connection that it had
        key.write_text("no key")
        reload(daemon, "the configuration stays as it was")
        assert serial_of(address, authority) == second
