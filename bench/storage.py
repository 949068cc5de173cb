"""CPU time of storage decisions on pools of a given number, with and without functions of the pools.

python -m hostler.bench.storage --pools 10000 --requests 20000
python -m hostler.bench.storage --functions --json
python -m hostler.bench.storage --types 10000
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Annotated, Final

import cyclopts
import msgspec
import numpy as np
from cyclopts import Parameter

from ..placement.storage.engine import VolumeEngine
from ..placement.storage.pools.options import STORAGE
from ..placement.storage.pools.policy import VolumePolicy
from ..placement.storage.pools.reports import BackendReport
from ..placement.storage.pools.request import VolumeRequest, VolumeSpec, VolumeType
from .engine import Count, machine, main

SIZES: Final = (1, 5, 8, 10, 20, 40, 100)
FILTER_FUNCTIONS: Final = (
    "volume.size < 500",
    "stats.free_capacity_gb > volume.size * 2",
    "(volume.size < 50 and capabilities.total_volumes < 100) or capabilities.QoS_support == 1",
)
GOODNESS_FUNCTIONS: Final = (
    "100 * (1 / max(volume.size, 1))",
    "min(100, stats.free_capacity_gb / 10)",
    "100 - (stats.allocated_capacity_gb / stats.total_capacity_gb) * 100",
    "(volume.size < 25 && capabilities.total_volumes < 8) ? 90 : 30",
)
POOL_FILTERS: Final = (
    "capabilities.total_volumes < 100",
    "capabilities.QoS_support == 1 or capabilities.total_volumes < 80",
    "stats.total_capacity_gb > 20000",
)
POOL_GOODNESS: Final = (
    "100 - capabilities.total_volumes / 2",
    "capabilities.QoS_support ? 90 : 30",
    "min(100, stats.total_capacity_gb / 2000)",
)
"""Functions that read what pools report, and nothing of the request."""

app = cyclopts.App(name="storage", help="CPU time of storage decisions.", result_action="return_value")


class StorageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of CPU a decision. ``many``: place_many once every spec is compiled; ``compiling``: the first
    request of each spec; ``one``: place; ``fresh``: place of specs that were never seen before. ``types``: volume types
    that place_many places as many volumes of as ``requests`` says, each time drawn at random: ``types_first`` the first
    of these, when the types are new, ``types`` as many more."""

    machine: str
    pools: int
    functions: bool
    requests: int
    placed: int
    load_s: float
    many_us: float
    one_us: float
    compiling_us: float
    fresh_us: float
    types: int = 0
    types_first_us: float = 0.0
    types_us: float = 0.0


def reports(count: int, *, functions: bool = False, pools_only: bool = False, seed: int = 1) -> list[BackendReport]:
    """Backends of ten pools each, thin and thick, of many sizes, in three zones' worth of tiers."""
    chance = np.random.default_rng(seed)
    found = []
    for backend in range(-(-count // 10)):
        pools = [_pool(chance, pool, functions, pools_only) for pool in range(min(10, count - 10 * backend))]
        name = f"host{backend}@lvm"
        capabilities = {
            "volume_backend_name": f"BE{backend % 7}",
            "vendor_name": "OpenStack",
            "driver_version": "1.0",
            "storage_protocol": ("iSCSI", "FC", "ceph")[backend % 3],
            "pools": pools,
        }
        found.append(BackendReport(host=name, capabilities=capabilities, at=1_000.0))
    return found


def _pool(chance: np.random.Generator, number: int, functions: bool, pools_only: bool) -> dict[str, object]:
    total = int(chance.integers(10_000, 200_000))
    used = int(chance.integers(0, total // 2))
    pool: dict[str, object] = {
        "pool_name": f"pool{number}",
        "total_capacity_gb": total,
        "free_capacity_gb": total - used,
        "allocated_capacity_gb": used,
        "provisioned_capacity_gb": used + int(chance.integers(0, 500)),
        "thin_provisioning_support": bool(chance.integers(0, 2)),
        "thick_provisioning_support": True,
        "max_over_subscription_ratio": ("2.0", "10.0", "1.5")[int(chance.integers(0, 3))],
        "reserved_percentage": int(chance.integers(0, 20)),
        "QoS_support": bool(chance.integers(0, 2)),
        "tier": ("gold", "silver", "bronze")[int(chance.integers(0, 3))],
        "total_volumes": int(chance.integers(0, 120)),
    }
    if functions:
        filters, ratings = (POOL_FILTERS, POOL_GOODNESS) if pools_only else (FILTER_FUNCTIONS, GOODNESS_FUNCTIONS)
        pool["filter_function"] = filters[int(chance.integers(0, len(filters)))]
        pool["goodness_function"] = ratings[int(chance.integers(0, len(ratings)))]
    return pool


def policy(*, functions: bool) -> VolumePolicy:
    """Cinder's defaults; with functions, DriverFilter and GoodnessWeigher besides."""
    if not functions:
        return VolumePolicy.cinder_default()
    options = {
        "scheduler_default_filters": ["AvailabilityZoneFilter", "CapacityFilter", "CapabilitiesFilter", "DriverFilter"],
        "scheduler_default_weighers": ["CapacityWeigher", "GoodnessWeigher"],
    }
    return VolumePolicy.from_mapping({STORAGE: options})


def specs() -> list[VolumeSpec]:
    """Sizes by types."""
    types = (
        None,
        VolumeType(name="gold", extra_specs={"tier": "<or> gold <or> silver"}),
        VolumeType(name="qos", extra_specs={"QoS_support": "<is> True", "capabilities:tier": "s!= bronze"}),
    )
    return [VolumeSpec(size_gb=size, volume_type=kind) for size in SIZES for kind in types]


def volume_types(count: int, *, seed: int = 5) -> list[VolumeSpec]:
    """Volume types that want one to five things of a pool, each with a note for its driver that no other has."""
    chance = np.random.default_rng(seed)
    found = []
    for number in range(count):
        tiers = sorted(chance.choice(("gold", "silver", "bronze"), int(chance.integers(1, 3)), replace=False).tolist())
        wishes = {"vendor:note": str(number), "tier": "".join(f"<or> {tier} " for tier in tiers).rstrip()}
        if chance.random() < 0.5:
            wishes["QoS_support"] = f"<is> {bool(chance.integers(0, 2))}"
        if chance.random() < 0.5:
            wishes["volume_backend_name"] = f"<in> BE{chance.integers(0, 7)}"
        if chance.random() < 0.5:
            wishes["storage_protocol"] = "<or> iSCSI <or> FC"
        kind = VolumeType(name=f"type{number}", extra_specs=wishes)
        found.append(VolumeSpec(size_gb=int(chance.choice(SIZES)), volume_type=kind))
    return found


def _measure_types(engine: VolumeEngine, types: int, requests: int) -> tuple[float, float]:
    """Seconds a decision while the types are new, and afterwards."""
    known, chance = volume_types(types), np.random.default_rng(6)
    times = []
    for _ in range(2):
        drawn = [VolumeRequest(spec=known[index]) for index in chance.integers(0, types, requests)]
        gc.collect()
        gc.freeze()
        start = time.process_time()
        engine.place_many(drawn)
        times.append((time.process_time() - start) / requests)
        gc.unfreeze()
    return times[0], times[1]


def measure(pools: int, requests: int, *, functions: bool, pools_only: bool = False, types: int = 0) -> StorageTimes:
    """Load, place, and take the time."""
    engine = VolumeEngine(policy=policy(functions=functions))
    start = time.process_time()
    engine.pools.load(reports(pools, functions=functions, pools_only=pools_only))
    load = time.process_time() - start
    known = specs()
    start = time.process_time()
    engine.place_many(VolumeRequest(spec=each) for each in known)
    compiling = (time.process_time() - start) / len(known)
    chance = np.random.default_rng(2)
    drawn = [VolumeRequest(spec=known[index]) for index in chance.integers(0, len(known), requests)]
    gc.collect()
    gc.freeze()  # as for bench/engine.py: the collector goes through what the run made, not through all there is
    start = time.process_time()
    decisions = engine.place_many(drawn)
    many = (time.process_time() - start) / requests
    alone = drawn[: max(1, requests // 10)]
    start = time.process_time()
    for request in alone:
        engine.place(request)
    one = (time.process_time() - start) / len(alone)
    new = [VolumeRequest(spec=VolumeSpec(size_gb=101 + index)) for index in range(20)]
    start = time.process_time()
    for request in new:
        engine.place(request)
    fresh = (time.process_time() - start) / len(new)
    gc.unfreeze()
    first, again = _measure_types(engine, types, requests) if types else (0.0, 0.0)
    return StorageTimes(
        machine=machine(),
        pools=pools,
        functions=functions,
        requests=requests,
        placed=decisions.placed,
        load_s=load,
        many_us=many * 1e6,
        one_us=one * 1e6,
        compiling_us=compiling * 1e6,
        fresh_us=fresh * 1e6,
        types=types,
        types_first_us=first * 1e6,
        types_us=again * 1e6,
    )


@app.default
def storage(
    *,
    pools: Count = 10_000,
    requests: Count = 20_000,
    functions: bool = False,
    pools_only: bool = False,
    types: int = 0,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Measure decisions on a number of pools.

    Parameters
    ----------
    pools
        How many pools there are.
    requests
        How many volumes ``place_many`` places; a tenth of that by ``place``.
    functions
        Every pool has a filter_function and a goodness_function, and the policy evaluates both.
    pools_only
        These functions read what pools report, and nothing of the request.
    types
        How many volume types there are, besides.
    json
        Print one line of JSON.
    """
    times = measure(pools, requests, functions=functions, pools_only=pools_only, types=types)
    if json:
        print(msgspec.json.encode(times).decode())
        return 0
    print(f"{times.pools} pools{', with functions' if functions else ''} on {times.machine}")
    print(f"loaded in {times.load_s:.2f} s; {times.placed} of {times.requests} placed")
    print(f"place_many {times.many_us:.1f} us a decision, place {times.one_us:.1f} us")
    print(f"a spec's first decision {times.compiling_us:.0f} us among many, {times.fresh_us:.0f} us alone")
    if types:
        print(f"{types} volume types: {times.types_first_us:.1f} us a decision while new, then {times.types_us:.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main(program=app))
