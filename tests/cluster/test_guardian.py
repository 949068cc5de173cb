"""The guardian of a member ends its lease when its process dies, and only then."""

from __future__ import annotations

import json
import os
import select
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from hostler.core.cluster.guardian import PROGRAM
from hostler.core.rpc.tls import server_context

from ..patience import HANG_SECONDS
from ..rpc.serving import Authority

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux 5.3")

MEMBER = """
import sys, trio
from hostler.core.cluster import guardian

guardian.RESTART_SECONDS = 0.05

async def live():
    one = guardian.Guardian({endpoints}, **{access})
    one.guard({lease})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        seen = None
        while True:
            await trio.sleep(0.01)
            if one.process is not None and one.process.pid != seen:
                seen = one.process.pid
                print(seen, flush=True)

trio.run(live)
"""


class Etcd(HTTPServer):
    """It notes what is asked of it: path, body and token."""

    def __init__(self) -> None:
        self.asked: Queue[tuple[str, Any, str | None]] = Queue()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Etcd

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.put((self.path, body, self.headers["authorization"]))
        found = b'{"token": "t1"}' if self.path.endswith("authenticate") else b"{}"
        self.send_response(200)
        self.send_header("content-length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def member(*endpoints: str, lease: int = 77, **access: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a guardian, which prints the guardian's number."""
    program = MEMBER.format(endpoints=list(endpoints), lease=lease, access=access)
    command, quiet = [sys.executable, "-c", program], subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def number_of_guardian(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def wait_for_its_end(guardian: int) -> None:
    """Wait until a process has ended, whether or not its parent has reaped it."""
    try:
        handle = os.pidfd_open(guardian)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], HANG_SECONDS)[0], "the guardian goes on"
    finally:
        os.close(handle)


@pytest.mark.parametrize("cause", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ends by an error"])
def test_the_lease_of_a_process_that_dies_is_ended_at_the_first_endpoint_that_is_there(
    etcd: Etcd, cause: signal.Signals
) -> None:
    with member("http://127.0.0.1:1", etcd.url) as process:
        guardian = number_of_guardian(process)
        process.send_signal(cause)
        wait_for_its_end(guardian)
    assert etcd.asked.get(timeout=HANG_SECONDS) == ("/v3/lease/revoke", {"ID": "77"}, None)


def test_a_guardian_authenticates_with_what_the_file_of_the_password_holds_then(etcd: Etcd, tmp_path: Path) -> None:
    file = tmp_path / "password"
    with member(etcd.url, user="hostler", password_file=str(file)) as process:
        guardian = number_of_guardian(process)
        file.write_text("secret\n")
        process.kill()
        wait_for_its_end(guardian)
    who = {"name": "hostler", "password": "secret"}
    assert etcd.asked.get(timeout=HANG_SECONDS) == ("/v3/auth/authenticate", who, None)
    assert etcd.asked.get(timeout=HANG_SECONDS) == ("/v3/lease/revoke", {"ID": "77"}, "t1")


def test_a_guardian_shows_the_certificate_of_its_member_and_trusts_its_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Etcd() as server:
        context = server_context(*authority.sign("localhost"), authority.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        certificate, key = authority.sign("member")
        files: dict[str, Any] = {"ca": str(authority.ca), "certificate": str(certificate), "key": str(key)}
        with member(f"https://localhost:{server.server_port}", **files) as process:
            guardian = number_of_guardian(process)
            process.kill()
            wait_for_its_end(guardian)
        server.shutdown()
        thread.join()
        assert server.asked.get(timeout=HANG_SECONDS)[0] == "/v3/lease/revoke"


def test_a_guardian_that_dies_is_replaced_and_one_without_a_lease_asks_nothing(etcd: Etcd) -> None:
    with member(etcd.url, lease=0) as process:
        first = number_of_guardian(process)
        os.kill(first, signal.SIGKILL)
        second = number_of_guardian(process)
        assert second != first
        os.kill(second, signal.SIGTERM)  # as service managers do to all processes of a service
        process.kill()
        wait_for_its_end(second)
    assert etcd.asked.empty()


def test_the_program_needs_nothing_but_the_standard_library() -> None:
    found = subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM), "1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=HANG_SECONDS,
    )
    assert (found.returncode, found.stderr) == (0, b"")  # process 1 is not its parent
