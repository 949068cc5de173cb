"""The invariants of the pools of a fleet, for tests and for files of doubtful origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ....ext.pools import derive
from .reports import VolumeService, read_capacities
from .rows import PoolRows


def check(pools: PoolRows, services: Mapping[str, VolumeService], default_ratio: str) -> None:
    """Assert every invariant. O(pools + volumes)."""
    columns = pools.columns
    assert len(pools.facts) == columns.rows == columns.kernel.rows <= columns.capacity, "rows"
    live = [row for row, facts in enumerate(pools.facts) if facts is not None]
    assert pools.live_rows().tolist() == live, "live rows"
    assert not columns.live[columns.rows :].any(), "rows beyond the last"
    _check_order(pools, live)
    _check_names(pools, services, live)
    _check_capacities(pools, default_ratio, live)
    on = Counter(volume.host for volume in pools.volumes.values())
    assert all(pools.volumes.on(host) == count for host, count in on.items()), "volumes by host"
    counted = columns["volumes"]
    assert all(counted[row] == on[pools.fact(row).host] for row in live), "volumes by pool"


def _check_order(pools: PoolRows, live: list[int]) -> None:
    """Rows are in candidate order, each pool where its backend says."""
    rows = [row for backend in pools.backends.values() for row in backend.pools.values()]
    assert rows == live, "candidate order"
    for key, backend in pools.backends.items():
        assert key == (backend.cluster_name or backend.host), "key of a backend"
        for name, row in backend.pools.items():
            facts = pools.fact(row)
            assert (facts.backend_key, facts.pool_name) == (key, name), "row of a pool"


def _check_names(pools: PoolRows, services: Mapping[str, VolumeService], live: list[int]) -> None:
    assert pools.row_of == {pools.fact(row).backend_id: row for row in live}, "rows by name"
    assert len(pools.row_of) == len(live), "two pools of one name"
    assert all(key in {service.key for service in services.values()} for key in pools.backends), "services"
    assert all(host == service.host for host, service in services.items()), "hosts of services"


def _check_capacities(pools: PoolRows, default_ratio: str, live: list[int]) -> None:
    """What is derived follows from the rest, what never changes from the report."""
    columns = pools.columns
    block = columns.block.copy()
    derive(block, np.array(live, np.int32))
    assert np.array_equal(block, columns.block), "derived figures"
    assert np.isfinite(block[:10]).all(), "a capacity is not finite"
    for row in live:
        facts = pools.fact(row)
        figures = read_capacities(facts.reported, default_ratio)
        assert facts.problem == figures.problem, "problem"
        assert columns["ratio"][row] == facts.ratio == figures.ratio, "ratio"
        assert columns["thin"][row] == facts.thin, "thin"
        assert columns["bounded"][row] == (facts.bounded and facts.problem is None), "bounded"
        assert columns["total"][row] == (0.0 if isinstance(facts.total, str) else facts.total), "total"
