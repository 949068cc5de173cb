"""Guests that ask for a host in one step of a run, as columns."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]


class Coming(NamedTuple):
    """Guests that ask for a host in a step, as columns of equal length; ``number`` counts all guests of the run."""

    number: Whole
    arrived_s: Whole
    departure_s: Whole
    spec: Whole
    group: Whole

    def of(self, which: Whole) -> Coming:
        """Those at the positions ``which``."""
        return Coming(*(column[which] for column in self))


NOBODY: Final = Coming(*[np.empty(0, np.int64)] * 5)
