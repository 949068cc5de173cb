"""What the storage scheduler answers: decisions as plain values, with what every stage removed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..types.decision import Refusal, ScorePart
from ..types.errors import NoValidHost
from ..types.ordered_sum import ordered_sum
from .pools.request import Retry


class PoolAlternate(msgspec.Struct, frozen=True):
    """A pool that may be tried if the chosen one fails; nothing is charged there."""

    backend_id: str
    host: str
    weight: float


class PoolSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Where one volume goes. ``backend_id`` is ``cluster_name`` or ``host``, each with ``#pool``; ``charged_gb`` GiB
    were taken of the pool."""

    volume_id: str
    backend_id: str
    host: str
    cluster_name: str | None
    pool_name: str
    availability_zone: str
    weight: float
    charged_gb: int
    parts: tuple[ScorePart, ...] = ()
    alternates: tuple[PoolAlternate, ...] = ()

    @property
    def points(self) -> float:
        """The points of all weighers, added up from left to right. O(weighers)."""
        return ordered_sum(part.points for part in self.parts)


class VolumeDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request. ``considered`` pools came in; ``removed`` says how many each stage took out, in order.

    ``retry`` is what the next attempt must carry if the chosen pool fails. ``seed`` is what random choices were made
    from.
    """

    sequence: int
    request_id: str | None
    considered: int
    removed: Mapping[str, int]
    selection: PoolSelection | None = None
    refusal: Refusal | None = None
    retry: Retry | None = None
    seed: int = 0

    @property
    def placed(self) -> bool:
        """True if it was placed."""
        return self.refusal is None

    def __bool__(self) -> bool:
        """``placed``: a refusal is false."""
        return self.placed

    @property
    def selected(self) -> PoolSelection:
        """The chosen pool; NoValidHost if there is none."""
        self.raise_if_refused()
        assert self.selection is not None
        return self.selection

    def raise_if_refused(self) -> None:
        """Raise NoValidHost with the refusal's sentence, unless a pool was chosen."""
        if self.refusal is not None:
            raise NoValidHost(self.refusal.sentence, removed=dict(self.removed), hint=self.refusal.hint)


class VolumeGroupDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for a volume group: ``backend`` is ``host@backend`` of all ``selections``, which come in the order of
    the volumes asked for. ``order`` are the pools that Cinder ranks for the group, best first, each once, with
    weights."""

    sequence: int
    request_id: str | None
    backend: str | None = None
    selections: tuple[PoolSelection, ...] = ()
    order: tuple[tuple[str, float], ...] = ()
    refusal: Refusal | None = None

    @property
    def placed(self) -> bool:
        """True if it was placed."""
        return self.refusal is None

    def __bool__(self) -> bool:
        """``placed``: a refusal is false."""
        return self.placed
