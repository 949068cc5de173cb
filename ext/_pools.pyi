import numpy as np
import numpy.typing as npt

from ._fleet import Columns
from .ranking._ranking import Ranking

def derive(block: npt.NDArray[np.float64], rows: npt.NDArray[np.int32]) -> None:
    """Work out room and virtual free capacity of rows from their figures."""

def consume(block: npt.NDArray[np.float64], row: int, size: float, now: float) -> None:
    """Take ``size`` GiB of a row (give back: negative) at ``now`` (NaN: the time stays)."""

def place(
    columns: Columns,
    block: npt.NDArray[np.float64],
    rankings: list[Ranking],
    which: npt.NDArray[np.int32],
    sizes: npt.NDArray[np.float64],
    now: float,
    out_row: npt.NDArray[np.int32],
    out_score: npt.NDArray[np.float64],
    out_counts: npt.NDArray[np.int64],
) -> None:
    """Place volumes one after the other, each seeing those before it; a row of -1 where none passed."""
