"""Nova's own functional tests with Hostler's class in nova-scheduler's place: which pass, and who decided what.

    python -m hostler.bench.nova_functional [--release 34.0.0] [--mode live] [--fallback never] [TEST ...]

Nova and its test requirements come from PyPI into an environment of their own, made the first time. Each set of tests
runs in a process of its own. Needs Hostler as a checkout whose kernels are built for this Python.
"""

from __future__ import annotations

import json as jsonlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter

from .engine import main
from .environments import ServiceUnavailable, clean, kept, ready

DRIVER: Final = Path(__file__).resolve().with_name("nova_functional_driver.py")
SOURCE: Final = Path(__file__).resolve().parents[1] / "src"
TESTS: Final = "nova.tests.functional."
SETS: Final[Mapping[str, tuple[str, ...]]] = {
    "smoke": ("test_json_filter", "test_scheduler"),
    "groups": (
        "test_server_group.ServerGroupTestV264",
        "test_server_group.ServerGroupTestMultiCell",
        "test_server_group.TestAntiAffinityLiveMigration",
    ),
    "aggregates": (
        "test_aggregates.TestAggregateMultiTenancyIsolationFilter",
        "test_aggregates.AggregateMultiTenancyIsolationColdMigrateTest",
        "test_aggregates.TestAggregateFiltersTogether",
        "test_aggregates.TenantAggregateFilterTest",
    ),
    "moves": ("test_cold_migrate",),
    "ports": ("test_routed_networks", "test_servers_resource_request"),
    "numa": ("libvirt.test_numa_servers",),
    "pci": ("libvirt.test_pci_in_placement", "libvirt.test_pci_sriov_servers"),
}
"""Set -> modules and classes below nova.tests.functional."""
BASE: Final = (
    *("openstack-placement", "oslotest", "testtools", "fixtures", "ddt", "wsgi-intercept", "requests-mock", "PyMySQL"),
    *("testscenarios", "testresources", "osprofiler", "setuptools<81", "prometheus-client", "os-traits>=3.8"),
    *("aiosqlite", "cyclopts", "msgpack", "msgspec", "numpy", "outcome", "rich", "sortedcontainers", "tomli-w", "trio"),
)
PINS: Final[Mapping[str, tuple[str, ...]]] = {
    "33": (
        *("oslo.messaging==17.3.0", "oslo.service==4.5.1", "oslo.db==18.0.0", "eventlet==0.40.4"),
        *("SQLAlchemy==2.0.46", "openstack-placement==15.0.0", "oslo.policy==5.0.0"),
    ),
    "34": ("SQLAlchemy==2.0.52",),
}
"""By major release: what its tests were written for, where the newest do not run them."""

app = cyclopts.App(
    name="nova_functional",
    help="Nova's own functional tests with Hostler as nova-scheduler.",
    result_action="return_value",
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one set; ``metrics``: the counters of its schedulers, summed up."""

    set: str
    run: int
    passed: int
    skipped: int
    failed: list[str]
    cpu_seconds: float
    metrics: dict[str, float]


def environment_of(release: str, venv: Path | None) -> Path:
    """The Python of an environment with Nova and its test requirements. Raises ServiceUnavailable."""
    folder = venv or kept(f"nova-functional-{release}")
    pins = PINS.get(release.partition(".")[0], ())
    pinned = {pin.partition("==")[0] for pin in pins}
    python = ready(folder, [f"nova=={release}", *(each for each in BASE if each not in pinned), *pins])
    found = next((folder / "lib").glob("python*/site-packages"))
    link = found / "etc"
    if not link.exists():
        link.symlink_to(folder / "etc")  # where the tests look for api-paste.ini
    return python


def run(python: Path, name: str, mode: str, fallback: str, tests: Sequence[str], *, driver: Path = DRIVER) -> Outcome:
    """Run one set to its end; its progress goes to stderr. Raises ServiceUnavailable if the run itself fails."""
    command = [str(python), "-W", "ignore", str(driver), mode, fallback, *tests]
    environment = clean() | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise ServiceUnavailable(f"the tests of {name} ended with exit code {done.returncode} and no result")
    found: dict[str, Any] = jsonlib.loads(lines[-1])
    return Outcome(set=name, **found)


def show(outcome: Outcome, prefix: str = TESTS) -> None:
    """One set as a line, its failures (without ``prefix``) and its counters below it."""
    print(
        f"{outcome.set}: {outcome.run} run, {outcome.passed} passed, {outcome.skipped} skipped, "
        f"{len(outcome.failed)} failed, {outcome.cpu_seconds:.0f} s of CPU"
    )
    for test in outcome.failed:
        print(f"  failed: {test.removeprefix(prefix)}")
    for name, value in outcome.metrics.items():
        print(f"  {name} {value:g}")


@app.default
def command(
    *tests: str,
    sets: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("smoke", "groups", "aggregates", "moves"),
    mode: Literal["stock", "shadow", "canary", "live"] = "live",
    fallback: Literal["always", "unsupported", "never"] = "never",
    release: str = "33.0.2",
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run SETS of tests (smoke, groups, aggregates, moves, ports, numa, pci), or the TESTS that are named below
    nova.tests.functional. Exit code 1 if a test fails, 3 without Nova.

    Parameters
    ----------
    mode
        stock: without Hostler, for comparison; else ``[hostler] mode``.
    fallback
        ``[hostler] fallback``. With never, Nova's own choice is never asked for.
    release
        Release of Nova, such as 34.0.0.
    venv
        Folder of the environment; made if it is not there. ~/.cache/hostler/nova-functional-RELEASE if left out.
    """
    unknown = [name for name in sets if name not in SETS]
    if unknown:
        print(f"unknown set {unknown[0]!r}; the sets are {', '.join(SETS)}", file=sys.stderr)
        return 2
    wanted = {"named": tests} if tests else {name: SETS[name] for name in sets}
    try:
        python = environment_of(release, venv)
        outcomes = []
        for name, modules in wanted.items():
            outcomes.append(run(python, name, mode, fallback, [TESTS + module for module in modules]))
            if not json:
                show(outcomes[-1])
    except ServiceUnavailable as error:
        print(f"{error}; {error.hint}" if error.hint else str(error), file=sys.stderr)
        return 3
    if json:
        print(msgspec.json.encode(outcomes).decode())
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(program=app))
