"""Writes the names of the options that nova.conf and cinder.conf may have, from the services' own registrations.

    python -m hostler.bench.option_names

The services run in environments of their own, made from PyPI the first time. ``placement/oslo_conf`` reads the file, to
tell an option that no decision depends on from a misspelt one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
from cyclopts import Parameter

from ..placement.policy.policy import NOVA_CONF
from ..placement.storage.pools.policy import CINDER_CONF
from .engine import main
from .environments import ServiceUnavailable, clean, kept, ready

RELEASES: Final = {"nova": ("33.0.2", "34.0.0"), "cinder": ("29.0.0",)}
SECTIONS: Final = {"nova": sorted(NOVA_CONF), "cinder": sorted(CINDER_CONF)}
FILE: Final = Path(__file__).resolve().parents[1] / "placement" / "oslo_conf" / "known_options.json"
LIBRARIES: Final = (
    "oslo.log", "oslo.messaging", "oslo.service.periodic_task", "oslo.service.service", "oslo.service.wsgi",
    "oslo.versionedobjects", "oslo.concurrency", "oslo.middleware",
)  # fmt: skip
"""Libraries that register options in sections which Hostler reads."""
PROGRAM: Final = """
import importlib, importlib.metadata, json, sys, warnings
from unittest.mock import MagicMock
warnings.filterwarnings("ignore")
service, libraries = sys.argv[1], sys.argv[2:]
while True:
    try:
        lists = importlib.import_module("nova.conf.opts" if service == "nova" else "cinder.opts").list_opts()
        break
    except ModuleNotFoundError as error:  # what a driver needs that is not used
        sys.modules[error.name] = MagicMock()
points = {each.name: each for each in importlib.metadata.entry_points(group="oslo.config.opts")}
lists = list(lists) + [pair for name in libraries if name in points for pair in points[name].load()()]
found = {}
for group, options in lists:
    section = found.setdefault(str(getattr(group, "name", group) or "DEFAULT"), set())
    for option in options:
        section.add(option.dest)
        for old in option.deprecated_opts:
            found.setdefault(old.group or "DEFAULT", set()).add((old.name or option.dest).replace("-", "_"))
found["DEFAULT"] |= found.get("backend_defaults", set())  # a back end's options may stand there as well
print(json.dumps({section: sorted(names) for section, names in found.items()}))
"""

app = cyclopts.App(name="option_names", help="The names of Nova's and Cinder's options.", result_action="return_value")


def names(service: str, release: str, folder: Path | None = None) -> dict[str, list[str]]:
    """Section -> names of its options, as a release of a service registers them. Raises ServiceUnavailable."""
    python = ready(folder or kept(f"{service}-{release}"), [f"{service}=={release}"])
    done = subprocess.run(
        [str(python), "-c", PROGRAM, service, *LIBRARIES],
        capture_output=True,
        text=True,
        env=clean() | {"OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"},
        check=False,
    )
    if done.returncode:
        raise ServiceUnavailable(f"{service} {release}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@app.default
def write(
    *, folders: Annotated[Path | None, Parameter(help="where the environments are, in place of the cache")] = None
) -> int:
    """Write placement/oslo_conf/known_options.json."""
    known: dict[str, dict[str, Any]] = {}
    for service, releases in RELEASES.items():
        found = [names(service, each, folders and folders / f"{service}-{each}") for each in releases]
        known[service] = {
            section: sorted({name for each in found for name in each.get(section, ())}) for section in SECTIONS[service]
        }
    FILE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], app))
