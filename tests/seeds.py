"""Seeds of random tests: different in each run, printed in its header, and repeatable.

``HOSTLER_TEST_SEED=N pytest ...`` repeats a run. Where ``CI`` is set the seed is 0, so that a red run is the change's.
"""

from __future__ import annotations

import os
import random
import secrets
from typing import Final

VARIABLE: Final = "HOSTLER_TEST_SEED"


def run_seed() -> int:
    """The seed of this run. Processes started by it, such as the workers of pytest-xdist, inherit it."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = "0" if "CI" in os.environ else str(secrets.randbelow(1_000_000))
    return int(os.environ[VARIABLE])


def seeds(count: int, name: str = "") -> list[int]:
    """``count`` seeds of this run for the test ``name``: tests with different names get different seeds."""
    return random.Random(f"{run_seed()} {name}").sample(range(2**32), count)
