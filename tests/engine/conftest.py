"""Installed plug-ins are looked up once for all the policies that these tests make: that is most of the time a policy
takes."""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

import pytest

from hostler.placement import policy


@pytest.fixture(scope="session", autouse=True)
def plug_ins_looked_up_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "entry_points", cache(entry_points))
        yield
