"""Settings of all tests: no deadlines, since machines are slow, shared or instrumented, and a random seed for each run.

The header of a run names its seed; ``tests/seeds.py`` says how to repeat a run.
"""

import gc
import os
import signal
from collections.abc import Iterator

import hypothesis.core
import pytest
from hypothesis import HealthCheck, settings

from .seeds import VARIABLE, run_seed

settings.register_profile(
    "hostler", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("hostler")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore it, and theirs too, which tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "CI" not in os.environ:
    setattr(hypothesis.core, "global_force_seed", run_seed())  # noqa: B010  # declared as None; what --hypothesis-seed sets


def pytest_report_header() -> str:
    return f"random seed: {run_seed()} (repeat with {VARIABLE}={run_seed()})"


@pytest.fixture(autouse=True, scope="module")
def _collector_leaves_earlier_modules_alone() -> None:
    """What the tests before have left, such as recorded cases, is not searched for garbage again in each collection:
    with all of it a collection takes a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_collections() -> Iterator[None]:
    """For tests that parse code: a collection in the middle of ``ast.parse`` may find what another test has not closed,
    of which a warning with a traceback is made, for which code is parsed as well; CPython 3.11 then raises SystemError
    ("AST constructor recursion depth mismatch")."""
    gc.disable()
    yield
    gc.enable()
