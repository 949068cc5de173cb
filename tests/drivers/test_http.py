"""Calls over HTTP: answers that are too long, and headers of bodies that were compressed."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hostler.drivers import http
from hostler.drivers.protocol import Transient, Unknown


class Answers(BaseHTTPRequestHandler):
    """``/long``: a body that does not end; ``/packed``: a compressed one; ``/slow``: one that comes after a second."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(1.0)
        self.send_response(200)
        if self.path == "/packed":
            body = gzip.compress(b"a" * 4_000_000)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while self.path == "/long":
                self.wfile.write(b"x" * 65_536)
        except OSError:
            return

    do_POST = do_GET


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["/long", "/packed"])
async def test_an_answer_that_is_too_long_is_not_read_to_its_end(
    endpoint: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 1 << 20)
    async with http.open_http(endpoint, concurrency=1) as client:
        with pytest.raises(Transient, match="more than 1048576 bytes"):
            await client.send("GET", path)
        with pytest.raises(Unknown, match="more than 1048576 bytes"):
            await client.send("POST", path)
        assert (await client.send("GET", "/short")).content == b"", "the connection is free again"


async def test_a_compressed_answer_is_read(endpoint: str) -> None:
    async with http.open_http(endpoint, concurrency=1) as client:
        assert len((await client.send("GET", "/packed")).content) == 4_000_000


async def test_an_answer_is_waited_for_as_long_as_its_back_end_may_take(endpoint: str) -> None:
    async with http.open_http(endpoint, concurrency=1, read_seconds=0.05) as client:
        with pytest.raises(Transient, match="did not answer: ReadTimeout"):
            await client.send("GET", "/slow")
        with pytest.raises(Unknown, match="did not answer: ReadTimeout"):
            await client.send("POST", "/slow")
