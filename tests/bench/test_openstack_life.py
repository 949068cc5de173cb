"""What the life of an OpenStack reads from nova-manage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hostler.bench.openstack_life import Life

LINE = (
    "Allocations for consumer UUID {} on Resource Provider rp-1 can be deleted: "
    "{{'allocations': {{'rp-1': {{'resources': {{'VCPU': 1}}}}}}}}"
)
"""As Nova 34 prints it."""


@pytest.mark.parametrize(
    ("code", "told", "found"),
    [
        (0, "Processed 0 allocations.", []),
        (3, f"{LINE.format('left')}\nProcessed 1 allocation.", []),
        (3, f"{LINE.format('left')}\n{LINE.format('other')}\nProcessed 2 allocations.", ["other on dead"]),
        (1, "The Resource Provider rp-1 had problems", ["The Resource Provider rp-1 had problems"]),
    ],
)
def test_the_allocations_of_evacuated_guests_on_the_dead_host_are_no_orphans(
    code: int, told: str, found: list[str]
) -> None:
    providers = {"resource_providers": [{"uuid": "rp-1", "name": "dead"}]}
    placement = SimpleNamespace(get=lambda path: SimpleNamespace(json=lambda: providers))
    cloud: Any = SimpleNamespace(manage=lambda *words: (code, told), placement=placement, stock=False)
    life = Life(cloud, lambda step: None)
    life._left["left"] = "dead"
    assert life._orphans() == (code, found)
