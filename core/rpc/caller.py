"""The client side of the protocol without I/O: messages, answers, and retries.

``Client`` combines ``Caller`` with trio's sockets and clock, ``BlockingClient`` with those of the standard library.
"""

from __future__ import annotations

import math
import random
import secrets
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import msgspec

from ...placement.types.errors import HostlerError, InvalidValue, UnknownName
from ...placement.types.request import Request
from ..engine_commands import asked
from ..errors import (
    DeadlineExceeded,
    InternalError,
    LeadershipLost,
    NotLeader,
    Overloaded,
    Stopped,
    StorageFailed,
    TooStale,
)
from ..machine.event_log import Event
from ..tenancy.errors import NotAuthenticated
from .addresses import Address
from .framing import BadFrame, Framer
from .messages import MAX_ID, Answer, Notification, encode, read_answer, read_error
from .methods import METHODS
from .tls import TlsFailed

FRAME_BYTES: Final = 256 << 20
"""Longest message that a client takes from its server."""
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 2.0
SEARCH_PAUSE: Final = 0.1
"""The longest one while there are other addresses to try."""
HANGS_SECONDS: Final = 5.0
"""Without an answer, after which another address is tried, if there are several; with questions, some of which take
long, twice as long each time."""
TIMEOUT: Final = 30.0
EVENTS_KEPT: Final = 10_000

Params = Mapping[str, Any] | msgspec.Struct | None
AnyAddress = str | Address | Sequence[str | Address]
"""One, or those of the members of a cluster."""


class ConnectionLost(HostlerError):
    """The connection failed or was lost; the message says whether the command may have been applied."""

    code = "connection_lost"


_LOST: Final = (ConnectionLost, DeadlineExceeded, LeadershipLost, StorageFailed, InternalError)
"""Errors of a command that was sent, and that may be carried out all the same."""


class Wire:
    """The protocol state of one connection: numbers calls, and assigns received answers."""

    def __init__(self) -> None:
        self._framer = Framer(FRAME_BYTES)
        self._last = 0
        self.dismissal: HostlerError | None = None
        """Reason for which the server closes the connection, if it sent one."""

    def call(self, method: str, params: Params, options: Mapping[str, Any]) -> tuple[int, bytes]:
        """(id, bytes) of a call. InvalidValue for parameters that cannot be sent."""
        self._last = self._last % MAX_ID + 1
        given: list[Any] = [{} if params is None else params]
        if options:
            given.append(options)
        try:
            return self._last, encode((0, self._last, method, given))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidValue(f"the parameters of {method} cannot be sent: {error}", field="params") from None

    def feed(self, data: bytes) -> list[Answer | Event]:
        """Complete messages received. BadFrame for an invalid message."""
        self._framer.feed(data)
        found: list[Answer | Event] = []
        while (frame := self._framer.next()) is not None:
            message = read_answer(frame)
            if isinstance(message, Answer):
                found.append(message)
            elif message.method == "event":
                found.append(_event(message))
            elif message.method == "error":
                self.dismissal = _dismissal(message)
        return found

    def lost(self, why: str) -> HostlerError:
        """The error for calls without an answer when the connection is lost."""
        return self.dismissal if self.dismissal is not None else ConnectionLost(why)


class Progress:
    """Position of a subscription, so that it can continue on another connection: all events up to sequence number
    ``complete`` have been received, and the first ``partly`` ones of ``current``."""

    def __init__(self) -> None:
        self.complete = self.current = -1
        self.partly = self._repeated = 0

    def begin(self, sequence: int) -> None:
        """The service sends events after this command."""
        if sequence > self.current:
            self.complete = self.current = sequence
            self.partly = 0

    def resume(self) -> int:
        """The command after which to resume; events that were received already are skipped."""
        self._repeated = self.partly
        return self.complete

    def is_new(self, event: Event) -> bool:
        """Record an event; False if it is a repetition."""
        if event.kind in ("capacity", "summary"):
            return True
        if event.kind == "gap":
            self.complete = self.current = event.sequence - 1
            self.partly = self._repeated = 0
            return True
        if event.sequence == self.current and self._repeated:
            self._repeated -= 1
            return False
        if event.sequence != self.current:
            self.complete, self.current, self.partly, self._repeated = event.sequence - 1, event.sequence, 0, 0
        self.partly += 1
        return True


class Caller:
    """Calls with deadlines, reconnection and safe repetition. A command that changes something gets an idempotency key
    unless it is given one, so that it can be repeated after a lost connection without being done twice. What was
    watched is watched again on a new connection, from where it was lost. ``patience``: seconds to wait for a service
    that was never there.

    Of several addresses the next one is tried where one fails. A member of a cluster that does not lead names the one
    that does, and the call goes there, as do all after it."""

    def __init__(
        self,
        address: AnyAddress,
        *,
        token: str | None = None,
        within: float = TIMEOUT,
        patience: float = math.inf,
    ) -> None:
        given = [address] if isinstance(address, str | Address) else list(address)
        if not given:
            raise InvalidValue("there must be an address", field="address")
        self.addresses = [Address.parse(each) if isinstance(each, str) else each for each in given]
        self.address = self.addresses[0]
        """Where calls go now."""
        self.within, self.patience = within, patience
        self._met = False
        self._token = token
        self._pauses = random.Random(secrets.randbits(64))
        self._watched: Params = None
        self._progress = Progress()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(map(str, self.addresses))}>"

    def renew(self, token: str | None) -> None:
        """Authenticate with another token: calls from now on go over a new connection."""
        if token != self._token:
            self._token = token
            self._leave()

    # what the two kinds of client differ in

    @abstractmethod
    async def _connect(self, deadline: float) -> None:
        """Connect if necessary. ConnectionLost."""

    @abstractmethod
    async def _transfer(self, calls: Sequence[tuple[int, bytes]], deadline: float) -> Mapping[int, Answer]:
        """Send calls, and wait for all their answers. ConnectionLost, DeadlineExceeded, or why the server has closed
        the connection."""

    @property
    @abstractmethod
    def _wire(self) -> Wire:
        """The protocol of the current connection. ConnectionLost if there is none."""

    @abstractmethod
    def _leave(self) -> None:
        """Have the next call connect to ``address``. Answers that are on their way may still arrive."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    @abstractmethod
    def _now(self) -> float: ...

    # what they share

    def _deadline(self, within: float | None) -> float:
        return self._now() + (self.within if within is None else within)

    async def _call(
        self, method: str, params: Params, key: str | None, within: float | None, stale_ms: float | None = None
    ) -> Any:
        known = METHODS.get(method)
        if known is None:
            raise UnknownName.among("method", method, METHODS)
        if stale_ms is not None and known.kind != "question":
            raise InvalidValue(f"{method} is no question: it has no stale_ms", field="stale_ms")
        deadline = self._deadline(within)
        if known.journalled and key is None:
            key = secrets.token_hex(12)
        answer = await self._until_answered(method, params, key, deadline, stale_ms)
        if answer.error is not None:
            raise answer.error
        try:
            result = read_result(method, answer.result)
        except InvalidValue as error:
            error.maybe_done = known.journalled
            raise
        if method == "watch":
            self._watched = params
            self._progress.begin(result)
        elif method == "unwatch":
            self._watched = None
        return result

    async def _until_answered(
        self, method: str, params: Params, key: str | None, deadline: float, stale_ms: float | None = None
    ) -> Answer:
        """The answer, reconnecting as often as necessary. Calls refused by an overloaded server are retried, and so are
        calls that are safe to repeat: queries, and commands with a key. An error says (``maybe_done``) whether a
        command may have been carried out in spite of it."""
        doubt = _Doubt(METHODS[method].kind == "command")
        with doubt:
            return await self._repeated(method, params, key, deadline, stale_ms, doubt)

    async def _repeated(
        self, method: str, params: Params, key: str | None, deadline: float, stale_ms: float | None, doubt: _Doubt
    ) -> Answer:
        pause, impatient = FIRST_PAUSE, deadline
        if not self._met:
            impatient = min(deadline, self._now() + self.patience)
        longest, straight = (LONGEST_PAUSE if len(self.addresses) == 1 else SEARCH_PAUSE), False
        asks = METHODS[method].kind == "question" or method == "status"
        sent, repeatable = False, key is not None or asks or method in _REPEATABLE
        tried = _Tried(self.addresses)
        hangs = HANGS_SECONDS if len(self.addresses) > 1 and (key is not None or asks) else math.inf
        while True:
            asked = self.address
            try:
                await self._connect(deadline)
                sent, asked = True, self.address
                self._met = True
                answer = await self._exchange(method, params, key, deadline, stale_ms, doubt, hangs)
                moved = self._moves(answer.error, repeatable, asked, tried)
                if not (moved or isinstance(answer.error, Overloaded)) or self._now() + pause >= deadline:
                    return answer
                if moved == "there" and not straight:
                    straight = True
                    continue
            except ConnectionLost as error:
                if (sent and not repeatable) or self._now() + pause >= (deadline if self._met else impatient):
                    raise _given_up(error, sent and METHODS[method].kind != "question", key) from error
                self._next_address(asked)
                tried.failed(asked)
            except (NotAuthenticated, TlsFailed):  # of several addresses one may be wrong, or its member behind
                if tried.refused(asked) or self._now() + pause >= deadline:
                    raise
                self._next_address(asked)
            except DeadlineExceeded:  # this member hangs: another one may lead meanwhile
                if hangs == math.inf or self._now() + pause >= deadline:
                    raise
                if asks:  # or it is a question that takes long
                    hangs *= 2
                self._next_address(asked)
                tried.failed(asked)
            except Overloaded:  # too many connections
                if self._now() + pause >= deadline:
                    raise
            await self._sleep(pause * (0.5 + self._pauses.random() / 2))
            pause = min(2 * pause, longest)

    def _moves(self, error: HostlerError | None, repeatable: bool, asked: Address, tried: _Tried) -> str:
        """Go on at another member if this one does not lead: "there" if it names the one that does, "on" to the next
        address, "" to stay: the error is the answer. ``asked``: where the call went."""
        if isinstance(error, NotLeader | TooStale):
            for there in map(Address.parse, error.leader):
                if there.kind != asked.kind or there == asked or tried.in_vain(there):
                    continue
                if there != self.address:
                    self.address = there
                    self._leave()
                return "there"
            if isinstance(error, NotLeader) or len(self.addresses) > 1:
                self._next_address(asked)
                return "on"
        elif repeatable and (
            isinstance(error, LeadershipLost) or (isinstance(error, Stopped) and len(self.addresses) > 1)
        ):
            self._next_address(asked)
            return "on"
        return ""

    def _next_address(self, asked: Address) -> None:
        """Try the address behind the one that was asked, unless another call has done so."""
        if self.address != asked:
            return
        if len(self.addresses) > 1:
            at = self.addresses.index(self.address) if self.address in self.addresses else -1
            self.address = self.addresses[(at + 1) % len(self.addresses)]
            self._leave()
        elif self.address != self.addresses[0]:
            self.address = self.addresses[0]
            self._leave()

    async def _exchange(
        self,
        method: str,
        params: Params,
        key: str | None,
        deadline: float,
        stale_ms: float | None,
        doubt: _Doubt,
        hangs: float,
    ) -> Answer:
        """One attempt; DeadlineExceeded after ``hangs`` seconds without an answer."""
        options: dict[str, Any] = (
            {} if key is None else {"key": key, "timeout": min(max(deadline - self._now(), 0.0), 86_400.0)}
        )
        if stale_ms is not None:
            options["stale_ms"] = stale_ms
        number, data = self._wire.call(method, params, options)
        deadline = min(deadline, self._now() + hangs)
        earlier = doubt.unanswered
        doubt.unanswered = True
        answer = (await self._transfer([(number, data)], deadline))[number]
        doubt.unanswered = earlier or isinstance(answer.error, _LOST)
        if answer.error is not None:
            doubt.note(answer.error)
        return answer

    async def _pipeline(self, calls: Iterable[tuple[str, Params]], within: float | None) -> list[Any]:
        deadline = self._deadline(within)
        await self._connect(deadline)
        wire = self._wire
        made = [(method, wire.call(method, params, {})) for method, params in calls]
        answers = await self._transfer([call for _, call in made], deadline)
        results: list[Any] = []
        for method, (number, _) in made:
            answer = answers[number]
            results.append(answer.error if answer.error is not None else read_result(method, answer.result))
        return results

    async def _batch(self, calls: Iterable[tuple[str, Params]], within: float | None) -> list[Any]:
        params = {"calls": [(method, [{} if given is None else given]) for method, given in calls]}
        answers: list[tuple[Any, Any]] = await self._call("batch", params, None, within)
        return [result if error is None else read_error(msgspec.Raw(encode(error))) for error, result in answers]

    async def _greet(self, deadline: float) -> None:
        """Authenticate on a new connection, select full errors, and resume the subscription. ConnectionLost where a
        member of several does not answer: another one may."""
        hello = {"errors": "map"} if self._token is None else {"errors": "map", "token": self._token}
        calls = [self._wire.call("hello", hello, {})]
        if self._watched is not None:
            wish = msgspec.to_builtins(self._watched) | {"after": self._progress.resume()}
            calls.append(self._wire.call("watch", wish, {}))
        patience = self._now() + HANGS_SECONDS if len(self.addresses) > 1 else math.inf
        try:
            answers = await self._transfer(calls, min(deadline, patience))
        except DeadlineExceeded:
            if self._now() < patience:
                raise
            raise ConnectionLost(f"{self.address} does not answer") from None
        for answer in answers.values():
            if answer.error is not None:
                raise answer.error


class _Doubt:
    """Whether a command that was sent, perhaps several times, may have been carried out although no answer says so."""

    def __init__(self, command: bool) -> None:
        self._command = command
        self.unanswered = False

    def note(self, error: HostlerError) -> None:
        """Have an error say so."""
        if self._command and self.unanswered:
            error.maybe_done = True

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, HostlerError):
            self.note(error)


class _Tried:
    """Addresses that one call has tried in vain."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses, self._failed = addresses, dict[Address, int]()
        self._seen, self._refused = set[Address](), set[Address]()

    def failed(self, address: Address) -> None:
        """There was no connection, or no answer: members that name it are asked no more for some time, in which each
        address has its turn, since the leader may be reached at another one."""
        self._failed[address] = len(self._addresses)
        self._seen.add(address)

    def in_vain(self, address: Address) -> bool:
        """True for an address that a member names, and that is not to be tried now."""
        left = self._failed.get(address, 0)
        self._failed[address] = max(left - 1, 0)
        return left > 0

    def refused(self, address: Address) -> bool:
        """This client is not let in there. True if that is so for the second time, or no address is left that might."""
        again = address in self._refused
        self._refused.add(address)
        self._seen.add(address)
        return again or self._seen.issuperset(self._addresses)


_REPEATABLE: Final = ("hello", "status", "watch", "unwatch", "snapshot")


def _given_up(error: ConnectionLost, maybe_done: bool, key: str | None) -> ConnectionLost:
    text = str(error.args[0])
    if maybe_done:
        hint = None if key is None else f"ask again with the key {key}"
        return ConnectionLost(f"{text}; the command may have been carried out", hint=hint)
    return ConnectionLost(text, hint="is the service running, and is the address right?")


def _event(note: Notification) -> Event:
    try:
        return msgspec.msgpack.decode(note.params, type=tuple[Event])[0]
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadFrame(f"not an event: {error}") from None


def _dismissal(note: Notification) -> HostlerError:
    try:
        (error,) = msgspec.msgpack.decode(note.params, type=tuple[msgspec.Raw])
    except (msgspec.MsgspecError, ValueError):
        return ConnectionLost("the server closed the connection")
    return read_error(error)


def read_result(method: str, raw: msgspec.Raw) -> Any:
    """An answer converted to the method's type. InvalidValue if that fails: the service has another version."""
    decoder = _DECODERS.get(method)
    if decoder is None:
        decoder = _DECODERS[method] = msgspec.msgpack.Decoder(METHODS[method].result)
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        hint = "is the service of another version?"
        raise InvalidValue(f"the answer of {method} cannot be read: {error}", field="result", hint=hint) from None


_DECODERS: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {}


def late() -> DeadlineExceeded:
    """The client's own deadline has passed."""
    text = "no answer in time: a command may have been carried out"
    return DeadlineExceeded(text, field="timeout", hint="ask again with the same key")


def place_params(request: Request) -> dict[str, Any]:
    """Parameters of ``place``. InvalidValue for values that cannot be sent."""
    try:
        return {"request": asked(request)}
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"the request cannot be sent: {error}", field="request") from None


def place_many_params(requests: Iterable[Request]) -> dict[str, Any]:
    """Parameters of ``place_many``. InvalidValue for values that cannot be sent."""
    return {"requests": [place_params(request)["request"] for request in requests]}
