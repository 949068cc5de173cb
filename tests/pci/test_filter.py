"""PciPassthroughFilter: devices on any NUMA node."""

from __future__ import annotations

from hostler.placement.filters.pci import PciPassthroughFilter
from hostler.placement.types.host import Host, PciPool
from hostler.placement.types.options import Options
from hostler.placement.types.request import Flavor, PciRequest, Request, RequestSpec

from .values import pool, wish

JUDGE = PciPassthroughFilter(Options())


def host(*pools: PciPool) -> Host:
    return Host(host="h", vcpus_total=1, total_usable_ram_mb=1, pci_pools=pools)


def request(*wishes: PciRequest) -> Request:
    return Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1), pci_requests=wishes))


def test_a_guest_without_devices_passes_everywhere() -> None:
    assert not JUDGE.applies(request())
    assert JUDGE.host_passes(host(), request())


def test_the_host_must_have_the_devices_wherever_they_are() -> None:
    asked = request(wish(2, {"vendor_id": "8086"}, policy="required"))
    assert JUDGE.applies(asked)
    assert JUDGE.host_passes(host(pool(1, 0, vendor_id="8086"), pool(1, 1, vendor_id="8086")), asked)
    assert not JUDGE.host_passes(host(pool(1, 0, vendor_id="8086")), asked)
    assert JUDGE.reason(host(), asked) == "needs 2 PCI devices vendor_id 8086, but only 0 match its attributes"


def test_only_pools_and_wishes_count() -> None:
    asked = request(wish(1, {"vendor_id": "8086"}))
    assert JUDGE.fields(asked) == {"pci_pools"}
    assert JUDGE.key(asked) == JUDGE.key(request(wish(1, {"vendor_id": "8086"})))
