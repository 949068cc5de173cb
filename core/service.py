"""One running service, independent of protocols: identities, time, orders to the writer, queries on the state."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from ..placement.types.errors import HostlerError, InvalidValue, UnknownName
from ..placement.types.steps import finished
from .cluster_status import Cluster
from .engine_commands import Placed, PlaceMany, SetPolicy
from .forks import Children
from .lifecycle_commands import SetBackend
from .machine import queries
from .machine.event_log import History
from .machine.machine import ServiceMachine
from .machine.order_policies import with_present_defaults
from .machine.orders import RULES, AnyCommand, Order, WrittenOrder
from .machine.question import Query
from .machine.region_queries import RegionLine
from .machine.region_summary import RegionSummary, Summarizer
from .machine.request_limits import (
    PART_SHAPES,
    RequestLimits,
    checked_parts_of,
    cost_of,
    parts_of,
    requests_of,
)
from .machine.state import ServiceState
from .rates import Rate, RateLimits
from .region_commands import PlaceAcross
from .tenancy import admission
from .tenancy import commands as c
from .tenancy.admission import TenancyOptions
from .tenancy.errors import NotAuthenticated
from .tenancy.new_token import TOKEN_DAYS, NewToken
from .tenancy.tenants import CLOUD, LOCAL, RANK
from .writer.command_queue import Pending
from .writer.writer import Writer

TICK: Final = 0.1
"""Resolution of commands' times in seconds: placements of one tick are decided together."""
_encode: Final = msgspec.msgpack.Encoder().encode

log = logging.getLogger("hostler.service")


class Identity(msgspec.Struct):
    """Who is at the other end: ``user`` is None until they have said so; ``token`` is the id of the one they showed.
    ``serial`` tells users of the same id apart, of whom one was there after the other."""

    user: str | None = None
    token: str | None = None
    serial: int = 0


class Reconciling(Protocol):
    """The reconciler, as far as protocols ask for it."""

    def names(self) -> Collection[str]:
        """The back ends that are configured."""

    def status(self) -> Any:
        """How it goes, as a plain value."""

    def strangers(self, name: str, after: str, limit: int) -> Any:
        """Guests of others on a back end, as plain values. HostlerError if there is no such back end."""

    async def check(self, name: str) -> None:
        """Have a back end's driver check that it answers. HostlerError otherwise."""

    async def console(self, uuid: str) -> Any:
        """How the console of a guest is reached, as a plain value. HostlerError."""


class Shadow(Protocol):
    """The shadow policy, as far as protocols ask for it."""

    def status(self, limit: int) -> Any:
        """What it would have decided otherwise, as a plain value, with the last differences, at most ``limit``."""


class Regions(Protocol):
    """The regions that a service is the parent of, as far as protocols ask for them."""

    def takes(self, call: Any) -> bool:
        """True for a command or question that regions have to answer."""

    async def carry_out(
        self, identity: Identity, method: str, call: Any, key: str | None = None, fingerprint: bytes = b""
    ) -> Any:
        """The answer to such a call. HostlerError."""

    def require_running(self) -> None:
        """NotLeader, or why else, unless this process is the one that asks the regions."""

    def check_key(self, key: str, fingerprint: bytes) -> None:
        """KeyReused for the key of a call that is under way, if that is another one."""

    def lines(self) -> list[RegionLine]:
        """All regions, in the order of the configuration."""

    def summary(self) -> RegionSummary:
        """All regions as one, for a parent of this one."""


class Service:
    """The face that sessions see. One thread."""

    def __init__(
        self,
        machine: ServiceMachine,
        writer: Writer[Order, Any],
        *,
        clock: Callable[[], float] = time.time,
        expiry_clock: Callable[[], float] | None = None,
        open_to_all: bool = False,
        history: History | None = None,
        limits: RequestLimits | None = None,
        rates: RateLimits | None = None,
        tenancy: TenancyOptions | None = None,
    ) -> None:
        """``clock``: the time that commands carry. ``expiry_clock``: the one by which tokens expire, if that is
        another."""
        self.machine, self.writer = machine, writer
        machine.state.follow_rules(RULES)  # as the next order would
        self.history = history if history is not None else History(machine)
        """Events of recent commands."""
        self.reconciler: Reconciling | None = None
        """Set where back ends are configured."""
        self.shadow: Shadow | None = None
        """Set where a shadow policy is configured."""
        self.cluster: Cluster | None = None
        """Set where several members hold the state."""
        self.regions: Regions | None = None
        """Set where the configuration names regions."""
        self._summarizer = Summarizer()
        self.open_to_all = open_to_all
        """True: every peer is a cloud admin."""
        self._clock, self.expiry_clock = clock, expiry_clock if expiry_clock is not None else clock
        self.limits = limits if limits is not None else RequestLimits()
        self._tenancy = tenancy if tenancy is not None else TenancyOptions()
        rates = rates if rates is not None else RateLimits()
        self._command_rate = Rate("commands", rates.commands_per_second, rates.burst)
        self._question_rate = Rate("questions", rates.questions_per_second, rates.burst)
        self._now = 0.0
        self.children = Children()
        """Who answers what takes long."""
        self._sample: Pending[Order, Any] | None = None
        self._sampled_at = 0.0
        self._hosts_of: tuple[int, int, int, int] | None = None
        self._hosts = 0

    @property
    def state(self) -> ServiceState:
        """The state as it is now: after some whole command."""
        return self.machine.state

    def now(self) -> float:
        """Time of a command that arrives now, in seconds since the epoch. Never decreases."""
        now = self._clock()
        if now - self._now >= TICK:
            self._now = max(self._now, math.floor(now / TICK) * TICK)
        return self._now

    @property
    def clock(self) -> Callable[[], float]:
        """The time in seconds since the epoch, to the fraction, and without the order of commands."""
        return self._clock

    def not_before(self, now: float) -> None:
        """Have commands carry no earlier time than ``now``, that of a command of another member. O(1)."""
        self._now = max(self._now, now)

    # identities

    def newcomer(self, *, local: bool = False, certificate: tuple[str, ...] = ()) -> Identity:
        """Identity of a newly connected peer; NotAuthenticated for a certificate that belongs to no user."""
        if self.open_to_all or local:
            return Identity(LOCAL)
        if certificate:
            user = self.state.tenants.user_of_certificate(certificate)
            return Identity(user, serial=self.state.tenants.serial_of(user))
        return Identity()

    def log_in(self, identity: Identity, token: str) -> None:
        """Take a token. NotAuthenticated if it is not valid; the identity then stays as it was."""
        if self.cluster is not None and self.cluster.is_member(token):
            identity.user, identity.token = LOCAL, None
            return
        identity.user, identity.token = self.state.tenants.authenticate(token, self.expiry_clock())
        identity.serial = self.state.tenants.serial_of(identity.user)

    def user(self, identity: Identity) -> str:
        """The user, if the identity is still valid. NotAuthenticated otherwise."""
        if identity.user is None:
            raise NotAuthenticated("authenticate first", field="token", hint="call hello with a token")
        if identity.token is not None:
            self.state.tenants.check_session(identity.token, self.expiry_clock())
        elif identity.user != LOCAL and identity.serial != self.state.tenants.serial_of(identity.user):
            raise NotAuthenticated(f"user {identity.user} does not exist any more", field="user")
        return identity.user

    def known_user(self, identity: Identity) -> str | None:
        """The user, if the identity is still valid; None for a stranger, or if the token or user has gone. O(1)."""
        try:
            return self.user(identity)
        except NotAuthenticated:
            return None

    # what

    def _check_flavors(self, user: str, call: AnyCommand | Query) -> None:
        """NotAllowed for a command or question with a flavor that the user may not bring. O(requests)."""
        if self._tenancy.inline_flavors or self.state.tenants.role(user, CLOUD) >= RANK["cloud_admin"]:
            return
        for request in requests_of(call):
            if self.state.specs[bytes(request.spec)].flavor is None:
                raise admission.refused("spec.flavor", "a flavor of their own")

    def order(
        self,
        identity: Identity,
        command: AnyCommand,
        done: Callable[[Pending[Order, Any]], None],
        *,
        key: str | None = None,
        fingerprint: bytes = b"",
        deadline: float | None = None,
        written: bytes | None = None,
    ) -> Pending[Order, Any]:
        """Execute a command through the writer; see ``Writer.enqueue``. A key is the user's own. ``written``: the
        command in MessagePack, if the caller has that. InvalidValue for a command that asks for more than ``limits``
        allow, Overloaded for one that comes too soon after others of the user."""
        if type(command) is PlaceMany and len(command.requests) > PART_SHAPES:
            return finished(self.order_in_steps(identity, command, done, key, fingerprint, deadline))
        user, cost = self._admitted(identity, command)
        if type(command) is SetPolicy:
            command, written = SetPolicy(policy=with_present_defaults(command.policy)), None
        if type(command) is SetBackend:
            self.check_backend(user, command)
        order, body = Order(self.now(), user, command), None
        if written is not None:
            body = _encode(WrittenOrder(order.now, user, msgspec.Raw(written)))
        whole_key = None
        if key is not None:
            whole_key = _key_of(identity, user, key)
            if self.regions is not None:
                self.regions.check_key(whole_key, fingerprint)
        return self.enqueue(order, done, whole_key, fingerprint, deadline, cost, body)

    def _admitted(self, identity: Identity, command: AnyCommand) -> tuple[str, int]:
        """(the user, estimated microseconds) of a command that is within the limits."""
        user = self.user(identity)
        cost = self.limits.assess(command, self.machine.state.specs, self._rows)
        if user != LOCAL:
            self._check_flavors(user, command)
            several = command.requests if isinstance(command, PlaceMany | PlaceAcross) else (None,)
            self._command_rate.spend(user, len(several))
        return user, cost

    def check_backend(self, user: str, command: AnyCommand) -> None:
        """UnknownName for a command that enables or disables a back end which is neither configured nor known."""
        if type(command) is SetBackend:
            state = self.state
            state.tenants.require(user, "cloud_admin", CLOUD)
            names = {*state.lives.backends, *(() if self.reconciler is None else self.reconciler.names())}
            if command.name not in names:
                raise UnknownName.among("back end", command.name, sorted(names), field="name")

    def admit(self, identity: Identity, command: AnyCommand) -> str:
        """The user, for a command that is carried out elsewhere. Errors as ``order``'s."""
        return self._admitted(identity, command)[0]

    def key_of(self, identity: Identity, user: str, key: str) -> str:
        """A user's idempotency key among those of all users. InvalidValue for one of a wrong length."""
        return _key_of(identity, user, key)

    def region_summary(self) -> RegionSummary:
        """What a parent of this service as a region is told. O(rows changed since the last call). NotLeader for a
        parent of regions itself that is not connected to them: a member of a cluster that follows."""
        if self.regions is not None:
            self.regions.require_running()
            return self.regions.summary()
        return self._summarizer.summary(self.state, self.writer.sequence)

    def order_in_steps(
        self,
        identity: Identity,
        command: PlaceMany,
        done: Callable[[Pending[Order, Any]], None],
        key: str | None = None,
        fingerprint: bytes = b"",
        deadline: float | None = None,
    ) -> Generator[None, None, Pending[Order, Any]]:
        """``order`` for a call of many requests, with a yield after each millisecond or so of reading and checking
        them. Nothing is queued before all are checked."""
        user, requests = self.user(identity), command.requests
        self.limits.check_count(command)
        if user != LOCAL:
            self._command_rate.spend(user, len(requests))
        if key is not None:
            key = _key_of(identity, user, key)
        parts = []
        for part in parts_of(command):
            parts.append(part)
            yield
        for few in checked_parts_of(command, self.state.specs):
            self.limits.check(few)
            self._check_flavors(user, few)
            if len(parts) > 1:
                self.machine.check(Order(self.now(), user, few))
            yield
        if len(parts) > 1:
            return InParts(self, user, parts, done, key, fingerprint, deadline).begin()
        return self.enqueue(Order(self.now(), user, command), done, key, fingerprint, deadline)

    def _rows(self) -> int:
        return self.state.fleet.rows

    def enqueue(
        self,
        order: Order,
        done: Callable[[Pending[Order, Any]], None],
        key: str | None = None,
        fingerprint: bytes = b"",
        deadline: float | None = None,
        cost: int | None = None,
        body: bytes | None = None,
    ) -> Pending[Order, Any]:
        """Execute an order through the writer, in the turn of its user, without checking limits. ``cost``: its
        estimated microseconds, if known; ``body``: what the journal holds, if the caller has that."""
        if cost is None:
            cost = cost_of(order.command, self.state.specs, self._rows())
        pending = self.writer.enqueue(
            order, done, key=key, fingerprint=fingerprint, deadline=deadline, lane=order.user, cost=cost, body=body
        )
        if self._sample is None or self._sample.state == "cancelled":
            self._sample, self._sampled_at = pending, time.perf_counter()
        return pending

    def sampled(self) -> float | None:
        """When the command being timed was queued (``time.perf_counter``), if it has been answered; the next command is
        timed then. None while it is pending."""
        if self._sample is None or self._sample.state != "done":
            return None
        self._sample = None
        return self._sampled_at

    def ask(self, identity: Identity, query: Query) -> Any:
        """The answer to a question. InvalidValue and Overloaded as for ``order``."""
        return queries.answer(self.state, self.admit_question(identity, query), query)

    def admit_question(self, identity: Identity, query: Query) -> str:
        """The user, for a question that is within the limits. Errors as ``ask``'s, but for those of the answer."""
        user = self.user(identity)
        self.limits.check(query)
        self._check_flavors(user, query)
        if user != LOCAL:
            self._question_rate.spend(user)
        return user

    def hosts(self) -> int:
        """Number of compute hosts. O(1) while none comes or goes, else O(rows)."""
        fleet = self.state.fleet
        known = (id(fleet), len(fleet), fleet._topology_epoch, fleet._static_epoch)
        if self._hosts_of != known:
            self._hosts_of, self._hosts = known, int(fleet.is_host.sum())
        return self._hosts

    def takes_long(self, query: Query) -> bool:
        """True for a question that is better asked ``aside``."""
        return queries.takes_long(self.state, query)

    async def ask_aside(self, identity: Identity, query: Query) -> msgspec.Raw:
        """The answer, as MessagePack, from a child with the state at the time the child starts; other calls do not wait
        for it."""
        user = self.admit_question(identity, query)
        answer = partial(queries.answer, self.state, user, query)
        of_cloud = self.state.tenants.role(user, CLOUD) >= RANK["reader"]
        seconds = None if of_cloud else self.limits.question_seconds
        return msgspec.Raw(await self.children.ask(lambda: _encode(answer()), lane=user, seconds=seconds))

    def new_token(self, user: str, days: float = TOKEN_DAYS) -> tuple[c.CreateToken, NewToken]:
        """The command that makes a token, and the token."""
        name, secret = secrets.token_hex(8), secrets.token_urlsafe(32).replace("_", "-")
        expires = self.now() + 86_400 * days
        command = c.CreateToken(id=name, user=user, digest=token_digest(secret), expires=expires)
        return command, NewToken(id=name, token=f"hst_{name}_{secret}", expires=expires)


def _key_of(identity: Identity, user: str, key: str) -> str:
    """A user's idempotency key among those of all users. InvalidValue for one of a wrong length."""
    if not 0 < len(key) <= 255:
        raise InvalidValue("an idempotency key has 1 to 255 characters", field="key")
    return f"{user}:{identity.serial}/{key}" if identity.serial else f"{user}/{key}"


class InParts:
    """A long ``place_many`` on its way as several commands, one after the other, so that other users have their turns
    between them. A part's key is the call's with the part's number, so that a repetition gets each part's answer.

    An error of the first part is the call's. Of a later one: the call's too if it has a key, as a repetition then goes
    on behind what is done; else the refusal of all requests that are left.
    """

    def __init__(
        self,
        service: Service,
        user: str,
        parts: list[PlaceMany],
        done: Callable[[Pending[Order, Any]], None],
        key: str | None,
        fingerprint: bytes,
        deadline: float | None,
    ) -> None:
        self._service, self._user, self._parts = service, user, parts
        self._key, self._fingerprint, self._deadline = key, fingerprint, deadline
        self._answers: list[Placed] = []
        order = Order(service.now(), user, parts[0])
        self._whole: Pending[Order, Any] = Pending(order, b"", done, None, fingerprint, deadline)

    def begin(self) -> Pending[Order, Any]:
        """Queue the first part. Raises what ``Service.enqueue`` does."""
        self._next()
        return self._whole

    def _next(self) -> None:
        number = len(self._answers)
        key = self._key if self._key is None or not number else f"{self._key}\0{number}"
        order = Order(self._service.now(), self._user, self._parts[number])
        self._service.enqueue(order, self._told, key, self._fingerprint, self._deadline)

    def _told(self, pending: Pending[Order, Any]) -> None:
        if self._whole.state == "cancelled":
            return  # the caller has gone: what is left is not asked for any more
        error: BaseException | None = pending.error
        if error is None:
            answer: Placed = pending.result  # type: ignore[assignment]  # no error, so there is a result
            self._answers.append(answer)
            if len(self._answers) == len(self._parts):
                self._finish(None)
                return
            try:
                self._next()
            except HostlerError as refusal:
                error = refusal
            else:
                return
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        whole = self._whole
        if error is not None and (not self._answers or self._key is not None or not isinstance(error, HostlerError)):
            whole.error = error
        else:
            whole.result = self._joined(error)
        whole.state = "done"
        whole.done(whole)

    def _joined(self, error: HostlerError | None) -> Placed:
        hosts: list[str | None] = []
        uuids: list[str] = []
        refusals: dict[int, tuple[str, str]] = {}
        refused_by, removed = Counter[str](), Counter[str]()
        for answer in self._answers:
            refusals |= {len(hosts) + position: refusal for position, refusal in answer.refusals.items()}
            hosts += answer.hosts
            uuids += answer.instance_uuids
            refused_by.update(answer.refused_by)
            removed.update(answer.removed)
        for part in self._parts[len(self._answers) :]:
            assert error is not None
            left = range(len(hosts), len(hosts) + len(part.requests))
            refusals |= dict.fromkeys(left, (error.code, str(error)))
            hosts += [None] * len(left)
            uuids += [""] * len(left)
        return Placed(
            sequence=self._answers[0].sequence,
            hosts=hosts,
            instance_uuids=uuids,
            refusals=refusals,
            refused_by=dict(sorted(refused_by.items())),
            removed=dict(sorted(removed.items())),
        )


def token_digest(secret: str) -> bytes:
    """Digest of a token's secret, for storage. The secret has 256 random bits, so that no salt is needed."""
    return hashlib.sha256(secret.encode()).digest()
