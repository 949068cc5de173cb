"""What was told of the last commands, in memory: for subscribers who come back, or read slowly. It knows events, and
what they are made of, but no subscribers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ..placement import commands as p
from ..placement.decision import Decision
from ..placement.errors import HostlerError, UnknownName
from .machine import Order, ServiceMachine
from .queries import CapacityOf

KEPT: Final = 10_000
"""Requests and other commands that are remembered; a ``place_many`` counts as many as it has."""

log = logging.getLogger("hostler.history")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened: ``sequence`` of the command, its ``time`` in seconds since the epoch, who gave it and which it
    was; hosts by instance for decisions, code and sentence for refusals, figures for capacity. A ``gap`` says that what
    came before ``sequence`` cannot be told any more; from there on it is complete."""

    kind: str
    sequence: int
    time: float
    user: str = ""
    command: str = ""
    project: str | None = None
    hosts: dict[str, str] = {}
    code: str | None = None
    sentence: str | None = None
    capacity: dict[str, CapacityOf] = {}


class History:
    """Events of the last commands, without holes. An observer of the writer, and of what it replays."""

    def __init__(self, machine: ServiceMachine, kept: int = KEPT) -> None:
        self._machine, self._kept = machine, kept
        self._entries: dict[int, tuple[Order, Any] | list[Event]] = {}
        """By sequence number, ascending; events are made when they are asked for, where that can wait."""
        self._sizes: deque[int] = deque()
        self._size = 0
        self.first = 1
        """The first command that is remembered, or the next one."""

    @property
    def last(self) -> int:
        """The last command that is remembered, or the one before ``first``."""
        return self.first + len(self._entries) - 1

    def begin(self, sequence: int) -> None:
        """The next command is the one after ``sequence``. What is remembered of others is forgotten."""
        if self.last != sequence:
            self._entries.clear()
            self._sizes.clear()
            self._size, self.first = 0, sequence + 1

    def add(self, sequence: int, order: Order, outcome: Any) -> None:
        """Take in what was just carried out."""
        entries, command, size = self._entries, order.command, 1
        if self.first + len(entries) != sequence:
            self.begin(sequence - 1)
        kind = type(command)
        if kind is p.Place:
            entries[sequence] = (order, outcome)
        elif isinstance(command, p.PlaceMany):
            entries[sequence], size = (order, outcome), max(len(command.requests), 1)
        else:
            entries[sequence] = self._made(sequence, order, outcome)
        self._sizes.append(size)
        self._size += size
        while self._size > self._kept and len(entries) > 1:
            del entries[self.first]
            self._size -= self._sizes.popleft()
            self.first += 1

    def events(self, sequence: int) -> list[Event]:
        """What was to be told of a command that is remembered."""
        entry = self._entries[sequence]
        if isinstance(entry, tuple):
            entry = self._made(sequence, *entry)
        return entry

    def _made(self, sequence: int, order: Order, outcome: Any) -> list[Event]:
        try:
            return list(self._events(sequence, order, outcome))
        except Exception:  # whatever it is, the command has been carried out, and the writer goes on
            log.exception("nobody can be told of command %d", sequence)
            return []

    def _events(self, sequence: int, order: Order, outcome: Any) -> Iterator[Event]:
        command = order.command
        about: dict[str, Any] = {
            "sequence": sequence,
            "time": order.now,
            "user": order.user,
            "command": str(type(command).__struct_config__.tag),
        }
        project = self._project(command, outcome)
        if isinstance(outcome, HostlerError):
            yield Event(kind="refusals", project=project, code=outcome.code, sentence=str(outcome), **about)
        elif isinstance(outcome, Decision):
            yield _decision(outcome, project, about)
        elif isinstance(command, p.PlaceMany):
            yield from _many(command, outcome, about)
        else:
            yield Event(kind="changes", **about)

    def _project(self, command: Any, outcome: Any) -> str | None:
        """Project of the guest that a command is about."""
        if isinstance(command, p.Place):
            return command.request.project_id
        if isinstance(command, p.Move | p.Resize):
            known = self._machine.project_of_replaced(outcome)
            if known is not None:
                return known
            try:
                return self._machine.state.fleet.consumer(command.uuid).project_id
            except UnknownName:
                return command.request.project_id or None
        return None


def _decision(decision: Decision, project: str | None, about: dict[str, Any]) -> Event:
    if decision.refusal is not None:
        sentence = decision.refusal.sentence
        return Event(kind="refusals", project=project, code="no_valid_host", sentence=sentence, **about)
    hosts = {selection.instance_uuid: selection.host for selection in decision.selections}
    return Event(kind="decisions", project=project, hosts=hosts, **about)


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
