"""Subscriptions: sends events of applied commands to authorized subscribers.

A subscriber that keeps up receives events immediately. One that is slow, or has reconnected, receives them from the
event log as fast as it reads; events that are no longer in the log are reported as a gap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Literal, Protocol

import trio

from ...placement.types.errors import HostlerError
from ..machine.event_log import Event
from ..machine.orders import Order
from ..machine.queries import capacity
from ..service import Identity, Service
from ..tenancy.errors import NotAuthenticated
from ..tenancy.rights import project_scope
from ..tenancy.tenants import CLOUD, RANK
from .messages import notification
from .methods import Watch
from .turns import Turns

CAPACITY_SECONDS: Final = 1.0
SUMMARY_SECONDS: Final = 1.0
BACKLOG_BYTES: Final = 1 << 20
"""Bytes that wait to be taken by a peer above which events wait for it to read on."""
READ_ON_SECONDS: Final = 0.02
"""Seconds between checks whether a peer has read on."""
TURN: Final = 100
"""Events read from the event log, to the end of a command's, before yielding to others."""

log = logging.getLogger("hostler.rpc")


class Watcher(Protocol):
    """A session, as a subscription sees it."""

    identity: Identity

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""

    def send(self, data: bytes) -> None:
        """Send a message that is not an answer."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have work done that ends with the session."""


class _Subscription:
    """The subscription of one session; ``last_sent``: events up to that command have been sent."""

    def __init__(self, watcher: Watcher, wish: Watch, last_sent: int) -> None:
        self.watcher, self.wish, self.last_sent = watcher, wish, last_sent
        self.kinds = frozenset(wish.kinds)
        self.catching_up = False
        self.told: dict[str, int] = {}
        """By kind of event that sums up the state: the version that was sent last."""

    @property
    def has_room(self) -> bool:
        return self.watcher.waiting_bytes <= BACKLOG_BYTES

    def wants(self, kind: Literal["capacity", "summary"], version: int) -> bool:
        """True if it is due this version, and reads; if it does not read, it gets a later one."""
        return kind in self.kinds and self.told.get(kind) != version and self.has_room


class Watchers:
    """All subscriptions of a service; an observer of its writer."""

    def __init__(self, service: Service, turns: Turns | None = None) -> None:
        """``turns``: those of users in taking in messages, which what is read from the event log counts as, too."""
        self._service, self._history = service, service.history
        self._turns = turns if turns is not None else Turns()
        self._subscriptions: dict[Watcher, _Subscription] = {}
        self._history.begin(service.writer.sequence)
        service.writer.observers.append(self._applied)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def __contains__(self, watcher: object) -> bool:
        return watcher in self._subscriptions

    def add(self, watcher: Watcher, wish: Watch) -> int:
        """Start or change a session's subscription; returns the command after which it starts. NotAuthenticated, or
        NotAllowed for a project that the user may not read."""
        user = self._service.user(watcher.identity)
        scope = CLOUD if wish.project is None else project_scope(wish.project)
        of_all = "capacity" in wish.kinds or "summary" in wish.kinds
        if wish.project is not None or of_all:
            self._service.state.tenants.require(user, "reader", CLOUD if of_all else scope)
        if "summary" in wish.kinds:
            self._service.region_summary()  # which says if this member has none to tell
        last = self._history.last
        subscription = _Subscription(watcher, wish, last if wish.after is None else wish.after)
        self._subscriptions[watcher] = subscription
        if "capacity" in wish.kinds:
            self._tell_capacity([subscription])
        if "summary" in wish.kinds:
            self._tell_summary(self._summary(), [subscription])
        if subscription.last_sent != last:
            self._catch_up_later(subscription)
        return subscription.last_sent

    def drop(self, watcher: Watcher) -> None:
        """End a session's subscription, if it has one."""
        self._subscriptions.pop(watcher, None)

    async def tell_capacity(self) -> None:
        """Send total capacity and usage once a second to the subscribers who have not had what they are now."""
        while True:
            await trio.sleep(CAPACITY_SECONDS)
            self._tell_capacity(self._subscriptions.values())

    async def tell_summary(self) -> None:
        """Send the summary for parents of regions once a second to the subscribers who have not had what it is now."""
        while True:
            await trio.sleep(SUMMARY_SECONDS)
            if not any("summary" in each.kinds for each in self._subscriptions.values()):
                continue
            try:
                event = self._summary()
            except HostlerError:  # this member does not ask the regions any more
                continue
            self._tell_summary(event, self._subscriptions.values())

    def _tell_capacity(self, subscriptions: Iterable[_Subscription]) -> None:
        version = self._service.writer.sequence
        wanted = [each for each in subscriptions if each.wants("capacity", version)]
        if wanted:
            self._tell_version(self._capacity(), version, wanted)

    def _tell_summary(self, event: Event, subscriptions: Iterable[_Subscription]) -> None:
        assert event.summary is not None, "it is a summary"
        version = event.summary.version
        self._tell_version(event, version, [each for each in subscriptions if each.wants("summary", version)])

    def _tell_version(self, event: Event, version: int, subscriptions: list[_Subscription]) -> None:
        self._tell(event, subscriptions)
        for each in subscriptions:
            each.told[event.kind] = version

    def _summary(self) -> Event:
        service = self._service
        summary = service.region_summary()
        return Event(kind="summary", sequence=service.writer.sequence, time=service.now(), summary=summary)

    def _capacity(self) -> Event:
        service = self._service
        figures = capacity(service.state.fleet)
        return Event(kind="capacity", sequence=service.writer.sequence, time=service.now(), capacity=figures)

    # telling

    def _applied(self, sequence: int, order: Order, outcome: Any) -> None:
        self._history.add(sequence, order, outcome)
        if not self._subscriptions:
            return
        keeping_up = []
        for subscription in self._subscriptions.values():
            if subscription.last_sent == sequence - 1 and subscription.has_room:
                subscription.last_sent = sequence
                keeping_up.append(subscription)
            elif not subscription.catching_up:
                self._catch_up_later(subscription)
        if keeping_up:
            for event in self._history.events(sequence):
                self._tell(event, keeping_up)

    def _tell(self, event: Event, subscriptions: list[_Subscription]) -> None:
        data = b""
        for subscription in subscriptions:
            if event.kind in subscription.kinds and self._may_see(subscription, event):
                data = data or notification("event", event)
                subscription.watcher.send(data)

    def _may_see(self, subscription: _Subscription, event: Event) -> bool:
        wished = subscription.wish.project
        if wished is not None and event.project != wished:
            return False
        try:
            user = self._service.user(subscription.watcher.identity)
        except NotAuthenticated:
            self.drop(subscription.watcher)
            return False
        scope = CLOUD
        if event.project is not None and self._history.is_of(event.project, event.sequence):
            scope = project_scope(event.project)
        return self._service.state.tenants.role(user, scope) >= RANK["reader"]

    # catching up

    def _catch_up_later(self, subscription: _Subscription) -> None:
        subscription.catching_up = True
        subscription.watcher.spawn(lambda: self._catch_up(subscription))

    async def _catch_up(self, subscription: _Subscription) -> None:
        """Send from the event log, as fast as the peer reads, until it is up to date or the subscription ends."""
        while self._subscriptions.get(subscription.watcher) is subscription:
            if subscription.last_sent == self._history.last:
                break
            if subscription.has_room:
                self._tell_some(subscription)
                await trio.lowlevel.checkpoint()
                await self._turns.take(subscription.watcher.identity.user or "")
            else:
                await trio.sleep(READ_ON_SECONDS)
        subscription.catching_up = False

    def _tell_some(self, subscription: _Subscription) -> None:
        history = self._history
        if not history.first - 1 <= subscription.last_sent <= history.last:
            # Too old; or the service was put back to an older state than the peer has seen.
            begin = history.first if subscription.last_sent < history.first else history.last + 1
            gap = Event(kind="gap", sequence=begin, time=self._service.now())
            subscription.watcher.send(notification("event", gap))
            subscription.last_sent = begin - 1
        read = 0
        while read < TURN and subscription.last_sent != history.last and subscription.has_room:
            subscription.last_sent += 1
            events = history.events(subscription.last_sent)
            for event in events:
                self._tell(event, [subscription])
            read += max(len(events), 1)
