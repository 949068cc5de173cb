"""Move plans as plain values: which guests move where, in which waves, and what the plan achieves. They are made in
``placement/plan``."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Final, Literal, Protocol, TypedDict

import msgspec

from .errors import InvalidValue
from .moves import MoveKind
from .request import Request, RequestSpec

FORMAT: Final = 1
"""Version of the document."""
Asked = Callable[[str], Request | RequestSpec | None]
"""What a guest was asked with, by its uuid; None: it is not known."""


class PlannedMove(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A guest's move from node ``source`` to ``target``. It is valid while the guest is on ``source`` with the consumer
    generation ``generation``; ``source_generation`` and ``target_generation`` are those of the two providers when the
    plan was made. ``memory_mb`` (MiB) and ``disk_mb`` (MiB of local disk) are its size; ``cost`` is what has to be
    copied, of a cold move the disk alone, or what a cost model of the caller says."""

    instance: str
    source: str
    target: str
    kind: MoveKind
    reason: str
    memory_mb: int
    disk_mb: int
    cost: float
    generation: int
    source_generation: int
    target_generation: int
    project_id: str = ""


class Wave(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Moves that may run side by side. They begin in order, and all hold both ends until the wave ends. ``empty``:
    nodes of the goal that hold no guest after it."""

    moves: tuple[PlannedMove, ...]
    empty: tuple[str, ...] = ()


class LeftGuest(msgspec.Struct, frozen=True):
    """A guest that the goal would have moved and that stays on ``node``, and why."""

    instance: str
    node: str
    reason: str


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A quantity that the plan changes: its value ``before`` and ``after``, and ``bound``, which no plan can pass:
    ``after`` is at most the bound for ``at_most``, at least the bound for ``at_least``. None: no bound is known."""

    name: str
    before: float
    after: float
    bound: float | None = None
    sense: Literal["at_most", "at_least"] = "at_most"


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Moves in waves that reach a goal, with every rule kept in every state between.

    ``goal``: the goal as a plain value. ``complete``: the goal is reached. ``left``: guests that stay although the goal
    would have them moved. ``derived``: guests to be moved whose request is not known; they are judged by what they
    hold. ``made_at``: the fleet's time, seconds since the epoch.
    """

    goal: dict[str, Any]
    summary: str
    complete: bool
    waves: tuple[Wave, ...] = ()
    left: tuple[LeftGuest, ...] = ()
    measures: tuple[Measure, ...] = ()
    derived: int = 0
    made_at: float | None = None
    format: int = FORMAT

    @property
    def moves(self) -> tuple[PlannedMove, ...]:
        """All moves in order."""
        return tuple(move for wave in self.waves for move in wave.moves)

    @property
    def cost(self) -> float:
        """Sum of the costs of the moves."""
        return sum(move.cost for move in self.moves)

    def to_json(self) -> bytes:
        """The plan as a JSON document, which ``from_json`` reads."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @staticmethod
    def from_json(document: bytes | str) -> Plan:
        """The plan of a document. InvalidValue if it is not one, or has another format."""
        try:
            plan = msgspec.json.decode(document, type=Plan)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidValue(f"the document is not a plan: {error}", field="plan") from None
        if plan.format != FORMAT:
            hint = "use the Hostler that wrote it, or make the plan again"
            raise InvalidValue(f"the plan has format {plan.format}, this Hostler reads {FORMAT}", hint=hint)
        return plan

    def rollback(self, *, waves: int | None = None) -> Plan:
        """The plan that takes back the first ``waves`` waves (None: all): its waves in reverse order, each move from
        its target to its source. Check it against the state at hand before it runs."""
        taken = self.waves if waves is None else self.waves[:waves]
        back = tuple(Wave(moves=tuple(map(_reversed, reversed(wave.moves)))) for wave in reversed(taken))
        count = sum(len(wave.moves) for wave in back)
        return Plan(
            goal={"do": "rollback", "of": self.goal},
            summary=f"{_counted(count, 'move')} taken back",
            complete=True,
            waves=back,
            made_at=self.made_at,
        )


def _reversed(move: PlannedMove) -> PlannedMove:
    return msgspec.structs.replace(
        move,
        source=move.target,
        target=move.source,
        reason=f"taken back: {move.reason}",
        generation=ANY,
        source_generation=ANY,
        target_generation=ANY,
    )


ANY: Final = -1
"""A generation that is not checked."""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a state differs from what a plan needs: the move in ``wave`` (from 1) of ``instance`` is not possible."""

    wave: int
    instance: str
    reason: str


class PlanCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A plan against a later state. ``valid``: every move is possible, in order, with both ends held during each wave.
    ``changed``: nodes of the plan that have changed since it was made, which by itself is no fault."""

    valid: bool
    differences: tuple[Difference, ...] = ()
    changed: tuple[str, ...] = ()


class Admission(Protocol):
    """Limits beside the fleet that moves under way count against, such as quotas of projects."""

    def begin(self, project_id: str, amounts: Mapping[str, int]) -> bool:
        """Count both ends of a move; False, with nothing counted, if a limit would be exceeded."""
        ...

    def end(self, project_id: str, amounts: Mapping[str, int]) -> None:
        """A move has ended: one end is given back."""
        ...


class PlanOptions(TypedDict, total=False):
    """How plans are made. ``asked``: what each guest was asked with. ``kind``: of the moves. ``per_host``: moves that
    may run on one host at a time, in or out, 0 for any number. ``most_moves``: moves at most. ``pinned``: instances
    that stay. ``stopped``: instances that do not run, whose moves are cold where those of others are live. ``stays``:
    why an instance may not move now, empty if it may. ``cost``: of moving (instance, memory MiB, local disk MiB).
    ``admission``: limits beside the fleet."""

    asked: Asked | Mapping[str, Request | RequestSpec] | None
    kind: MoveKind
    per_host: int
    most_moves: int | None
    pinned: frozenset[str]
    stopped: Container[str]
    stays: Callable[[str], str] | None
    cost: Callable[[str, int, int], float] | None
    admission: Admission | None


class Goal(Protocol):
    """What ``Engine.plan`` makes a plan of."""

    def plan(self, engine: Any, options: PlanOptions) -> Plan:
        """The plan for an Engine as it is now."""
        ...
