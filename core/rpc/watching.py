"""Subscriptions: what the writer applied, told to those who want to know and may."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec
import trio

from ...placement import commands as p
from ...placement.decision import Decision
from ...placement.errors import HostlerError, UnknownName
from ..machine import Order
from ..queries import capacity
from ..service import Identity, Service
from ..tenancy.errors import NotAuthenticated
from ..tenancy.rights import project_scope
from ..tenancy.tenants import CLOUD, RANK
from .messages import notification
from .methods import Event, Watch

CAPACITY_SECONDS: Final = 1.0
BACKLOG_BYTES: Final = 1 << 20
"""Bytes that wait to be taken by a peer above which events are left out."""

log = logging.getLogger("hostler.rpc")


class Watcher(Protocol):
    """A session, as a subscription sees it."""

    identity: Identity

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""

    def send(self, data: bytes) -> None:
        """Send what is no answer."""


class _Subscription:
    """One session's wish."""

    def __init__(self, watcher: Watcher, wish: Watch) -> None:
        self.watcher, self.wish = watcher, wish
        self.kinds = frozenset(wish.kinds)
        self._missed = 0

    def tell(self, event: Event, data: bytes) -> None:
        if self.watcher.waiting_bytes > BACKLOG_BYTES:
            self._missed += 1
            return
        if self._missed:
            data = notification("event", msgspec.structs.replace(event, missed=self._missed))
            self._missed = 0
        self.watcher.send(data)


class Watchers:
    """All subscriptions of a service; an observer of its writer. Costs nothing while nobody watches."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._subscriptions: dict[Watcher, _Subscription] = {}
        service.writer.observers.append(self._applied)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def __contains__(self, watcher: object) -> bool:
        return watcher in self._subscriptions

    def add(self, watcher: Watcher, wish: Watch) -> None:
        """Begin or change a session's subscription. NotAuthenticated, or NotAllowed for a project that the user may not
        read."""
        user = self._service.user(watcher.identity)
        scope = CLOUD if wish.project is None else project_scope(wish.project)
        if wish.project is not None or "capacity" in wish.kinds:
            self._service.state.tenants.require(user, "reader", CLOUD if "capacity" in wish.kinds else scope)
        subscription = self._subscriptions[watcher] = _Subscription(watcher, wish)
        if "capacity" in wish.kinds:
            event = self._capacity()
            subscription.tell(event, notification("event", event))

    def drop(self, watcher: Watcher) -> None:
        """End a session's subscription, if it has one."""
        self._subscriptions.pop(watcher, None)

    async def tell_capacity(self) -> None:
        """Once a second, if something was changed and somebody wants to know: what there is and what is used."""
        told = self._service.writer.sequence
        while True:
            await trio.sleep(CAPACITY_SECONDS)
            if told == self._service.writer.sequence:
                continue
            told = self._service.writer.sequence
            if any("capacity" in each.kinds for each in self._subscriptions.values()):
                self._tell(self._capacity())

    def _capacity(self) -> Event:
        service = self._service
        figures = capacity(service.state.fleet)
        return Event(kind="capacity", sequence=service.writer.sequence, time=service.now(), capacity=figures)

    def _applied(self, sequence: int, order: Order, outcome: Any) -> None:
        if not self._subscriptions:
            return
        try:
            for event in self._events(sequence, order, outcome):
                self._tell(event)
        except Exception:  # whatever it is, the command has been carried out, and the writer goes on
            log.exception("watchers could not be told of command %d", sequence)

    def _tell(self, event: Event) -> None:
        data = notification("event", event)
        for subscription in list(self._subscriptions.values()):
            if event.kind in subscription.kinds and self._may_see(subscription, event):
                subscription.tell(event, data)

    def _may_see(self, subscription: _Subscription, event: Event) -> bool:
        wished = subscription.wish.project
        if wished is not None and event.project != wished:
            return False
        try:
            user = self._service.user(subscription.watcher.identity)
        except NotAuthenticated:
            self.drop(subscription.watcher)
            return False
        scope = project_scope(event.project) if event.project is not None else CLOUD
        return self._service.state.tenants.role(user, scope) >= RANK["reader"]

    # what there is to tell

    def _events(self, sequence: int, order: Order, outcome: Any) -> Iterator[Event]:
        command = order.command
        about: dict[str, Any] = {
            "sequence": sequence,
            "time": order.now,
            "user": order.user,
            "command": str(type(command).__struct_config__.tag),
        }
        if isinstance(outcome, HostlerError):
            yield Event(
                kind="refusals", project=self._project(command), code=outcome.code, sentence=str(outcome), **about
            )
        elif isinstance(outcome, Decision):
            yield self._decision(command, outcome, about)
        elif isinstance(command, p.PlaceMany):
            yield from _many(command, outcome, about)
        else:
            yield Event(kind="changes", **about)

    def _decision(self, command: Any, decision: Decision, about: dict[str, Any]) -> Event:
        project = self._project(command)
        if decision.refusal is not None:
            sentence = decision.refusal.sentence
            return Event(kind="refusals", project=project, code="no_valid_host", sentence=sentence, **about)
        hosts = {selection.instance_uuid: selection.host for selection in decision.selections}
        return Event(kind="decisions", project=project, hosts=hosts, **about)

    def _project(self, command: Any) -> str | None:
        """Project of the guest that a command is about; None also where the guest is gone again, by a command of the
        same batch."""
        if isinstance(command, p.Place):
            return command.request.project_id
        if isinstance(command, p.Move | p.Resize):
            try:
                return self._service.state.fleet.consumer(command.uuid).project_id
            except UnknownName:
                return command.request.project_id or None
        return None


def _many(command: p.PlaceMany, outcome: p.Placed, about: dict[str, Any]) -> Iterator[Event]:
    by_project: dict[str, dict[str, str]] = {}
    for request, host, uuid in zip(command.requests, outcome.hosts, outcome.instance_uuids, strict=True):
        if host is not None:
            by_project.setdefault(request.project_id, {})[uuid] = host
    for project, placed in by_project.items():
        yield Event(kind="decisions", project=project, hosts=placed, **about)
    for position, (code, sentence) in outcome.refusals.items():
        project = command.requests[position].project_id
        yield Event(kind="refusals", project=project, code=code, sentence=sentence, **about)
