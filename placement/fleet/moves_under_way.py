"""Moves of guests under way, by instance, and when the next of them ends. It knows no fleet."""

from __future__ import annotations

import math

from ..types.moves import PendingMove


class MovesUnderWay(dict[str, PendingMove]):
    """Changed by ``put`` only."""

    def __init__(self) -> None:
        super().__init__()
        self._none_before = math.inf
        """No move ends earlier, in seconds since the epoch. A move that is forgotten leaves it as it is."""

    def put(self, uuid: str, move: PendingMove | None) -> None:
        """Remember the move of an instance, or (None) forget it. O(1)."""
        if move is None:
            self.pop(uuid, None)
            return
        self[uuid] = move
        if move.expires is not None:
            self._none_before = min(self._none_before, move.expires)

    def due(self, now: float) -> list[PendingMove]:
        """Moves that end by ``now``, in the order of their instances. O(1) while it is too early for any move that
        there has been since the last that was due, else O(moves)."""
        if now < self._none_before:
            return []
        ends = [(move.expires, move) for move in self.values() if move.expires is not None]
        self._none_before = min((expires for expires, _ in ends), default=math.inf)
        return sorted((move for expires, move in ends if expires <= now), key=lambda move: move.instance)
