"""Placement's own functional tests, the 1,316 of its 79 gabbi files, run against `hostler serve`."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .calling import HOSTLER

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT.parent / "shared" / "tools" / "placement_conformance.py"
RELEASE = "openstack-placement==16.0.0"
INSIDE = "placement/tests/functional/gabbits/"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not RUNNER.exists(), reason="the runner ../shared/tools/placement_conformance.py is not here"),
    pytest.mark.skipif(not HOSTLER.exists(), reason="hostler is not installed beside this Python"),
]


@pytest.fixture(scope="module")
def gabbits() -> Path:
    """The test files of the release from PyPI, fetched once."""
    folder = ROOT / "build" / RELEASE.replace("==", "-")
    if not (folder / INSIDE).is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), RELEASE]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if fetched.returncode:
            pytest.skip(f"{RELEASE} cannot be fetched from PyPI: {fetched.stderr.strip()[-200:]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(INSIDE)])
    return folder / INSIDE


def test_all_1316_of_placements_own_tests_pass(gabbits: Path, tmp_path: Path) -> None:
    out = tmp_path / "conformance.json"
    start = f"{ROOT}/tests/placement_server --port {{port}} --mode {{mode}} --dir {{dir}}"
    command = [sys.executable, str(RUNNER), "--start", start, "--gabbits", str(gabbits), "--jobs", "2", "-q"]
    ran = subprocess.run([*command, "-o", str(out)], capture_output=True, text=True, timeout=2_400, check=False)
    assert out.exists(), ran.stderr[-2_000:]
    report = json.loads(out.read_text())
    failures = {
        name: file["failures"] or file.get("reason") for name, file in report["files"].items() if file["failed"]
    }
    assert not failures
    assert report["total"] == {"tests": 1316, "passed": 1316, "failed": 0, "skipped": 0}
