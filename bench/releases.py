"""Says when PyPI has a newer release of Nova, Placement or Cinder than the one that Hostler was compared with.

    python -m hostler.bench.releases

Exit code 1 if there is one, 3 if PyPI cannot be asked. It needs a network and is not part of the tests.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import cyclopts

from .engine import main
from .environments import ServiceUnavailable

COMPARED: Final = {"nova": "34.0.0", "openstack-placement": "16.0.0", "cinder": "29.0.0"}
"""Package -> its newest release that Hostler was compared with."""

app = cyclopts.App(name="releases", help="Newer releases than those compared with.", result_action="return_value")


def newest(package: str) -> str:
    """The newest final release of a package, as pip finds it. Raises ServiceUnavailable."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.match(rf"{re.escape(package)} \(([0-9.]+)\)", done.stdout)
    if found is None:
        raise ServiceUnavailable(f"pip finds no release of {package}", hint="is PyPI within reach?")
    return found[1]


def newer(ask: Callable[[str], str] = newest) -> dict[str, tuple[str, str]]:
    """Package -> (the release compared with, a newer one), of those that have one. Raises ServiceUnavailable."""
    found = {package: (compared, ask(package)) for package, compared in COMPARED.items()}
    return {package: pair for package, pair in found.items() if _parts(pair[1]) > _parts(pair[0])}


def _parts(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


@app.default
def command() -> int:
    """Say which packages have newer releases. Exit code 1 if some have."""
    try:
        found = newer()
    except ServiceUnavailable as error:
        print(f"releases: {error}", file=sys.stderr)
        return 3
    for package, (compared, release) in found.items():
        print(f"{package} {release} is newer than {compared}, which Hostler was compared with")
    if not found:
        print(", ".join(f"{package} {release}" for package, release in COMPARED.items()) + ": the newest")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(program=app))
