"""Rules of the kernel's near misses by compiled request, kept so that what a refusal says costs the rows that changed
since the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.near_misses import Rules
from .signature import Signature

KEPT_BYTES: Final = 1 << 20
KEPT_BYTES_PER_ROW: Final = 64
"""Bytes that all of them may hold: the greater of the two. Those that were used least recently go first."""
KEPT: Final = 256
"""Rules that are kept at most, whatever they hold: their signatures stay with them."""

Words = NDArray[np.int64]
Kinds = NDArray[np.uint8]


class KeptRules:
    """Rules by signature and use."""

    __slots__ = ("_rules",)

    def __init__(self) -> None:
        self._rules: dict[tuple[Signature, str], tuple[Words, Kinds | None, Rules]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that they hold. O(rules)."""
        return sum(rules.nbytes for *_, rules in self._rules.values())

    def find(
        self, signature: Signature, use: str, words: Words, kinds: Kinds | None, make: Callable[[], Rules]
    ) -> Rules:
        """The rules of a signature for a use, from ``make`` unless they are known for the same ``words`` and ``kinds``
        by host class. O(1), or O(rules) if they are made."""
        known = self._rules.pop((signature, use), None)
        if known is None or known[0] is not words or known[1] is not kinds:
            known = words, kinds, make()
            most = max(KEPT_BYTES, KEPT_BYTES_PER_ROW * signature.capacity)
            held = self.nbytes
            while self._rules and (held > most or len(self._rules) >= KEPT):
                held -= self._rules.pop(next(iter(self._rules)))[2].nbytes
        self._rules[signature, use] = known
        return known[2]

    def forget(self) -> None:
        """Forget all: the columns or the numbers of classes are other ones."""
        self._rules.clear()
