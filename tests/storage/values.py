"""Made-up backends, volume types and requests."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.storage.pools.reports import BackendReport
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec, VolumeType

FUNCTIONS = (
    None,
    "volume.size < 10",
    "stats.free_capacity_gb > volume.size * 2",
    "stats.storage_protocol == 'iSCSI'",
    "capabilities.iops",
    "1 +",
    "'abc'",
    "min(100, stats.free_capacity_gb / 10)",
    "(volume.size < 5) ? 100 : 50",
    "100 - stats.allocated_capacity_gb / stats.total_capacity_gb * 100",
    "extra.iops <= qos.maxIOPS",
)


def pool(name: str = "p", total: Any = 1_000, free: Any = 1_000, **others: Any) -> dict[str, Any]:
    return {"pool_name": name, "total_capacity_gb": total, "free_capacity_gb": free, **others}


def report(host: str, *pools: Mapping[str, Any], at: float = 100.0, cluster: str | None = None, **backend: Any) -> Any:
    capabilities = {"volume_backend_name": host, "storage_protocol": "iSCSI", "pools": list(pools), **backend}
    return BackendReport(host=host, capabilities=capabilities, at=at, cluster_name=cluster)


def engine(*reports: BackendReport, **options: Any) -> VolumeEngine:
    made = VolumeEngine(policy=VolumePolicy.from_mapping({"storage": options}))
    made.pools.load(reports)
    return made


def wish(size_gb: int = 1, extra_specs: Mapping[str, str | None] | None = None, **spec: Any) -> VolumeRequest:
    """A request for a volume; ``request`` fields come by ``with_changes``."""
    volume_type = VolumeType(extra_specs=extra_specs) if extra_specs is not None else None
    return VolumeRequest(spec=VolumeSpec(size_gb=size_gb, volume_type=volume_type, **spec))


def random_pool(chance: random.Random, name: str) -> dict[str, Any]:
    total: Any = chance.choice([0, 10, 64, 100, 500.5, 1_000, "infinite", "unknown"])
    free: Any = total if isinstance(total, str) else chance.choice([total, total / 2, 7, "unknown"])
    made: dict[str, Any] = {
        "pool_name": name,
        "total_capacity_gb": total,
        "free_capacity_gb": free,
        "allocated_capacity_gb": chance.choice([0, 5, 90]),
        "reserved_percentage": chance.choice([0, 0, 5, 33, 100]),
        "thin_provisioning_support": chance.random() < 0.5,
        "max_over_subscription_ratio": chance.choice([None, "auto", "1.0", "1.5", 0.5, 20]),
        "tier": chance.choice(["gold", "silver", ["gold", "bronze"]]),
        "iops": chance.choice([100, "5000", 12.5, None]),
    }
    if chance.random() < 0.7:
        made["provisioned_capacity_gb"] = chance.choice([0, 3.25, 80, 2_000])
    if chance.random() < 0.5:
        made["filter_function"] = chance.choice(FUNCTIONS)
    if chance.random() < 0.7:
        made["goodness_function"] = chance.choice(FUNCTIONS)
    return made


def random_report(chance: random.Random, at: float, hosts: int = 4) -> BackendReport:
    number = chance.randrange(hosts)
    cluster = "cl@be" if number == 0 else None
    names = chance.sample(["a", "b", "c"], chance.randint(0, 3))
    capabilities: dict[str, Any] = {
        "volume_backend_name": f"BE{number}",
        "storage_protocol": chance.choice(["FC", "ceph"]),
    }
    if names or chance.random() < 0.5:
        capabilities["pools"] = [random_pool(chance, name) for name in names]
    else:
        capabilities |= {key: value for key, value in random_pool(chance, "x").items() if key != "pool_name"}
    return BackendReport(host=f"host{number}@be", capabilities=capabilities, at=at, cluster_name=cluster)


def random_spec(chance: random.Random) -> VolumeSpec:
    wishes: list[dict[str, str | None]] = [
        {},
        {"tier": "<or> gold <or> silver"},
        {"provisioning:type": "thick"},
        {"iops": ">= 50"},
        {"iops": "<in> 5"},
    ]
    extra_specs = chance.choice(wishes)
    return VolumeSpec(
        size_gb=chance.choice([0, 1, 4, 9, 30]),
        volume_type=VolumeType(extra_specs=extra_specs) if chance.random() < 0.8 else None,
        qos_specs=chance.choice([None, {}, {"maxIOPS": "800"}]),
        availability_zone=chance.choice([None, None, "nova", "az1"]),
        scheduler_hints=chance.choice([{}, {}, {}, {"query": '["<", "$allocated_capacity_gb", 50]'}]),
    )
