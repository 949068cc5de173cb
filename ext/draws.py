"""Random choices from a seed, equal in the kernels (csrc/draws.h) and in Python's scan.

A seed's words are splitmix64's. A number below n is the integer part of word * n / 2**64: probabilities differ by at
most one part in 2**32 for any n below 2**32.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_MIX: Final = 0x9E3779B97F4A7C15
_WORD: Final = (1 << 64) - 1


def word(seed: int, number: int) -> int:
    """Word ``number`` of a seed's sequence, 64 bits."""
    mixed = (seed + number * _MIX) & _WORD
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
    return mixed ^ (mixed >> 31)


def words(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Words ``first`` and following of a seed's sequence, uint64[count]. O(count)."""
    mixed = np.uint64(seed & _WORD) + np.arange(first, first + count, dtype=np.uint64) * np.uint64(_MIX)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return found


class Draws:
    """The numbers that one decision draws from its seed, by words 1, 2 and so on."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.taken = 0

    def below(self, count: int) -> int:
        """A number within [0, count)."""
        self.taken += 1
        return word(self.seed, self.taken) * count >> 64

    def fraction(self) -> float:
        """A number within [0, 1), a multiple of 2**-53."""
        self.taken += 1
        return (word(self.seed, self.taken) >> 11) * 2.0**-53

    def order(self, count: int, ties: int, subset: int) -> list[int]:
        """Positions of ``count`` hosts, sorted best first, in the order in which a decision takes them (Nova 33
        ``_get_sorted_hosts``): the first ``ties`` in any order, then one of the first ``subset`` of all that to the
        front. O(count).

        First that one is drawn, if there is a choice. Then each of the ``ties`` positions, from the first, changes
        places with one drawn from it and those behind it: a decision that needs few of them draws no more than those.
        """
        order, size = list(range(count)), min(subset, count)
        chosen = self.below(size) if size > 1 else 0
        for position in range(ties - 1):
            other = position + self.below(ties - position)
            order[position], order[other] = order[other], order[position]
        return order if chosen == 0 else [order[chosen], *order[:chosen], *order[chosen + 1 :]]
