"""What a placed guest takes: its allocations, and the NUMA cells and PCI devices that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..candidates.for_engine import Amounts
from ..fleet.fleet import Extras, Fleet
from ..numa.fit import FittedNuma
from ..types.decision import ScorePart
from ..types.host import PciPool
from ..types.request import Request
from .numa_claim import fit_claim

if TYPE_CHECKING:
    from ..policy.policy import Policy
    from .signature import Signature


@dataclass(frozen=True, slots=True)
class Allocations:
    """``amounts`` by provider row, and the fleet's ``shape`` for the part on the host itself."""

    row: int
    amounts: Amounts
    shape: int

    def by_uuid(self, fleet: Fleet) -> dict[str, dict[str, int]]:
        """{provider uuid: {resource class: amount}}."""
        names = fleet.resource_classes
        return {
            fleet.uuid(row): {names[resource]: amount for resource, amount in amounts.items()}
            for row, amounts in self.amounts.items()
        }

    @property
    def elsewhere(self) -> tuple[tuple[int, int, int], ...]:
        """(row, resource class index, amount) of what other providers than the host give."""
        return tuple(
            (row, resource, amount)
            for row, amounts in self.amounts.items()
            if row != self.row
            for resource, amount in amounts.items()
        )


@dataclass(frozen=True, slots=True)
class Claimed:
    """An instance that holds its allocations: consumer is the fleet's dense id."""

    uuid: str
    row: int
    consumer: int
    weight: float
    allocations: Mapping[str, Mapping[str, int]]
    parts: tuple[ScorePart, ...]


def allocations_of(
    fleet: Fleet, signature: Signature, row: int, *, given: bool, request: Request
) -> Allocations | None:
    """What a guest would take on the host at ``row``; None if it does not fit. ``given``: candidates were supplied
    from outside, so capacity has been judged there."""
    if given or not signature.complex:
        if not given and not fleet._fits_row(row, signature.resources):
            return None
        return Allocations(row, {row: dict(signature.resources)}, signature.shape)
    amounts = signature.trees.first(row)
    if amounts is None:
        return None
    choices = (weigher.choose(fleet, row, request, amounts) for weigher in signature.weighers)
    amounts = next((choice for choice in choices if choice is not None), amounts)
    flavor = signature.request.flavor
    disk_mb = flavor.local_disk_mb(is_bfv=request.spec.is_bfv)
    shape = fleet.shape(amounts.get(row, {}), flavor.vcpus, flavor.memory_mb, disk_mb)
    return Allocations(row, amounts, shape)


def forgotten(fleet: Fleet, policy: Policy, request: Request, row: int) -> bool:
    """True if Nova 33 fails to charge the guest's NUMA cells, devices and io operation, and the policy does as Nova
    does."""
    if not policy.own.nova_bugs or request.spec.numa_topology is None:
        return False
    numa, _ = fit_claim(fleet, request.spec, row, policy.options)
    return numa is not None and not numa.nova_charges


def extras_for(
    fleet: Fleet, signature: Signature, request: Request, row: int, allocations: Allocations
) -> Extras | None:
    """What the claim takes besides the shape, or None. A NUMA or PCI request that no filter checked and that does not
    fit takes nothing (Nova 33 logs it and continues)."""
    numa: FittedNuma | None = None
    pci: tuple[PciPool, ...] = ()
    spec = request.spec
    if spec.numa_topology is not None or spec.pci_requests:
        numa, pci = fit_claim(fleet, spec, row, signature.policy.options)
        if numa is not None and not numa.nova_charges and signature.policy.own.nova_bugs:
            numa, pci = None, ()
    elsewhere = allocations.elsewhere
    return Extras(elsewhere, numa, pci) if elsewhere or numa is not None or pci else None
