"""Unit tests of Cinder's own scheduler with Hostler's class in the place of FilterScheduler: which pass, and who
decided.

    python -m hostler.bench.cinder_unit [--release 29.0.0] [--mode live] [--fallback never] [TEST ...]

Cinder and its test requirements come from PyPI into an environment of their own, made the first time. Needs Hostler as
a checkout whose kernels are built for this Python.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter

from .engine import main
from .environments import ServiceUnavailable, kept, ready
from .nova_functional import run, show

DRIVER: Final = Path(__file__).resolve().with_name("cinder_unit_driver.py")
TESTS: Final = "cinder.tests.unit.scheduler."
DEFAULT: Final = ("test_filter_scheduler",)
PACKAGES: Final = (
    *("oslotest", "testtools", "fixtures", "ddt", "requests-mock", "PyMySQL", "testscenarios", "testresources"),
    *("moto", "setuptools<81", "prometheus-client", "os-resource-classes", "os-traits>=3.8"),
    *("aiosqlite", "cyclopts", "msgpack", "msgspec", "numpy", "outcome", "rich", "sortedcontainers", "tomli-w", "trio"),
)

app = cyclopts.App(
    name="cinder_unit", help="Cinder's scheduler tests with Hostler's class.", result_action="return_value"
)


@app.default
def command(
    *tests: str,
    mode: Literal["stock", "shadow", "canary", "live"] = "live",
    fallback: Literal["always", "unsupported", "never"] = "never",
    release: str = "29.0.0",
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run TESTS, named below cinder.tests.unit.scheduler; test_filter_scheduler if none is. Exit code 1 if a test
    fails, 3 without Cinder.

    Parameters
    ----------
    mode
        stock: without Hostler, for comparison; else ``[hostler] mode``.
    fallback
        ``[hostler] fallback``. With never, Cinder's own filters and weighers are never asked.
    release
        Release of Cinder.
    venv
        Folder of the environment; made if it is not there. ~/.cache/hostler/cinder-unit-RELEASE if left out.
    """
    try:
        python = ready(venv or kept(f"cinder-unit-{release}"), [f"cinder=={release}", *PACKAGES])
        outcome = run(python, "scheduler", mode, fallback, [TESTS + test for test in tests or DEFAULT], driver=DRIVER)
    except ServiceUnavailable as error:
        print(f"{error}; {error.hint}" if error.hint else str(error), file=sys.stderr)
        return 3
    if json:
        print(msgspec.json.encode(outcome).decode())
    else:
        show(outcome, TESTS)
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main(program=app))
