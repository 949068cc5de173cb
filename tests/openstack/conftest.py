"""What tests of Nova's bus begin with."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .clouds import Cloud


@pytest.fixture
def exchange(request: pytest.FixtureRequest) -> str:
    """The in-memory bus is one for the whole process: each test has an exchange of its own."""
    return f"nova-{abs(hash(request.node.nodeid))}"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Three hosts. Those of Nova 34 have a trait that comes by the Placement API, which tests of the bus leave out."""
    monkeypatch.setattr("tests.openstack.clouds.MODERN", 72)
    cloud = Cloud(tmp_path)
    for number in (1, 2, 3):
        cloud.host(number, seen=time.time())
    return cloud
