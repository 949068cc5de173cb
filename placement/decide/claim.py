"""What a placed guest takes: its allocations, and the NUMA cells and PCI devices that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..candidates.for_engine import Amounts
from ..fleet.fleet import Extras, Fleet
from ..fleet.host_view import HostView
from ..numa.fit import FittedNuma
from ..types.decision import Allocated, Mappings, ScorePart
from ..types.errors import InvalidValue, UnknownName
from ..types.host import PciPool
from ..types.request import Request
from ..types.validation import shown, whole_number
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
    mappings: Mappings = field(default_factory=dict)
    """Providers by request group; empty where all is of the unsuffixed group."""
    supplied: Allocated | None = None
    """What a candidate from outside says, which may name providers that the fleet does not have."""

    def by_uuid(self, fleet: Fleet) -> dict[str, dict[str, int]]:
        """{provider uuid: {resource class: amount}}."""
        if self.supplied is not None:
            return {uuid: dict(resources) for uuid, resources in self.supplied.items()}
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
    mappings: Mappings = field(default_factory=dict)


def allocations_of(
    fleet: Fleet, signature: Signature, row: int, *, given: bool, request: Request, candidate: object = None
) -> Allocations | None:
    """What a guest would take on the host at ``row``; None if it does not fit. ``given``: candidates were supplied
    from outside, so capacity has been judged there; ``candidate`` is the one to take."""
    if given and isinstance(candidate, Mapping) and isinstance(candidate.get("allocations"), Mapping):
        return _supplied(fleet, signature, row, candidate)
    if given or not signature.complex:
        if not given and not fleet._fits_row(row, signature.resources):
            return None
        return Allocations(row, {row: dict(signature.resources)}, signature.shape)
    found = next(_suitable(fleet, signature, row, request), None)
    if found is None:
        return None
    amounts, mappings = found
    choices = (weigher.choose(fleet, row, request, amounts) for weigher in signature.weighers)
    chosen = next((choice for choice in choices if choice is not None), None)
    if chosen is not None:
        amounts, mappings = chosen, {}
    flavor = signature.request.flavor
    disk_mb = flavor.local_disk_mb(is_bfv=request.spec.is_bfv)
    shape = fleet._shape(amounts.get(row, {}), flavor.vcpus, flavor.memory_mb, disk_mb)
    return Allocations(row, amounts, shape, mappings)


def _suitable(
    fleet: Fleet, signature: Signature, row: int, request: Request
) -> Iterator[tuple[Amounts, dict[str, tuple[str, ...]]]]:
    """Candidates in the tree of a host that the filters pass which judge single candidates."""
    for amounts, mapped in signature.trees.mapped(row):
        mappings = {suffix: tuple(map(fleet.uuid, rows)) for suffix, rows in mapped.items()}
        judges = signature.candidate_judges
        if not judges or all(judge.candidate_passes(HostView(fleet, row), request, mappings) for judge in judges):
            yield amounts, mappings


def _supplied(fleet: Fleet, signature: Signature, row: int, candidate: Mapping[str, Any]) -> Allocations:
    """What a candidate from outside says, charged where the fleet has its providers."""
    said: dict[str, dict[str, int]] = {}
    amounts: Amounts = {row: {}}
    for uuid, part in candidate["allocations"].items():
        resources = part.get("resources", part) if isinstance(part, Mapping) else None
        if not isinstance(resources, Mapping):
            raise InvalidValue(f"an allocation must name resources, got {shown(part)}", field="candidates")
        said[uuid] = {name: whole_number(amount, f"candidates.{name}", least=1) for name, amount in resources.items()}
        with suppress(UnknownName):
            known = amounts.setdefault(fleet.row_of_uuid(uuid, field="candidates"), {})
            for name, amount in said[uuid].items():
                known[fleet.resource_class(name, create=True)] = amount
    flavor = signature.request.flavor
    disk_mb = (flavor.root_gb + flavor.ephemeral_gb) * 1024  # as for any candidate from outside
    shape = fleet._shape(amounts[row], flavor.vcpus, flavor.memory_mb, disk_mb)
    return Allocations(row, amounts, shape, mappings_of(candidate), said)


def offered(fleet: Fleet, signature: Signature, row: int, candidate: object) -> Allocations | None:
    """What a candidate says that was made for this fleet before; None as for ``room_for``. O(allocations)."""
    amounts = room_for(fleet, row, candidate)
    if amounts is None:
        return None
    flavor = signature.request.flavor
    disk_mb = flavor.local_disk_mb(is_bfv=signature.request.spec.is_bfv)
    shape = fleet._shape(amounts[row], flavor.vcpus, flavor.memory_mb, disk_mb)
    return Allocations(row, amounts, shape, mappings_of(candidate))


def room_for(fleet: Fleet, row: int, candidate: object) -> Amounts | None:
    """What a candidate takes of each provider; None if there is no room for it now, or it names a provider or resource
    class that there is none of. InvalidValue for one that is malformed. O(allocations)."""
    given = candidate.get("allocations") if isinstance(candidate, Mapping) else None
    if not isinstance(given, Mapping) or not given:
        raise InvalidValue(f"a candidate must have allocations, got {shown(candidate)}", field="candidates")
    amounts: Amounts = {row: {}}
    try:
        for uuid, part in given.items():
            resources = part.get("resources") if isinstance(part, Mapping) else None
            if not isinstance(resources, Mapping) or not resources:
                raise InvalidValue(f"an allocation must name resources, got {shown(part)}", field="candidates")
            known = amounts.setdefault(fleet.row_of_uuid(uuid, field="candidates"), {})
            for name, amount in resources.items():
                index = fleet.resource_class(name)
                known[index] = known.get(index, 0) + whole_number(amount, f"candidates.{name}", least=1)
    except UnknownName:
        return None
    return amounts if all(fleet._fits_row(each, resources) for each, resources in amounts.items()) else None


def mappings_of(candidate: object) -> dict[str, tuple[str, ...]]:
    """The providers by request group that a candidate from outside names; empty if it names none."""
    given = candidate.get("mappings") if isinstance(candidate, Mapping) else None
    return {suffix: tuple(uuids) for suffix, uuids in given.items()} if isinstance(given, Mapping) else {}


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
        mappings = allocations.mappings if signature.candidate_judges else None
        numa, pci = fit_claim(fleet, spec, row, signature.policy.options, mappings)
        if numa is not None and not numa.nova_charges and signature.policy.own.nova_bugs:
            numa, pci = None, ()
    elsewhere = allocations.elsewhere
    return Extras(elsewhere, numa, pci) if elsewhere or numa is not None or pci else None
