"""Optional dependencies that are missing or broken: each is named with its extra and the cause, in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from hostler.placement.types.extras import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    "libvirt-python": ["libvirt"],
    "opentelemetry-api": ["opentelemetry"],
    "opentelemetry-sdk": ["opentelemetry"],
    "psycopg[binary]": ["psycopg"],
    "pyvmomi": ["pyVim", "pyVmomi"],
}
"""By requirement, where the names are not those of the packages."""
PROGRAM = """
import importlib.machinery, json, sys
from importlib.metadata import entry_points
from hostler.core.backends.loading import find_driver
from hostler.core.process.nova import NovaOptions, open_bus
from hostler.core import tracing
from hostler.drivers.openstack.source.placement_api import PlacementApi
from hostler.placement.oslo_conf.read import read_conf
from hostler.placement.types.extras import EXTRAS
from hostler.sim.questions import tasks
from hostler.sim.report.libraries import library
from hostler.sim.trace import rows

class Unimportable:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in EXTRAS:
            if sys.argv[1] == "missing":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec("raise AttributeError('libfoo is too old')", module.__dict__)

for name in [*sys.modules]:
    if name.partition(".")[0] in EXTRAS:
        del sys.modules[name]
sys.meta_path.insert(0, Unimportable())

names = [each.name for each in entry_points(group="hostler.drivers")]
calls = {"driver " + each: (lambda each=each: find_driver(each)) for each in names}
calls |= {
    "report": lambda: library("bokeh"),
    "service": lambda: read_conf("nova", ["nova.conf"], {}),
    "openstack": lambda: open_bus(NovaOptions(transport_url="fake://", database="sqlite://"), None, drain_seconds=1.0),
    "service again": lambda: PlacementApi("http://127.0.0.1:9"),
    "telemetry": lambda: tracing.export("console"),
    "cluster": lambda: tasks._client("tcp://127.0.0.1:9"),
    "imports": lambda: list(rows._workbook(None, None, "trace")),
}
said = {}
for name, call in calls.items():
    try:
        call()
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def declared(extra: str) -> set[str]:
    """Modules of what an extra installs."""
    names = [re.split(r"[><=]", each)[0] for each in PROJECT["optional-dependencies"][extra]]
    return {module for name in names for module in MODULES.get(name, [re.sub(r"[-.]", "_", name)])}


def test_every_optional_module_is_known_with_an_extra_that_installs_it() -> None:
    own = set(PROJECT["optional-dependencies"]) - {"dev", "docs", "test"}
    assert {module for extra in own for module in declared(extra)} == set(EXTRAS)
    assert [(module, extra) for module, extra in EXTRAS.items() if module not in declared(extra)] == []


@pytest.mark.parametrize("state", ["missing", "broken"])
def test_whatever_needs_an_extra_names_it_and_the_cause(state: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, state], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    said: dict[str, str] = json.loads(done.stdout)
    drivers = {each.name for each in entry_points(group="hostler.drivers") if each.value.startswith("hostler.")}
    expected = {f"driver {name}": name for name in drivers if PROJECT["optional-dependencies"].get(name)}
    for name, extra in (expected | {name: name.split()[0] for name in said if not name.startswith("driver ")}).items():
        library = said[name].split()[1]
        assert library in declared(extra), said[name]
        begin = f"InvalidValue: {library} of the extra {extra!r} is"
        if state == "missing":
            assert said[name] == f"{begin} not installed (pip install 'hostler[{extra}]')"
        else:
            assert said[name] == f"{begin} installed, but cannot be imported: AttributeError: libfoo is too old"
    assert len(said) >= len(expected) + 7


def test_the_scheduler_of_nova_says_that_nova_is_not_installed() -> None:
    program = (
        "import sys\nclass Gone:\n    def find_spec(self, name, *_):\n"
        "        if name == 'nova':\n            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Gone())\nfrom hostler.drivers.openstack.nova.scheduler_service import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("hostler-nova-scheduler: Nova is not installed here")
    assert done.stderr.count("\n") == 1
