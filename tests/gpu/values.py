"""Small fleets with GPUs and guests that share them, made of a few numbers."""

from __future__ import annotations

from collections.abc import Sequence

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.gpu.providers import add_gpus, gpu_extra_specs, model_trait

TYPICAL = ["4000:500:1=0.5", "8000:1000:1:T4=0.25", "2000:0:0=0.15", "16000:1000:2=0.1"]
NodeValues = tuple[int, int, str]
"""CPUs, GPUs, model."""


def policy(weigher: str, **options: object) -> Policy:
    scheduler = {
        "available_filters": ["nova.scheduler.filters.all_filters", "GpuModelFilter"],
        "enabled_filters": ["ComputeFilter", "GpuModelFilter"],
        "weight_classes": [weigher],
    }
    return Policy.from_mapping({"filter_scheduler": scheduler, "gpu": {"typical": TYPICAL, **options}})


def engine(nodes: Sequence[NodeValues], weigher: str, *, seed: int = 7) -> Engine:
    fleet = Fleet(seed=1)
    hosts = [
        Host(
            host=f"n{number}",
            vcpus_total=cpus,
            cpu_allocation_ratio=1.0,
            total_usable_ram_mb=cpus * 1024,
            traits=frozenset({model_trait(model)}),
        )
        for number, (cpus, _, model) in enumerate(nodes)
    ]
    add_hosts(fleet, hosts)
    add_gpus(fleet, {f"n{number}": gpus for number, (_, gpus, _) in enumerate(nodes)})
    return Engine(fleet, policy(weigher), seed=seed)


def spec(cpus: int, milli: int = 0, count: int = 0, *, models: str = "") -> RequestSpec:
    extra = gpu_extra_specs(milli, count, models)
    return RequestSpec(flavor=Flavor(name="f", vcpus=cpus, memory_mb=512 * cpus, extra_specs=extra))


def request(*shape: int, models: str = "") -> Request:
    return Request(spec=spec(*shape, models=models))
