"""One peer's session: calls in, answers out. It knows no sockets; whoever has one feeds it messages and sends bytes."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any, Final

import trio

from ...placement.errors import HostlerError, InvalidValue, UnknownName
from ..errors import InternalError
from ..queries import Query
from ..service import Identity, Service
from ..tenancy.tenants import CLOUD
from ..writer import Pending
from .messages import (
    NO_OPTIONS,
    Call,
    ErrorStyle,
    Options,
    Send,
    answer,
    encode,
    error_object,
    failure,
    read_call,
    read_params,
)
from .methods import METHODS, Batch, Hello, Issue, Status, StatusOf, TakeSnapshot, Unwatch, Watch, Welcome
from .watching import Subscription, Watchers

VERSION: Final = version("hostler")
EVENT_BACKLOG: Final = 1 << 20
"""Bytes waiting to be sent above which events are left out."""

log = logging.getLogger("hostler.rpc")
_numbers = itertools.count(1)

Reply = Callable[[Any, HostlerError | None], None]
"""Called once with the result or the error of a call."""


class Session:
    """State of one connection. ``feed`` is given its messages; ``outstanding`` calls have no answer yet."""

    def __init__(
        self,
        service: Service,
        watchers: Watchers,
        identity: Identity,
        send: Send,
        *,
        backlog: Callable[[], int],
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
    ) -> None:
        self._service, self._watchers, self.identity = service, watchers, identity
        self._send, self._backlog, self._spawn = send, backlog, spawn
        self._style: ErrorStyle = "list"
        self._number = next(_numbers)
        self._pending: set[Pending[Any, Any]] = set()
        self.outstanding = 0
        self.closed = False

    def feed(self, frame: bytes) -> None:
        """Take a message in. BadFrame if it is none that a client may send."""
        call = read_call(frame)
        if call.id is None:
            self._begin(call, lambda result, error: None)
            return
        self.outstanding += 1
        number = call.id

        def reply(result: Any, error: HostlerError | None) -> None:
            self.outstanding -= 1
            if not self.closed:
                self._send(self._encoded(number, call.method, result, error))

        self._begin(call, reply)

    def close(self) -> None:
        """The peer is gone: what waits in the queue is taken back, and nothing is sent any more."""
        self.closed = True
        self._watchers.drop(self._number)
        for pending in self._pending:
            self._service.writer.cancel(pending)
        self._pending.clear()

    def _encoded(self, number: int, method: str, result: Any, error: HostlerError | None) -> bytes:
        if error is not None:
            return failure(number, error, self._style)
        try:
            return answer(number, result)
        except (TypeError, ValueError, OverflowError):
            log.exception("the answer of %s cannot be sent", method)
            return failure(number, InternalError("the answer cannot be sent"), self._style)

    def _begin(self, call: Call, reply: Reply) -> None:
        """Start on a call; ``reply`` is called now or later, once."""
        try:
            method = METHODS.get(call.method)
            if method is None:
                raise UnknownName.among("method", call.method, METHODS)
            params, options = read_params(call.params, method.params)
            if method.journalled:
                self._order(call, params, options, reply)
                return
            if options is not NO_OPTIONS:
                raise InvalidValue(f"{call.method} takes no options", field="options")
            if isinstance(params, Query):
                result = self._service.ask(self.identity, params)
            else:
                self._own(params, reply)
                return
        except HostlerError as error:
            reply(None, error)
        except Exception:
            log.exception("%s failed in an unforeseen way", call.method)
            reply(None, InternalError("the call failed in an unforeseen way; the service's log says how"))
        else:
            reply(result, None)

    # commands

    def _order(self, call: Call, command: Any, options: Options, reply: Reply) -> None:
        deadline = None
        if options.timeout is not None:
            deadline = trio.current_time() + options.timeout

        def done(pending: Pending[Any, Any]) -> None:
            self._pending.discard(pending)
            error = pending.error
            reply(pending.result, error if isinstance(error, HostlerError) else None)

        fingerprint = b"" if options.key is None else _fingerprint(command)
        pending = self._service.order(
            self.identity, command, done, key=options.key, fingerprint=fingerprint, deadline=deadline
        )
        if pending.state != "done":
            self._pending.add(pending)

    # what is about the session itself

    def _own(self, params: Any, reply: Reply) -> None:
        match params:
            case Hello(token=token, errors=style):
                if token is not None:
                    self._service.log_in(self.identity, token)
                self._style = style
                reply(Welcome(self.identity.user, VERSION), None)
            case Status():
                reply(self._status(), None)
            case Batch(calls=calls):
                self._batch(calls, reply)
            case Issue():
                self._issue(params, reply)
            case Watch():
                user = self._service.user(self.identity)
                self._watchers.add(self._number, Subscription(params, user, self._send, self._backlog, EVENT_BACKLOG))
                reply(None, None)
            case Unwatch():
                self._watchers.drop(self._number)
                reply(None, None)
            case TakeSnapshot():
                user = self._service.user(self.identity)
                self._service.state.tenants.require(user, "cloud_admin", CLOUD)
                self._spawn(lambda: self._snapshot(reply))

    def _status(self) -> StatusOf:
        writer = self._service.writer
        return StatusOf(
            ready=writer.writable,
            writable=writer.writable,
            sequence=writer.sequence,
            queued=writer.queued,
            hosts=int(self._service.state.fleet.is_host.sum()),
            version=VERSION,
        )

    def _batch(self, calls: list[tuple[str, Any]], reply: Reply) -> None:
        answers: list[tuple[Any, Any] | None] = [None] * len(calls)
        waiting = len(calls)

        def take(position: int) -> Reply:
            def one(result: Any, error: HostlerError | None) -> None:
                nonlocal waiting
                answers[position] = (None if error is None else error_object(error, self._style), result)
                waiting -= 1
                if waiting == 0:
                    reply(answers, None)

            return one

        if not calls:
            reply([], None)
        for position, (name, params) in enumerate(calls):
            if name == "batch":
                take(position)(None, InvalidValue("a batch within a batch", field="calls"))
            else:
                self._begin(Call(None, name, params), take(position))

    def _issue(self, wish: Issue, reply: Reply) -> None:
        user = wish.user if wish.user is not None else self._service.user(self.identity)
        command, token = self._service.new_token(user, wish.days)

        def done(pending: Pending[Any, Any]) -> None:
            error = pending.error
            reply(token if error is None else None, error if isinstance(error, HostlerError) else None)

        self._service.order(self.identity, command, done)

    async def _snapshot(self, reply: Reply) -> None:
        try:
            sequence = await self._service.writer.snapshot()
        except HostlerError as error:
            reply(None, error)
        else:
            reply(sequence, None)


def _fingerprint(command: Any) -> bytes:
    """Of what is asked, so that a key cannot come again with something else."""
    return hashlib.blake2b(encode(command), digest_size=8).digest()
