"""The session of one peer: calls in, answers out. Independent of sockets: the transport feeds it messages and sends
bytes."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import trio

from ...placement.types.decision import PackedDecision
from ...placement.types.errors import HostlerError, InvalidValue, UnknownName
from ..engine_commands import PlaceMany
from ..errors import DeadlineExceeded, InternalError
from ..machine.call_uuids import canonical, with_canonical_uuids
from ..machine.lifecycle_queries import guest_for
from ..machine.replicated import unpacked
from ..machine.request_limits import PART_SHAPES
from ..service import Identity, Reconciling, Regions, Service, Shadow
from ..tenancy.new_token import check_tokens
from ..tenancy.tenants import CLOUD, require_own_user
from ..writer.command_queue import Pending
from . import long_params
from .batch import BatchAnswers, answer_questions
from .cluster_calls import of_cluster
from .cluster_methods import Lead, Members, SnapshotFiles, SnapshotPart
from .messages import (
    NO_OPTIONS,
    Call,
    ErrorStyle,
    Options,
    Reply,
    answer,
    encode,
    failure,
    read_call,
    read_params,
    too_long,
)
from .methods import (
    METHODS,
    Backup,
    Batch,
    CheckBackend,
    Console,
    Hello,
    Issue,
    ListRegions,
    ListStrangers,
    Method,
    ShowReconcile,
    ShowRegionSummary,
    ShowShadow,
    Status,
    StatusOf,
    TakeSnapshot,
    Unwatch,
    Watch,
    Welcome,
)
from .watching import Watchers

VERSION: Final = version("hostler")
BATCH_CALLS: Final = 16
LONG_PARAMS: Final = 4_096
"""So many calls of a batch, or one with parameters of more bytes, begin before others have their turn."""

log = logging.getLogger("hostler.rpc")


class Outlet(Protocol):
    """The connection, as its session sees it."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""

    def send(self, data: bytes, *, soon: bool = False) -> None:
        """Have bytes sent; ``soon``: before others have their turn, if that can be."""

    def settled(self) -> None:
        """Called when a call without an answer has ended."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have work done that ends with the connection."""


class Session:
    """State of one connection. ``feed`` receives its messages. ``outstanding`` calls, of ``outstanding_bytes``
    together, have no answer yet; ``aside`` of them are answered by children."""

    def __init__(
        self, service: Service, watchers: Watchers, identity: Identity, outlet: Outlet, *, answer_bytes: int
    ) -> None:
        self.service, self.identity = service, identity
        self.outstanding = self.outstanding_bytes = self.aside = 0
        self.style: ErrorStyle = "list"
        self.answer_bytes = answer_bytes
        self._watchers, self._outlet = watchers, outlet
        self._pending: set[Pending[Any, Any]] = set()
        self._steps: list[Generator[None, None, None]] = []
        """Calls that are being taken in, each within the one before it."""
        self._closed = False

    def feed(self, frame: bytes) -> bool:
        """Process a message; True if that may have taken long. BadFrame for a message that a client may not send."""
        call = read_call(frame)
        self.outstanding += 1
        self.outstanding_bytes += len(frame)
        return self.begin(call, _UnderWay(self, call.id, call.method, len(frame))) != "command"

    def step(self) -> bool:
        """Go on with the call that was fed last, for about a millisecond; False once it has been taken in whole."""
        if not self._steps:
            return False
        steps = self._steps[-1]
        try:
            next(steps)
        except StopIteration:
            self._steps.remove(steps)
        return bool(self._steps)

    def answer(self, number: int | None, method: str, result: Any, error: HostlerError | None) -> None:
        """Send the answer to a call, if it expects one."""
        if number is None or self._closed:
            self._outlet.settled()
            return
        known = METHODS.get(method)
        soon = known is not None and known.kind != "command"
        self._outlet.send(self._encoded(number, method, result, error), soon=soon)

    def outcome(self, call: _UnderWay, result: Any, error: HostlerError | None) -> None:
        """Send the outcome of a command, if the call expects one."""
        self.outstanding -= 1
        self.outstanding_bytes -= call.size
        number = call.number
        if error is None and number is not None and not self._closed:
            sent = msgspec.Raw(result.data) if type(result) is PackedDecision else result
            try:
                data = encode((1, number, None, sent))
            except (TypeError, ValueError, OverflowError):
                pass  # which ``answer`` meets again, and says
            else:
                if len(data) <= self.answer_bytes:
                    self._outlet.send(data)
                    return
        self.answer(number, call.method, unpacked(result), error)

    def close(self) -> None:
        """Withdraw queued commands after the peer has disconnected; nothing more is sent."""
        self._closed = True
        self._watchers.drop(self)
        for pending in self._pending:
            self.service.writer.cancel(pending)
        self._pending.clear()

    def send(self, data: bytes) -> None:
        """Send a message that is not an answer."""
        if not self._closed:
            self._outlet.send(data)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._outlet.waiting_bytes

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have work done that ends with the connection."""
        self._outlet.spawn(work)

    def _encoded(self, number: int, method: str, result: Any, error: HostlerError | None) -> bytes:
        if error is None:
            try:
                data = answer(number, result)
            except (TypeError, ValueError, OverflowError):
                log.exception("the answer of %s cannot be sent", method)
                error = InternalError("the answer cannot be sent; see the log of the service")
            else:
                if len(data) <= self.answer_bytes:
                    return data
                error = too_long(len(data), self.answer_bytes)
        return failure(number, error, self.style)

    def begin(self, call: Call, reply: Reply, *, batched: bool = False) -> str:
        """Start a call; ``reply`` is called once, now or later. Returns the kind of method."""
        kind = "unknown"
        try:
            method = METHODS.get(call.method)
            if method is None:
                raise UnknownName.among("method", call.method, METHODS)
            kind = method.kind
            if batched and kind == "session":
                problem = f"{call.method} cannot be in a batch"
                raise InvalidValue(problem, field="calls", hint="commands and questions can")
            if memoryview(call.params).nbytes > long_params.LONG_BYTES and kind != "session":
                user = self.service.user(self.identity)
                long_params.check(self.service.state.tenants, self.service.limits, user, method.params, call.params)
            params, options = read_params(call.params, method.params)
            if kind != "command" and options is not NO_OPTIONS:
                self._check_options(call.method, kind, options)
            params = with_canonical_uuids(params)
            regions = self.service.regions
            if regions is not None and regions.takes(params):
                self._ask_regions(regions, method, params, options, reply)
                return "elsewhere"
            if kind == "command":
                self._order(method, params, options, reply)
                return kind
            if kind == "session":
                self._own(params, reply)
                return kind
            if self.service.takes_long(params):
                self.aside += 1
                self._outlet.spawn(partial(self._ask_aside, call.method, params, reply))
                return kind
            result = self.service.ask(self.identity, params)
        except HostlerError as error:
            reply(None, error)
        except Exception:  # a fault in one call must not end the connection
            log.exception("%s failed unexpectedly", call.method[:100])
            reply(None, InternalError("the call failed unexpectedly; see the log of the service"))
        else:
            reply(result, None)
        return kind

    def _check_options(self, method: str, kind: str, options: Options) -> None:
        """InvalidValue for options that are not a command's; TooStale."""
        if kind != "question" or options.key is not None or options.timeout is not None:
            raise InvalidValue(f"{method} takes no such options", field="options")
        if options.stale_ms is not None and self.service.cluster is not None:
            self.service.cluster.check_age(options.stale_ms)

    async def _ask_aside(self, method: str, query: Any, reply: Reply) -> None:
        result: Any = None
        error: HostlerError | None = None
        try:
            result = await self.service.ask_aside(self.identity, query)
        except HostlerError as refusal:
            error = refusal
        except Exception:  # a fault in one call must not end the connection
            log.exception("%s failed unexpectedly", method)
            error = InternalError("the call failed unexpectedly; see the log of the service")
        self.aside -= 1
        reply(result, error)

    def _ask_regions(self, regions: Regions, method: Method, call: Any, options: Options, reply: Reply) -> None:
        """Have a call answered by the regions that this service is the parent of."""
        fingerprint = b"" if options.key is None else _fingerprint(method.name, encode(call))
        work = partial(regions.carry_out, self.identity, method.name, call, options.key, fingerprint)

        async def in_time() -> Any:
            with trio.move_on_after(math.inf if options.timeout is None else options.timeout):
                return await work()
            text, hint = "no answer of a region in time: the command may be carried out", "ask again with the same key"
            raise DeadlineExceeded(text, field="timeout", hint=hint)

        self._outlet.spawn(lambda: self._answer(reply, in_time))

    # commands

    def _order(self, method: Method, command: Any, options: Options, reply: Reply) -> None:
        deadline, fingerprint, written = None, b"", None
        if options.timeout is not None:
            deadline = trio.current_time() + options.timeout
        if options.key is not None:
            written = encode(command)
            fingerprint = _fingerprint(method.name, written)
        done = reply.done if type(reply) is _UnderWay else _Ordered(self._pending, reply)
        if type(command) is PlaceMany and len(command.requests) > PART_SHAPES:
            steps = self.service.order_in_steps(self.identity, command, done, options.key, fingerprint, deadline)
            self._steps.append(self._order_in_steps(steps, reply))
            return
        pending = self.service.order(
            self.identity, command, done, key=options.key, fingerprint=fingerprint, deadline=deadline, written=written
        )
        if pending.state != "done":
            self._pending.add(pending)

    def _order_in_steps(
        self, steps: Generator[None, None, Pending[Any, Any]], reply: Reply
    ) -> Generator[None, None, None]:
        try:
            pending = yield from steps
        except HostlerError as error:
            reply(None, error)
        except Exception:  # a fault in one call must not end the connection
            log.exception("place_many failed unexpectedly")
            reply(None, InternalError("the call failed unexpectedly; see the log of the service"))
        else:
            if pending.state != "done":
                self._pending.add(pending)

    @property
    def user(self) -> str | None:
        """The user, while the identity is valid; None for strangers."""
        return self.service.known_user(self.identity) if self.identity.user is not None else None

    # methods of the session or the service itself

    def _own(self, params: Any, reply: Reply) -> None:
        match params:
            case Hello(token=token, errors=style):
                if token is not None:
                    self.service.log_in(self.identity, token)
                self.style = style or self.style
                reply(Welcome(self.user, VERSION), None)
            case Status():
                reply(self._status(), None)
            case Batch(calls=calls):
                self._batch(calls, reply)
            case Issue():
                self._issue(params, reply)
            case Watch():
                reply(self._watchers.add(self, params), None)
            case Unwatch():
                self._watchers.drop(self)
                reply(None, None)
            case TakeSnapshot():
                user = self.service.user(self.identity)
                self.service.state.tenants.require(user, "cloud_admin", CLOUD)
                self._outlet.spawn(lambda: self._answer(reply, self.service.writer.snapshot))
            case ShowReconcile():
                reply(self._reconciler("reader").status(), None)
            case ListRegions():
                reply(self._regions().lines(), None)
            case ShowRegionSummary():
                self.service.state.tenants.require(self.service.user(self.identity), "reader", CLOUD)
                reply(self.service.region_summary(), None)
            case ShowShadow(limit=limit):
                reply(self._shadow().status(limit), None)
            case ListStrangers(backend=name, after=after, limit=limit):
                reply(self._reconciler("reader").strangers(name, after, limit), None)
            case CheckBackend(name=name):
                check = partial(self._reconciler("cloud_admin").check, name)
                self._outlet.spawn(lambda: self._answer(reply, check))
            case Console(uuid=uuid):
                guest = guest_for(self.service.state, self.service.user(self.identity), canonical(uuid)).uuid
                console = partial(self._reconciling().console, guest)
                self._outlet.spawn(lambda: self._answer(reply, console))
            case Members() | Lead() | SnapshotFiles() | SnapshotPart():
                self._outlet.spawn(
                    lambda: self._answer(reply, partial(of_cluster, self.service, self.identity, params))
                )
            case Backup(folder=folder):
                require_own_user(self.service.user(self.identity))
                self._outlet.spawn(lambda: self._answer(reply, partial(self.service.writer.backup, Path(folder))))

    def _reconciler(self, role: str) -> Reconciling:
        """The reconciler, for those with a role of the cloud. InvalidValue if there is none."""
        self.service.state.tenants.require(self.service.user(self.identity), role, CLOUD)
        return self._reconciling()

    def _reconciling(self) -> Reconciling:
        if self.service.reconciler is None:
            hint = "name one in [backends] of the configuration"
            raise InvalidValue("this service has no back ends", field="backends", hint=hint)
        return self.service.reconciler

    def _regions(self) -> Regions:
        """The regions, for readers of the cloud. InvalidValue if there are none."""
        self.service.state.tenants.require(self.service.user(self.identity), "reader", CLOUD)
        if self.service.regions is None:
            hint = "name them in [regions] of the configuration"
            raise InvalidValue("this service has no regions", field="regions", hint=hint)
        return self.service.regions

    def _shadow(self) -> Shadow:
        """The shadow policy, for readers of the cloud. InvalidValue if there is none."""
        self.service.state.tenants.require(self.service.user(self.identity), "reader", CLOUD)
        if self.service.shadow is None:
            hint = "name a policy file as shadow_policy in the configuration"
            raise InvalidValue("this service has no shadow policy", field="shadow_policy", hint=hint)
        return self.service.shadow

    def _status(self) -> StatusOf:
        """A stranger learns whether commands are taken, and nothing else; nor does one who was known before."""
        writer, user = self.service.writer, self.user
        if user is None:
            return StatusOf(ready=writer.writable)
        cluster = self.service.cluster
        return StatusOf(
            role="" if cluster is None else cluster.role,
            leader=() if cluster is None else cluster.leader_addresses,
            term=0 if cluster is None else cluster.term,
            behind_ms=None if cluster is None or cluster.age is None else round(1000 * cluster.age, 1),
            ready=writer.writable,
            writable=writer.writable,
            sequence=writer.sequence,
            queued=writer.queued,
            hosts=self.service.hosts(),
            user=user,
            version=VERSION,
        )

    def _batch(self, calls: list[tuple[str, msgspec.Raw]], reply: Reply) -> None:
        """Commands start one after the other, which preserves their order; queries of all sessions take turns."""
        self._steps.append(self._batch_in_steps(calls, BatchAnswers(self, len(calls), reply)))

    def _batch_in_steps(
        self, calls: list[tuple[str, msgspec.Raw]], answers: BatchAnswers
    ) -> Generator[None, None, None]:
        questions, begun = [], 0
        for position, (name, params) in enumerate(calls):
            call, take = Call(None, name, params), answers.at(position)
            method = METHODS.get(name)
            if method is not None and method.kind == "question":
                questions.append((call, take))
                continue
            depth = len(self._steps)
            self.begin(call, take, batched=True)
            begun += 1
            if len(self._steps) > depth or begun % BATCH_CALLS == 0 or memoryview(params).nbytes > LONG_PARAMS:
                yield
        if questions:
            self._outlet.spawn(lambda: answer_questions(self, questions))

    def _issue(self, wish: Issue, reply: Reply) -> None:
        service, caller = self.service, self.service.user(self.identity)
        user = wish.user if wish.user is not None else caller
        check_tokens(service.state.tenants, caller, user, service.now())
        command, token = self.service.new_token(user, wish.days)

        def done(pending: Pending[Any, Any]) -> None:
            self._pending.discard(pending)
            error = pending.error
            if error is None:
                reply(token, None)
            else:
                reply(None, _as_ours(error))

        pending = self.service.order(self.identity, command, done)
        if pending.state != "done":
            self._pending.add(pending)

    async def _answer(self, reply: Reply, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            answer = await work()
        except HostlerError as error:
            reply(None, error)
        except Exception:  # a fault in one call must not end the connection
            log.exception("a call failed unexpectedly")
            reply(None, InternalError("the call failed unexpectedly; see the log of the service"))
        else:
            reply(answer, None)


class _UnderWay(msgspec.Struct, eq=False):
    """A call without an answer yet, and what takes that. (There are thousands at a time: a closure would be several
    objects.)"""

    session: Session
    number: int | None
    method: str
    size: int

    def __call__(self, result: Any, error: HostlerError | None) -> None:
        session = self.session
        session.outstanding -= 1
        session.outstanding_bytes -= self.size
        session.answer(self.number, self.method, result, error)

    def done(self, pending: Pending[Any, Any]) -> None:
        """The command that was called for has its outcome."""
        session, error = self.session, pending.error
        session._pending.discard(pending)
        session.outcome(self, pending.result, None if error is None else _as_ours(error))


class _Ordered:
    """A callback that answers the call with the outcome of a command in ``pending``."""

    __slots__ = ("_pending", "_reply")

    def __init__(self, pending: set[Pending[Any, Any]], reply: Reply) -> None:
        self._pending, self._reply = pending, reply

    def __call__(self, pending: Pending[Any, Any]) -> None:
        self._pending.discard(pending)
        error = pending.error
        self._reply(unpacked(pending.result), None if error is None else _as_ours(error))


def _as_ours(error: BaseException) -> HostlerError:
    if isinstance(error, HostlerError):
        return error
    return InternalError("the command failed unexpectedly; see the log of the service")


def _fingerprint(method: str, written: bytes) -> bytes:
    """Fingerprint of a command in MessagePack, to detect the reuse of its key with another command."""
    return hashlib.blake2b(encode((method, msgspec.Raw(written))), digest_size=8).digest()
