"""Subscriptions: what the writer applied, told to those who want to know and may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ...placement import commands as p
from ...placement.decision import Decision
from ...placement.errors import HostlerError
from ..machine import Order
from ..queries import capacity
from ..service import Service
from ..tenancy.rights import project_scope
from ..tenancy.tenants import CLOUD, RANK
from .messages import Send, notification
from .methods import Event, Watch

PLACEMENTS: Final = (p.Place, p.PlaceMany, p.Move, p.Resize)
CAPACITY_SECONDS: Final = 1.0


class Subscription:
    """One session's wish. ``backlog`` says how many bytes wait to be sent: above ``most`` events are left out."""

    def __init__(self, wish: Watch, user: str, send: Send, backlog: Any, most: int) -> None:
        self.wish, self.user = wish, user
        self._send, self._backlog, self._most = send, backlog, most
        self._missed = 0

    def tell(self, event: Event) -> None:
        if self._backlog() > self._most:
            self._missed += 1
            return
        if self._missed:
            event = Event(**{name: getattr(event, name) for name in event.__struct_fields__} | {"missed": self._missed})
            self._missed = 0
        self._send(notification("event", event))


class Watchers:
    """All subscriptions of a service; an observer of its writer. Costs nothing while nobody watches."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._subscriptions: dict[int, Subscription] = {}
        self._next_capacity = 0.0
        service.writer.observers.append(self._applied)

    def add(self, number: int, subscription: Subscription) -> None:
        """Begin or change a session's subscription."""
        self._subscriptions[number] = subscription

    def drop(self, number: int) -> None:
        """End a session's subscription, if it has one."""
        self._subscriptions.pop(number, None)

    def _applied(self, sequence: int, order: Order, outcome: Any) -> None:
        if not self._subscriptions:
            return
        events = list(_events(sequence, order, outcome))
        if order.now >= self._next_capacity and any("capacity" in s.wish.kinds for s in self._subscriptions.values()):
            self._next_capacity = order.now + CAPACITY_SECONDS
            figures = capacity(self._service.state.fleet)
            events.append(Event(kind="capacity", sequence=sequence, time=order.now, capacity=figures))
        for subscription in list(self._subscriptions.values()):
            for event in events:
                if event.kind in subscription.wish.kinds and self._may_see(subscription, event):
                    subscription.tell(event)

    def _may_see(self, subscription: Subscription, event: Event) -> bool:
        tenants, user, wished = self._service.state.tenants, subscription.user, subscription.wish.project
        if wished is not None and event.project != wished:
            return False
        scope = project_scope(event.project) if event.project is not None else CLOUD
        return tenants.role(user, scope) >= RANK["reader"]


def _events(sequence: int, order: Order, outcome: Any) -> Iterator[Event]:
    command = order.command
    about: dict[str, Any] = {
        "sequence": sequence,
        "time": order.now,
        "user": order.user,
        "command": str(type(command).__struct_config__.tag),
    }
    if isinstance(outcome, HostlerError):
        project = command.request.project_id if isinstance(command, p.Place) else None
        yield Event(kind="refusals", project=project, code=outcome.code, sentence=str(outcome), **about)
    elif isinstance(outcome, Decision) and outcome.refusal is not None:
        project = command.request.project_id if isinstance(command, p.Place) else None
        sentence = outcome.refusal.sentence
        yield Event(kind="refusals", project=project, code="no_valid_host", sentence=sentence, **about)
    elif isinstance(outcome, Decision):
        placed = {selection.instance_uuid: selection.host for selection in outcome.selections}
        project = command.request.project_id if isinstance(command, p.Place) else None
        yield Event(kind="decisions", project=project, hosts=placed, **about)
    elif isinstance(command, p.PlaceMany):
        yield from _many(command, outcome, about)
    else:
        yield Event(kind="changes", **about)


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
