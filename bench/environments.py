"""Environments of their own for services from PyPI that Hostler is held against: made once, kept between runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..placement.types.errors import HostlerError


class ServiceUnavailable(HostlerError):
    """A service to be held against could not be installed or started."""

    code = "service_unavailable"


def kept(name: str) -> Path:
    """Where an environment of that name is kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hostler" / name


def ready(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of an environment in ``folder`` with the packages; made, from PyPI, if it is not there. Raises
    ServiceUnavailable. A folder that holds anything else is left as it is."""
    python, done, wanted = folder / "bin" / "python", folder / ".complete", "\n".join(packages)
    if done.exists() and done.read_text() == wanted and python.exists():
        return python
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise ServiceUnavailable(f"{folder} is there and is no virtual environment", hint="name another folder")
    print(f"making {folder} with {packages[0]} from PyPI, which takes a minute or two", file=sys.stderr, flush=True)
    run("its environment could not be made", [sys.executable, "-m", "venv", "--clear", str(folder)])
    run(f"{packages[0]} could not be installed", [str(python), "-m", "pip", "install", "--quiet", *packages])
    done.write_text(wanted)
    return python


def clean() -> dict[str, str]:
    """The variables of this process without those that tell Python where to look."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(
    problem: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    *,
    given: str | None = None,
) -> None:
    """Run a command to its end, with ``given`` as its input. Raises ServiceUnavailable, ``problem`` and its last
    words."""
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise ServiceUnavailable(f"the real service: {problem}: {lines[-1][:300]}", hint="is PyPI within reach?")
