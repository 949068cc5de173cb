"""Run with the packages of an environment with Nova: each of Nova's filters and weighers, subclassed and adapted,
against Hostler's own of that name. Prints name -> [answer of the subclass, answer of Hostler's own] as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

sys.path.append(sys.argv[1])
os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"

from hostler import (
    Aggregate,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostlerError,
    Image,
    InstanceNumaCell,
    InstanceNumaTopology,
    MemoryPages,
    NumaCell,
    NumaTopology,
    PciPool,
    PciRequest,
    Policy,
    Request,
    RequestSpec,
    ServerGroup,
    Service,
    add_hosts,
)
from hostler.placement.filters import BUILTIN_FILTERS
from hostler.placement.weighers import BUILTIN_WEIGHERS

UUID = "00000000-0000-4000-8000-{:012}"
NOW = 1.7e9


def stock_classes() -> dict[str, type]:
    """Nova's filters and weighers by name."""
    conf = importlib.import_module("nova.conf").CONF
    importlib.import_module("nova.config")
    conf([], project="nova", default_config_files=[])
    importlib.import_module("nova.objects").register_all()
    found = {}
    for package in ("filters", "weights"):
        module = importlib.import_module(f"nova.scheduler.{package}")
        listed = module.all_filters() if package == "filters" else module.all_weighers()
        found.update({each.__name__: each for each in listed})
    return found


def hosts() -> list[Host]:
    cell = NumaCell(
        id=0, cpuset=frozenset(range(16)), memory=65_536, mempages=(MemoryPages(size_kb=4, total=16_777_216),)
    )
    fast = Aggregate(uuid=UUID.format(901), name="fast", metadata={"k": "v", "filter_tenant_id": "p"})
    slow = Aggregate(uuid=UUID.format(902), name="slow", metadata={"max_io_ops_per_host": "1", "k": "w"})
    common: dict[str, Any] = {"vcpus_total": 16, "total_usable_ram_mb": 65_536, "total_usable_disk_gb": 500}
    return [
        Host(
            host="a", **common, aggregates=(fast,), numa_topology=NumaTopology(cells=(cell,)), host_ip="10.0.0.1",
            supported_instances=(("x86_64", "kvm", "hvm"),), cpu_info="{}", metrics={"m": 1.0},
            pci_pools=(PciPool(count=2, tags={"vendor_id": "8086", "product_id": "1"}),),
            service=Service(last_seen_up=NOW - 10), num_instances=2, hypervisor_version=9_000_000,
        ),
        Host(
            host="b", **common, aggregates=(slow,), host_ip="10.1.0.1", num_io_ops=3, cpu_info="{}",
            service=Service(last_seen_up=NOW - 300), failed_builds=2, metrics={"m": 4.0}, hypervisor_version=8_000_000,
        ),
        Host(
            host="c", **common, host_ip="10.0.0.3", vcpus_used=4, free_ram_mb=9_000, cpu_info="{}",
            service=Service(disabled=True, last_seen_up=NOW), supported_instances=(("aarch64", "kvm", "hvm"),),
        ),
    ]  # fmt: skip


def requests(kept: bool) -> list[Request]:
    flavor = Flavor(name="f", vcpus=2, memory_mb=2_048, extra_specs={"k": "v"})
    guest = InstanceNumaTopology(cells=(InstanceNumaCell(id=0, cpuset=frozenset({0, 1}), memory=2_048),))
    device = PciRequest(count=1, spec=({"vendor_id": "8086", "product_id": "1"},), request_id=UUID.format(88))
    image = Image(id="i", properties={"hw_architecture": "x86_64"})
    hints = {"query": ('[">=", "$free_ram_mb", 10000]',), "build_near_host_ip": ("10.0.0.9",), "cidr": ("/24",)}
    holding = {"different_host": (UUID.format(1),), "same_host": (UUID.format(1),)}
    specs = [
        RequestSpec(flavor=flavor, image=image, scheduler_hints=hints),
        RequestSpec(flavor=flavor, image=image, scheduler_hints=holding),
        RequestSpec(flavor=flavor, image=image, numa_topology=guest, pci_requests=(device,)),
    ]
    groups = [None] + ([UUID.format(500 + number) for number in range(4)] if kept else [])
    found = [Request(spec=each, project_id="p", server_group=group, now=NOW) for each in specs for group in groups]
    found += [
        Request(spec=specs[0], project_id="p", server_group=group, now=NOW) for group in (supplied() if kept else [])
    ]
    tagged = Flavor(name="f", vcpus=1, memory_mb=512, extra_specs={"aggregate_instance_extra_specs:k": "<or> v <or> w"})
    for properties in ({"k": "w", "hw_vm_mode": "hvm"}, {"img_hv_type": "kvm", "hw_architecture": "aarch64"}):
        spec = RequestSpec(flavor=tagged, image=Image(id="j", properties=properties))
        found.append(Request(spec=spec, project_id="q", now=NOW))
    return found


def supplied() -> list[ServerGroup]:
    """Groups whose members and hosts the caller knows."""
    return [
        ServerGroup(
            uuid=UUID.format(600), policy=policy, max_server_per_host=most, members=frozenset({UUID.format(0)}),
            hosts=frozenset(hosts),
        )
        for policy in ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")
        for hosts, most in ((("a",), 1), (("a", "b"), 2), (("elsewhere",), 1))
    ]  # fmt: skip


def answers(rule: str, weigher: bool, path: str | None) -> list[Any]:
    fleet = Fleet()
    add_hosts(fleet, hosts())
    scheduler: dict[str, Any] = {"enabled_filters": ["AllHostsFilter"], "weight_classes": []}
    if weigher:
        scheduler["weight_classes"] = [path or rule]
    else:
        scheduler["enabled_filters"] = [f"X{rule}" if path else rule]
        scheduler["available_filters"] = ["nova.scheduler.filters.all_filters", *([path] if path else [])]
    own = {"prepare": False, "forbid_disabled": False}
    engine = Engine(fleet, Policy.from_mapping({"filter_scheduler": scheduler, "hostler": own}))
    for number, policy in enumerate(("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")):
        fleet.add_server_group(UUID.format(500 + number), policy)
        spec = RequestSpec(flavor=Flavor(name="g", vcpus=1, memory_mb=64), force_hosts=("a",))
        engine.place(Request(spec=spec, server_group=UUID.format(500 + number), instance_uuids=(UUID.format(number),)))
    found: list[Any] = []
    for request in requests(kept=True):
        try:
            ranked = engine.rank(request)
        except HostlerError as error:
            found.append(type(error).__name__)
            continue
        found.append(
            [[engine.fleet.name(row), weight] for row, weight in zip(ranked.rows, ranked.weights.tolist(), strict=True)]
        )
    return found


def main() -> None:
    module = sys.modules[__name__]
    found = {}
    for name, stock in stock_classes().items():
        subclass = type(f"X{name}", (stock,), {"__module__": __name__})
        setattr(module, f"X{name}", subclass)
        weigher = name in BUILTIN_WEIGHERS
        assert weigher or name in BUILTIN_FILTERS, name
        found[name] = [answers(name, weigher, f"{__name__}.X{name}"), answers(name, weigher, None)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
