"""Whether a host has the requested PCI devices, on any NUMA node. Source: Nova 33 PciPassthroughFilter."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

from ..devices import pci
from ..types.host import HostState
from ..types.request import Request
from .base import Filter


class PciPassthroughFilter(Filter):
    """Passes a host whose pools of free devices serve all PCI requests, one after the other."""

    name: ClassVar[str] = "PciPassthroughFilter"

    def applies(self, request: Request) -> bool:
        return bool(request.spec.pci_requests)

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"pci_pools"})

    def key(self, request: Request) -> Hashable:
        return pci.key(request.spec.pci_requests)

    def host_passes(self, host: HostState, request: Request) -> bool:
        return self.candidate_passes(host, request, {})

    def candidate_passes(self, host: HostState, request: Request, mappings: Mapping[str, Sequence[str]]) -> bool:
        """The rule for one allocation candidate of the host, whose providers are ``mappings`` by request group."""
        return pci.supports(host.pci_pools, request.spec.pci_requests, mappings=mappings)

    def reason(self, host: HostState, request: Request) -> str:
        return pci.explain(host.pci_pools, request.spec.pci_requests)
