"""TLS of a real daemon: which clients are heard, and as whom."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostler.core.client import BlockingClient
from hostler.core.rpc.caller import ConnectionLost
from hostler.core.rpc.tls import client_context
from hostler.core.tenancy.errors import NotAuthenticated
from tests.rpc.serving import Authority

from .processes import HOSTLER, Daemon


@contextmanager
def served(folder: Path, authority: Authority, **tls: str) -> Iterator[tuple[Daemon, str]]:
    """A daemon that knows ``ann`` by her certificate, and its TLS address."""
    certificate, key = authority.sign("localhost")
    values = {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.ca), **tls}
    config = "[rpc.tls]\n" + "".join(f'{name} = "{value}"\n' for name, value in values.items())
    with Daemon(folder, "--rpc", "tls:localhost:0", config=config) as daemon:
        with daemon.client() as client:
            client.call("create_domain", {"id": "home"})
            client.call("create_user", {"id": "ann", "domain": "home", "identities": ["ann.example"]})
        (address,) = re.findall(r"tls:[^ ,\"]+", daemon.log().splitlines()[-1])
        yield daemon, f"tls:localhost:{address.rpartition(':')[2]}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


def whoever_shows(authority: Authority, name: str | None) -> Callable[[str], Any]:
    """Asks who he is, over TLS, with a certificate for that name."""
    shown = authority.sign(name) if name is not None else ()
    tls = client_context(authority.ca, *shown)

    def ask(address: str) -> Any:
        with BlockingClient(address, tls=tls, within=5.0) as client:
            return client.call("status").user

    return ask


def test_where_certificates_are_required_nobody_is_heard_without(tmp_path: Path, authority: Authority) -> None:
    with served(tmp_path, authority, client_certificates="required") as (daemon, address):
        assert whoever_shows(authority, "ann.example")(address) == "ann"
        with pytest.raises(NotAuthenticated, match="a client certificate is required"):
            whoever_shows(authority, None)(address)
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other")
        context = client_context(authority.ca, *stranger.sign("ann.example"))
        with BlockingClient(address, tls=context, within=0.5) as client, pytest.raises(ConnectionLost):
            client.call("status")
        with pytest.raises(NotAuthenticated, match="stands for no user"):
            whoever_shows(authority, "bob.example")(address)
        with daemon.client() as client:
            assert client.call("status").user == "@local"


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
        answer = subprocess.run([*command, *shown], capture_output=True, text=True, timeout=30, check=False)
        assert (answer.returncode, answer.stderr) == (0, "")
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert answer.returncode == 5
        assert answer.stderr == "hostler: a client certificate is required here (show one)\n"
