"""A plan carried out through a running service, wave by wave: guests of back ends by the service's own moves, others in
two phases around a command of the caller's."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ...placement.types.errors import HostlerError, UnknownName
from ...placement.types.moves import PendingMove
from ...placement.types.plans import Plan, PlannedMove
from ..rpc.client import BlockingClient

LOOK_SECONDS: Final = 0.1
"""How often guests that a back end moves are looked at."""


@dataclass
class PlanRun:
    """``execute``: the command for guests that no back end carries out, None for none. ``within``: seconds after which
    a guest of a back end that has not moved is given up."""

    client: BlockingClient
    execute: str | None
    within: float
    _under_way: list[PlannedMove] = field(default_factory=list)
    """Moves in two phases that are neither confirmed nor reverted."""
    _moved: set[str] = field(default_factory=set)
    """Instances among these whose command has succeeded: they are not reverted, whatever happens."""
    _running: list[tuple[PlannedMove, subprocess.Popen[bytes]]] = field(default_factory=list)

    def left_under_way(self, made: Plan) -> tuple[PlannedMove, ...]:
        """Moves of the plan that a run before has begun and neither confirmed nor reverted, as it was killed."""
        begun = self._begun()
        found = []
        for move in made.moves:
            there = begun.get(move.instance)
            if there is not None and (there.kind, there.source, there.target) == (move.kind, move.source, move.target):
                found.append(move)
                del begun[move.instance]
        return tuple(found)

    def take_up(self, moves: Iterable[PlannedMove]) -> str | None:
        """Go on with moves that were left under way, as with those of a wave: their commands run again."""
        asked: list[PlannedMove] = []
        with self._settled():
            for move in moves:
                (asked if self._guest(move.instance) is not None else self._under_way).append(move)
            return self._finished(asked)

    def _begun(self) -> dict[str, PendingMove]:
        return {move.instance: move for move in self.client.call("moves", {})}

    def remaining(self, made: Plan) -> Plan:
        """The plan without what has run: each guest goes on where it is; one that moves has not moved yet. Waves keep
        their numbers."""
        begun = self._begun()
        chains: dict[str, list[tuple[int, PlannedMove]]] = {}
        for number, wave in enumerate(made.waves):
            for move in wave.moves:
                chains.setdefault(move.instance, []).append((number, move))
        done: set[tuple[int, str]] = set()
        for instance, chain in chains.items():
            node = begun[instance].source if instance in begun else self._node(instance)
            if node in (None, chain[0][1].source):
                continue
            reached = [at for at, (_, move) in enumerate(chain) if move.target == node]
            done |= {(number, instance) for number, _ in chain[: reached[0] + 1]} if reached else set()
        waves = tuple(
            msgspec.structs.replace(
                wave, moves=tuple(move for move in wave.moves if (number, move.instance) not in done)
            )
            for number, wave in enumerate(made.waves)
        )
        return msgspec.structs.replace(made, waves=waves)

    def wave(self, moves: tuple[PlannedMove, ...]) -> str | None:
        """Carry out the moves of one wave; what went wrong, or None. Where something did, or at Ctrl-C, what has moved
        is confirmed and what has not is reverted; back ends finish what they have begun."""
        asked: list[PlannedMove] = []
        with self._settled():
            problem = None
            for move in moves:
                problem = self._begin(move, asked)
                if problem is not None:
                    break
            if problem is None:
                return self._finished(asked)
            self._wait_for_back_ends(asked)
        return problem

    def _finished(self, asked: list[PlannedMove]) -> str | None:
        """Have the moves that are begun carried out; what went wrong with the first."""
        for move in self._under_way:
            self._start(move)
        problem = self._wait_for_commands()
        found = self._wait_for_back_ends(asked)
        return problem or found

    def _begin(self, move: PlannedMove, asked: list[PlannedMove]) -> str | None:
        try:
            if (node := self._node(move.instance)) != move.source:
                return f"{move.instance} is on {node or 'no host'}, not on {move.source}"
            carried_out = self._guest(move.instance) is not None
            method = "move_guest" if carried_out else "begin_move"
            decision = self.client.call(method, {"uuid": move.instance, "kind": move.kind, "target": move.target})
        except HostlerError as error:
            return str(error)
        if not decision.placed:
            return f"{move.instance} cannot move to {move.target}: {decision.refusal.sentence}"
        (asked if carried_out else self._under_way).append(move)
        return None

    def _node(self, uuid: str) -> str | None:
        try:
            node: str = self.client.call("instance", {"uuid": uuid}).node
        except UnknownName:
            return None
        return node

    def _guest(self, uuid: str) -> Any:
        """The life of a guest that a back end carries out; None for others."""
        try:
            return self.client.call("guest", {"uuid": uuid})
        except UnknownName:
            return None

    # in two phases

    def _start(self, move: PlannedMove) -> None:
        if self.execute is None:
            return
        filled = {"instance": move.instance, "source": move.source, "target": move.target}
        words = [word.format_map(filled) for word in shlex.split(self.execute)]
        self._running.append((move, subprocess.Popen(words)))

    def _wait_for_commands(self) -> str | None:
        problem = None
        if self.execute is None:
            for move in list(self._under_way):
                self._confirm(move)
        while self._running:
            move, process = self._running[0]
            code = process.wait()
            del self._running[0]
            if code:
                problem = problem or f"the command for {move.instance} ended with {code}"
            else:
                self._moved.add(move.instance)
                self._confirm(move)
        return problem

    def _confirm(self, move: PlannedMove) -> None:
        self.client.call("confirm_move", {"uuid": move.instance})
        self._under_way.remove(move)
        self._moved.discard(move.instance)
        self.client.call("spawned", {"uuids": [move.instance]})

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """Leave no move in two phases half done: commands that run are waited for, also at Ctrl-C, which they get as
        well; moves whose command has succeeded are confirmed, the others reverted."""
        try:
            yield
        finally:
            try:
                self._wait_for_commands()
            finally:
                for move in list(self._under_way):
                    if move.instance in self._moved:
                        self._confirm(move)
                    else:
                        self.client.call("revert_move", {"uuid": move.instance})
                        self._under_way.remove(move)

    # by back ends

    def _wait_for_back_ends(self, asked: list[PlannedMove]) -> str | None:
        """Wait until guests have moved; what went wrong with the first that has not."""
        end, left, problem = time.monotonic() + self.within, list(asked), None
        while left:
            for move in list(left):
                found = self._guest(move.instance)
                if found is not None and not found.settled and time.monotonic() < end:
                    continue
                left.remove(move)
                if found is None or found.node != move.target or not found.settled:
                    why = "it is gone" if found is None else found.reason or f"it is still {found.status}"
                    problem = problem or f"{move.instance} has not moved to {move.target}: {why}"
            if left:
                time.sleep(LOOK_SECONDS)
        return problem
