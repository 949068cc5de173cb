"""A client's side without input and output: what is sent, what answers mean, and when a call is tried again.

``Caller`` is written once; ``Client`` gives it trio's sockets and clock, ``BlockingClient`` those of the standard
library.
"""

from __future__ import annotations

import random
import secrets
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from ...placement.commands import asked
from ...placement.errors import HostlerError, InvalidValue, UnknownName
from ...placement.request import Request
from ..errors import DeadlineExceeded, Overloaded
from .addresses import Address
from .framing import Framer
from .messages import MAX_ID, Answer, Notification, encode, read_answer
from .methods import METHODS, Event

FRAME_BYTES: Final = 256 << 20
"""Longest message that a client takes from its server."""
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 2.0
TIMEOUT: Final = 30.0

Params = Mapping[str, Any] | msgspec.Struct | None


class ConnectionLost(HostlerError):
    """The connection could not be made, or broke; the message says whether the command may have been carried out."""

    code = "connection_lost"


class Wire:
    """One connection's protocol: numbers calls, and finds the answers in what comes."""

    def __init__(self) -> None:
        self._framer = Framer(FRAME_BYTES)
        self._last = 0

    def call(self, method: str, params: Params, options: Mapping[str, Any]) -> tuple[int, bytes]:
        """(id, bytes) of a call."""
        self._last = self._last % MAX_ID + 1
        given: list[Any] = [{} if params is None else params]
        if options:
            given.append(options)
        return self._last, encode((0, self._last, method, given))

    def feed(self, data: bytes) -> list[Answer | Notification]:
        """What has come complete. BadFrame for what no server sends."""
        self._framer.feed(data)
        found = []
        while (frame := self._framer.next()) is not None:
            found.append(read_answer(frame))
        return found


class Caller:
    """Calls with deadlines, reconnection and safe repetition. A command that changes something gets an idempotency key
    unless it is given one, so that it can be repeated after a lost connection without being done twice."""

    def __init__(self, address: str | Address, *, token: str | None = None, within: float = TIMEOUT) -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self.within = within
        self._token = token
        self._pauses = random.Random(secrets.randbits(64))

    # what the two kinds of client differ in

    @abstractmethod
    async def _connect(self, deadline: float) -> None:
        """Have a connection, if there is none. ConnectionLost."""

    @abstractmethod
    async def _exchange(self, method: str, params: Params, options: Mapping[str, Any], deadline: float) -> Answer:
        """Send a call, and wait for its answer. ConnectionLost, DeadlineExceeded."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    @abstractmethod
    def _now(self) -> float: ...

    # what they share

    async def _call(self, method: str, params: Params, key: str | None, within: float | None) -> Any:
        known = METHODS.get(method)
        if known is None:
            raise UnknownName.among("method", method, METHODS)
        deadline = self._now() + (self.within if within is None else within)
        if known.journalled and key is None:
            key = secrets.token_hex(12)
        answer = await self._until_answered(method, params, key, deadline)
        if answer.error is not None:
            raise answer.error
        return read_result(method, answer.result)

    async def _until_answered(self, method: str, params: Params, key: str | None, deadline: float) -> Answer:
        """The answer, however many connections it takes. What the server was too busy for is asked again."""
        pause = FIRST_PAUSE
        sent = False
        while True:
            try:
                await self._connect(deadline)
                sent = True
                answer = await self._exchange(method, params, self._options(key, deadline), deadline)
                if not isinstance(answer.error, Overloaded) or self._now() + pause >= deadline:
                    return answer
            except ConnectionLost as error:
                if self._now() + pause >= deadline:
                    raise _given_up(error, sent and key is not None, key) from error
            await self._sleep(pause * (0.5 + self._pauses.random() / 2))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _options(self, key: str | None, deadline: float) -> dict[str, Any]:
        return {} if key is None else {"key": key, "timeout": max(deadline - self._now(), 0.0)}

    async def _greet(self, deadline: float) -> None:
        """Say who we are on a new connection, and have its errors in full."""
        hello = {"errors": "map"} if self._token is None else {"errors": "map", "token": self._token}
        answer = await self._exchange("hello", hello, {}, deadline)
        if answer.error is not None:
            raise answer.error


def _given_up(error: ConnectionLost, maybe_done: bool, key: str | None) -> ConnectionLost:
    text = str(error.args[0])
    if maybe_done:
        return ConnectionLost(f"{text}; the command may have been carried out", hint=f"ask again with the key {key}")
    return ConnectionLost(text, hint="is the service running, and is the address right?")


def read_result(method: str, raw: msgspec.Raw) -> Any:
    """An answer as the type that the method has."""
    return msgspec.msgpack.decode(raw, type=METHODS[method].result)


def read_event(note: Notification) -> Event | None:
    """The event of a notification; None for another one."""
    if note.method != "event":
        return None
    return msgspec.msgpack.decode(note.params, type=tuple[Event])[0]


def late() -> DeadlineExceeded:
    """The client's own deadline has passed."""
    text = "no answer in time: a command may have been carried out"
    return DeadlineExceeded(text, field="timeout", hint="ask again with the same key")


def batch_of(calls: Iterable[tuple[str, Params]]) -> dict[str, Any]:
    """Parameters of ``batch``."""
    return {"calls": [(method, [{} if params is None else params]) for method, params in calls]}


def place_params(request: Request) -> dict[str, Any]:
    """Parameters of ``place``. InvalidValue for what cannot be sent."""
    try:
        return {"request": asked(request)}
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValue(f"the request cannot be sent: {error}", field="request") from None
