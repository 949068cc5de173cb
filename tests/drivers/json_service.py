"""A JSON service in a thread, for stand-ins of back ends: one function answers all requests, one at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit


class Call(NamedTuple):
    """A request. ``parts``: its path, split and unquoted; ``host``: of the address that the client used."""

    method: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    host: str


class Reply(NamedTuple):
    """An answer; ``body`` is sent as JSON, None as nothing."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = {}


@contextmanager
def served(answer: Callable[[Call], Reply]) -> Iterator[tuple[str, int]]:
    """Host and port, while the service answers."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            raw, url = self.rfile.read(int(self.headers.get("Content-Length") or 0)), urlsplit(self.path)
            parts = tuple(unquote(part) for part in url.path.split("/")[1:])
            query, headers = dict(parse_qsl(url.query)), {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(raw) if raw else None
            with lock:
                reply = answer(Call(self.command, parts, query, body, headers, headers.get("host", "")))
            sent = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield "127.0.0.1", int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
