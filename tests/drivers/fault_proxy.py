"""A proxy between a driver and a back end over HTTP, which loses, breaks and replaces answers."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple

from ..patience import HANG_SECONDS
from .outages import Outages

Fault = Literal["none", "lose answer", "truncate"]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Request(NamedTuple):
    method: str
    path: str
    body: bytes


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class FaultProxy:
    """``changes``: whether a request changes something; only those are disturbed by ``lose_answers``. ``instead``: an
    answer without asking the back end, or None. ``seen``: called with each answer of the back end. ``tls``: the back
    end is asked over HTTPS, without a check of its certificate."""

    def __init__(self, host: str, port: int, changes: Callable[[Request], bool], *, tls: bool = False) -> None:
        self._host, self._port, self._changes, self._tls = host, port, changes, tls
        self.fault: Fault = "none"
        self.instead: Callable[[Request], Answer | None] = lambda request: None
        self.seen: Callable[[Request, Answer], None] = lambda request, answer: None
        self.requests: list[Request] = []
        self.outage = Outages()
        self._going_on = threading.Event()
        self._going_on.set()
        self._open, self._idle = 0, threading.Condition()
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536  # answers leave in one piece

            def log_message(self, *_: object) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):
                    self.close_connection = True

            def do_GET(self) -> None:
                proxy._handle(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        with self._idle:
            self._open += 1
        try:
            self._carry(handler)
        finally:
            with self._idle:
                self._open -= 1
                self._idle.notify_all()

    def _carry(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        request = Request(handler.command, handler.path, handler.rfile.read(length))
        with self._lock:
            self.requests.append(request)
            gone, arrives = self.outage.fate()
        self._going_on.wait()
        if gone and not arrives:
            handler.close_connection = True
            return
        answer = self.instead(request)
        if answer is None:
            answer = self._forward(handler, request)
            self.seen(request, answer)
        if gone:
            handler.close_connection = True
            return
        disturbed = self.fault if self._changes(request) else "none"
        if disturbed == "lose answer":
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        if disturbed == "truncate":
            handler.close_connection = True
            handler.wfile.write(answer.body[: len(answer.body) // 2])
        elif request.method != "HEAD":
            handler.wfile.write(answer.body)

    def _forward(self, handler: BaseHTTPRequestHandler, request: Request) -> Answer:
        connection = self._connection()
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in HOP_BY_HOP}
        headers["Host"] = handler.headers.get("Host", "")
        connection.request(request.method, request.path, request.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return Answer(answer.status, dict(answer.getheaders()), body)

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls:
            unchecked = ssl._create_unverified_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=HANG_SECONDS, context=unchecked)
        return http.client.HTTPConnection(self._host, self._port, timeout=HANG_SECONDS)

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        """Within it, requests that change something are carried out, and the connection is closed without an answer."""
        self.fault = "lose answer"
        try:
            yield
        finally:
            self.fault = "none"

    @contextmanager
    def hang(self) -> Iterator[None]:
        """Within it, no request goes further; at its end all do, and the context ends once they are carried out."""
        self._going_on.clear()
        try:
            yield
        finally:
            self._going_on.set()
            with self._idle:
                self._idle.wait_for(lambda: self._open == 0, timeout=HANG_SECONDS)

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        self._thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
