"""Changes of a fleet by the library, with names that never occur again; each leaves nothing behind."""

from __future__ import annotations

import hashlib
import uuid as uuids
from collections.abc import Callable, Mapping
from typing import Any, Final

from hostler import (
    Aggregate,
    BackendReport,
    ConsumerAllocations,
    DeleteAllocations,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostReport,
    Inventory,
    PciPool,
    PlacementModel,
    Request,
    RequestSpec,
    SetAllocations,
    VolumeEngine,
    VolumeRequest,
    VolumeService,
    VolumeSpec,
    add_hosts,
    report_hosts,
)

NOW: Final = 1_700_000_000.0
OWN: Final = {"VCPU": Inventory(total=64), "MEMORY_MB": Inventory(total=10**6), "DISK_GB": Inventory(total=10**4)}
SIZE: Final[Mapping[str, Any]] = {
    "vcpus_total": 64,
    "total_usable_ram_mb": 10**6,
    "total_usable_disk_gb": 10**4,
}


def name_of(number: int) -> str:
    """A name of 16 characters for each number."""
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=8).hexdigest()


def uuid_of(number: int, which: int = 0) -> str:
    """A uuid for each pair of numbers."""
    return str(uuids.UUID(bytes=hashlib.blake2b(b"%d.%d" % (number, which), digest_size=16).digest()))


class Library:
    """An engine with four hosts, and one of storage with two pools."""

    def __init__(self) -> None:
        self.engine = Engine()
        add_hosts(self.fleet, [Host(host=f"n{number}", **SIZE) for number in range(4)])
        self.storage = VolumeEngine(self.fleet)
        self.fleet.pools.add_services([VolumeService(host="n0@lvm")])
        self.fleet.pools.report(BackendReport(host="n0@lvm", capabilities=pools("a", "b"), at=NOW))

    @property
    def fleet(self) -> Fleet:
        """The engine's fleet."""
        return self.engine.fleet


def pools(*names: str) -> dict[str, Any]:
    """What a backend with such pools, of 1,000 GiB each, reports."""
    size = {"total_capacity_gb": 1_000, "free_capacity_gb": 900, "allocated_capacity_gb": 0}
    return {"pools": [{"pool_name": name, **size} for name in names]}


def spec_of(number: int) -> RequestSpec:
    """A flavor that nothing else has."""
    return RequestSpec(flavor=Flavor(name=f"f-{name_of(number)}", vcpus=1, memory_mb=512 + number % 5_000))


def disabled(it: Library, number: int) -> None:
    """A host is disabled for a reason, a guest is placed, and the host is enabled again."""
    it.fleet.set_service("n1", disabled=True, disabled_reason=f"ticket {name_of(number)}")
    it.engine.release(it.engine.place(Request(spec=_PLAIN)).selected.instance_uuid)
    it.fleet.set_service("n1", disabled=False)


def placed(it: Library, number: int) -> None:
    """A guest of a flavor, a project and a user of its own comes and goes."""
    name = name_of(number)
    request = Request(spec=spec_of(number), project_id=f"p-{name}", user_id=f"u-{name}")
    it.engine.release(it.engine.place(request).selected.instance_uuid)


def moved(it: Library, number: int) -> None:
    """A guest moves, or is moved back, and goes."""
    request = Request(spec=spec_of(number), project_id=f"p-{name_of(number)}")
    uuid = it.engine.place(request).selected.instance_uuid
    it.engine.begin_move(uuid, request)
    (it.engine.confirm if number % 2 else it.engine.revert)(uuid)
    it.engine.release(uuid)


def tried(it: Library, number: int) -> None:
    """A fork takes a guest, and is dropped; a request is explained, and one fits nowhere."""
    request = Request(spec=spec_of(number))
    it.engine.what_if().place(request)
    it.engine.explain(request)
    huge = RequestSpec(flavor=Flavor(name=name_of(number), vcpus=1_000, memory_mb=1))
    assert it.engine.place(Request(spec=huge)).refusal is not None


def allocated(it: Library, number: int) -> None:
    """A consumer of Placement's comes and goes."""
    model, name = PlacementModel(it.fleet), name_of(number)
    allocations = ConsumerAllocations(
        allocations={it.fleet.uuid(0): {"VCPU": 1, "MEMORY_MB": 1 + number % 5_000}},
        project_id=f"p-{name}",
        user_id=f"u-{name}",
        generation=None,
        consumer_type=None,
    )
    model.apply(SetAllocations(now=NOW, consumers={uuid_of(number): allocations}))
    model.apply(DeleteAllocations(now=NOW, consumer=uuid_of(number)))


def aggregated(it: Library, number: int) -> None:
    """A host enters an aggregate with a zone and leaves it, and the aggregate is removed."""
    uuid = uuid_of(number)
    zone = Aggregate(uuid=uuid, name=name_of(number), metadata={"availability_zone": name_of(number)})
    it.fleet.set_aggregates("n2", [zone])
    in_zone = RequestSpec(flavor=_PLAIN.flavor, availability_zone=name_of(number))
    it.engine.release(it.engine.place(Request(spec=in_zone)).selected.instance_uuid)
    it.fleet.set_aggregates("n2", [])
    it.fleet.remove_aggregate(uuid)


def grouped(it: Library, number: int) -> None:
    """A server group is kept, gets a member, and goes."""
    group = uuid_of(number)
    it.fleet.add_server_group(group, "anti-affinity")
    it.engine.release(it.engine.place(Request(spec=_PLAIN, server_group=group)).selected.instance_uuid)
    it.fleet.remove_server_group(group)


def reported(it: Library, number: int) -> None:
    """A host reports names that it has never reported."""
    name = name_of(number)
    facts: dict[str, Any] = {"stats": {name: "1"}, "metrics": {name: 1.0}, "cpu_info": name, "cell_uuid": name}
    devices = (PciPool(count=1, tags={"vendor_id": name}),)
    host = Host(host="n0", pci_pools=devices, instances={uuid_of(number): {}}, **SIZE, **facts)
    report_hosts(it.fleet, [HostReport(host=host, at=1.0 + number)])


def addressed(it: Library, number: int) -> None:
    """A host reports another address, and nothing else that is new."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    report_hosts(it.fleet, [HostReport(host=Host(host="n0", host_ip=address, **SIZE), at=1.0 + number)])


def classed(it: Library, number: int) -> None:
    """A resource class comes, is used, and goes."""
    name = f"CUSTOM_{name_of(number).upper()}"
    it.fleet.set_inventory("n3", {**OWN, name: Inventory(total=1 + number % 100)})
    flavor = Flavor(name=name, vcpus=1, memory_mb=512, extra_specs={f"resources:{name}": "1"})
    it.engine.release(it.engine.place(Request(spec=RequestSpec(flavor=flavor))).selected.instance_uuid)
    it.fleet.set_inventory("n3", OWN)


def traited(it: Library, number: int) -> None:
    """A trait comes, is required, and goes."""
    name = f"CUSTOM_{name_of(number).upper()}"
    it.fleet.set_traits("n3", [name])
    flavor = Flavor(name=name, vcpus=1, memory_mb=512, extra_specs={f"trait:{name}": "required"})
    it.engine.release(it.engine.place(Request(spec=RequestSpec(flavor=flavor))).selected.instance_uuid)
    it.fleet.set_traits("n3", [])


def hosted(it: Library, number: int) -> None:
    """A host, known to Nova by another name than its service, and a provider below it come and go."""
    name, address = f"h-{name_of(number)}", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    add_hosts(it.fleet, [Host(host=f"s-{name}", nodename=name, host_ip=address, **SIZE)])
    it.fleet.add_provider(f"{name}-card", parent=name)
    it.fleet.remove_provider(f"{name}-card")
    it.fleet.remove_provider(name)


def stored(it: Library, number: int) -> None:
    """A volume comes and goes."""
    spec = VolumeSpec(size_gb=1 + number % 50, metadata={"name": name_of(number)})
    request = VolumeRequest(spec=spec, volume_id=uuid_of(number), project_id=f"p-{name_of(number)}")
    it.storage.release(it.storage.place(request).selected.volume_id)


def backed(it: Library, number: int) -> None:
    """A backend of storage comes, reports, and goes."""
    host = f"h-{name_of(number)}@lvm"
    it.fleet.pools.add_services([VolumeService(host=host)])
    it.fleet.pools.report(BackendReport(host=host, capabilities=pools(name_of(number)), at=NOW + number))
    it.fleet.pools.remove_service(host)


_PLAIN: Final = RequestSpec(flavor=Flavor(name="plain", vcpus=1, memory_mb=512))
CHANGES: Final[Mapping[str, Callable[[Library, int], None]]] = {
    each.__name__: each
    for each in (
        disabled,
        placed,
        moved,
        tried,
        allocated,
        aggregated,
        grouped,
        reported,
        addressed,
        classed,
        traited,
        hosted,
        stored,
        backed,
    )
}
