"""One running service, independent of protocols: identities, time, orders to the writer, queries on the state."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ..placement.types.errors import InvalidValue
from .forks import Children
from .machine import queries
from .machine.event_log import History
from .machine.machine import ServiceMachine
from .machine.orders import AnyCommand, Order
from .machine.state import ServiceState
from .tenancy import commands as c
from .tenancy.errors import NotAuthenticated
from .tenancy.new_token import TOKEN_DAYS, NewToken
from .tenancy.tenants import LOCAL
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


class Service:
    """The face that sessions see. One thread."""

    def __init__(
        self,
        machine: ServiceMachine,
        writer: Writer[Order, Any],
        *,
        clock: Callable[[], float] = time.time,
        open_to_all: bool = False,
        history: History | None = None,
    ) -> None:
        self.machine, self.writer = machine, writer
        self.history = history if history is not None else History(machine)
        """Events of recent commands."""
        self.open_to_all = open_to_all
        """True: every peer is a cloud admin."""
        self._clock = clock
        self._now = 0.0
        self.children = Children()
        """Who answers what takes long."""
        self._sample: Pending[Order, Any] | None = None
        self._sampled_at = 0.0

    @property
    def state(self) -> ServiceState:
        """The state as it is now: after some whole command."""
        return self.machine.state

    def now(self) -> float:
        """Time of a command that arrives now, in seconds since the epoch. Never decreases."""
        self._now = max(self._now, math.floor(self._clock() / TICK) * TICK)
        return self._now

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
        """Authenticate with a token. NotAuthenticated if it is invalid; the identity is unchanged then."""
        identity.user, identity.token = self.state.tenants.authenticate(token, self._clock())
        identity.serial = self.state.tenants.serial_of(identity.user)

    def user(self, identity: Identity) -> str:
        """The user, if the identity is still valid. NotAuthenticated otherwise."""
        if identity.user is None:
            raise NotAuthenticated("authenticate first", field="token", hint="call hello with a token")
        if identity.token is not None:
            self.state.tenants.check_session(identity.token, self._clock())
        elif identity.user != LOCAL and identity.serial != self.state.tenants.serial_of(identity.user):
            raise NotAuthenticated(f"user {identity.user} does not exist any more", field="user")
        return identity.user

    # what

    def order(
        self,
        identity: Identity,
        command: AnyCommand,
        done: Callable[[Pending[Order, Any]], None],
        *,
        key: str | None = None,
        fingerprint: bytes = b"",
        deadline: float | None = None,
    ) -> Pending[Order, Any]:
        """Have a command carried out; see ``Writer.enqueue``. A key is the user's own."""
        user = self.user(identity)
        if key is not None:
            if not 0 < len(key) <= 255:
                raise InvalidValue("an idempotency key has 1 to 255 characters", field="key")
            key = f"{user}:{identity.serial}/{key}" if identity.serial else f"{user}/{key}"
        order = Order(self.now(), user, command)
        pending = self.writer.enqueue(order, done, key=key, fingerprint=fingerprint, deadline=deadline)
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

    def ask(self, identity: Identity, query: queries.Query) -> Any:
        """The answer to a question."""
        return queries.answer(self.state, self.user(identity), query)

    def takes_long(self, query: queries.Query) -> bool:
        """True for a question that is better asked ``aside``."""
        return queries.takes_long(self.state, query)

    async def ask_aside(self, identity: Identity, query: queries.Query) -> msgspec.Raw:
        """The answer, as MessagePack, from a child with the state at the time the child starts; other calls do not wait
        for it."""
        return msgspec.Raw(await self.children.ask(lambda: _encode(self.ask(identity, query))))

    def new_token(self, user: str, days: float = TOKEN_DAYS) -> tuple[c.CreateToken, NewToken]:
        """The command that makes a token, and the token."""
        name, secret = secrets.token_hex(8), secrets.token_urlsafe(32).replace("_", "-")
        expires = self.now() + 86_400 * days
        command = c.CreateToken(id=name, user=user, digest=token_digest(secret), expires=expires)
        return command, NewToken(id=name, token=f"hst_{name}_{secret}", expires=expires)


def token_digest(secret: str) -> bytes:
    """Digest of a token's secret, for storage. The secret has 256 random bits, so that no salt is needed."""
    return hashlib.sha256(secret.encode()).digest()
