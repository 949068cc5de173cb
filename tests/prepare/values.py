"""Short ways to hosts, policies and requests that are not prepared yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from hostler import Aggregate, Engine, Flavor, Fleet, Host, Image, Policy, Request, RequestSpec, add_hosts
from hostler.placement.types.host import MemoryPages, NumaCell, NumaTopology, PciPool

CELLS = NumaTopology(
    cells=tuple(
        NumaCell(
            id=number,
            cpuset=frozenset(range(8 * number, 8 * number + 8)),
            pcpuset=frozenset(range(8 * number, 8 * number + 8)),
            memory=32_768,
            siblings=tuple(frozenset({cpu}) for cpu in range(8 * number, 8 * number + 8)),
            mempages=(MemoryPages(size_kb=4, total=8_388_608),),
        )
        for number in (0, 1)
    )
)
DEVICES = (PciPool(count=2, numa_node=0, tags={"vendor_id": "8086", "product_id": "1515", "dev_type": "type-VF"}),)
ALIAS = '{"name": "a1", "vendor_id": "8086", "product_id": "1515", "device_type": "type-VF"}'
RULES = ["ComputeFilter", "ComputeCapabilitiesFilter", "NUMATopologyFilter", "PciPassthroughFilter"]


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def host(name: str, *, zone: str | None = None, **changes: Any) -> Host:
    aggregates: tuple[Aggregate, ...] = ()
    if zone is not None:
        aggregates = (Aggregate(uuid=str(uuid5(NAMESPACE_DNS, zone)), name=zone, metadata={"availability_zone": zone}),)
    values: dict[str, Any] = {"vcpus_total": 16, "total_usable_ram_mb": 65_536, "total_usable_disk_gb": 500}
    return Host(host=name, aggregates=aggregates, **(values | changes))


def policy(rules: Iterable[str] = RULES, **groups: Mapping[str, Any]) -> Policy:
    scheduler = {"enabled_filters": list(rules)} | dict(groups.pop("filter_scheduler", {}))
    return Policy.from_mapping({"filter_scheduler": scheduler, "pci": {"alias": [ALIAS]}} | groups)


def engine(*hosts: Host, under: Policy | None = None) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, hosts)
    return Engine(fleet, under if under is not None else policy())


def asked(
    extra_specs: Mapping[str, str] | None = None, properties: Mapping[str, Any] | None = None, **spec: Any
) -> Request:
    """A request for 2 vCPUs, 2 GiB of memory and 10 GiB of disk."""
    outer = {name: spec.pop(name) for name in ("server_group", "instance_uuids", "project_id") if name in spec}
    sizes = {"vcpus": 2, "memory_mb": 2048, "root_gb": 10} | dict(spec.pop("flavor", {}))
    flavor = Flavor(name="m", extra_specs=extra_specs or {}, **sizes)
    image = None if properties is None else Image(id="image", properties=properties)
    return Request(spec=RequestSpec(flavor=flavor, image=image, **spec), **outer)
