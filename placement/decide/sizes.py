"""Requests that differ from a compiled one in the size of their flavor alone: their signatures are made from it,
without compiling them.

A family is everything of a request but its flavor's size and name. It is kept only if the policy's rules say, by their
keys and forms, that they read no size: asked with a request of another size, each must answer the same.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

from ..filters.base import Filter
from ..fleet.fleet import Fleet
from ..policy.policy import Policy
from ..request.checks import check_spec
from ..request.placement_requirements import PlacementRequirements, placement_requirements
from ..types.errors import HostlerError
from ..types.request import Flavor, Image, Request, RequestSpec
from ..weighers.base import Weigher
from .signature import Signature

FAMILIES: Final = 4096
"""Families, and signatures made from them, kept at most; the oldest go first."""
READ_WITH_SIZE: Final = ("resources", "hw:cpu", "hw:numa", "hw:emulator", "hw:pmem", "hw_cpu", "hw_numa", "hw_emulator")
"""Extra specs and image properties that start so are checked or counted together with the flavor's size."""


_IN_KEY: Final = ("flavor", "image", "availability_zone", "is_bfv", "prepare")
_others: Final = operator.attrgetter(*(each.name for each in fields(RequestSpec) if each.name not in _IN_KEY))
"""All other fields of a spec: a request that sets one is in no family."""


class Size(NamedTuple):
    """What a guest of a flavor takes: amounts by resource class index, and the fleet's shape of it."""

    flavor: Flavor
    resources: dict[int, int]
    shape: int


class Sizes:
    """Families of compiled requests, and the signatures made from them."""

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        self.fleet, self.policy = fleet, policy
        self._families: dict[Hashable, Signature | None] = {}
        self._size_is_unread: dict[Hashable, bool] = {}
        self._made: dict[tuple[int, int], Signature] = {}
        self._flavors: dict[int, tuple[Flavor, Hashable]] = {}
        self._images: dict[int, tuple[Image, Hashable]] = {}
        self._sizes: dict[tuple[int, bool], Size] = {}

    def clear(self) -> None:
        """Forget everything."""
        for kept in (self._families, self._size_is_unread, self._made, self._flavors, self._images, self._sizes):
            kept.clear()

    def find(self, request: Request) -> Signature | None:
        """The signature of a request of a known family; None if it must be compiled. O(1)."""
        spec = request.spec
        key = self._key(spec)
        family = None if key is None else self._families.get(key)
        if family is None:
            return None
        size = self._size(spec)
        if size.shape == family.shape:
            return family
        known = self._made.get((id(family.owner), size.shape))
        if known is None:
            known = family.resized(request, size.resources, size.shape)
            if len(self._made) >= FAMILIES:
                del self._made[next(iter(self._made))]
            self._made[id(family.owner), size.shape] = known
        return known

    def add(self, request: Request, signature: Signature) -> None:
        """Make a compiled request the first of its family, if it can be."""
        key = self._key(request.spec)
        if key is None or key in self._families:
            return
        if len(self._families) >= FAMILIES:
            self.clear()
            self._key(request.spec)
        self._families[key] = signature if self._can_be_resized(request, signature) else None

    def _key(self, spec: RequestSpec) -> Hashable:
        """The family of a spec; None for one that is in none. Flavor and image are checked when first seen."""
        if any(_others(spec)):
            return None
        flavor, image, zone = self._flavors.get(id(spec.flavor)), spec.image, spec.availability_zone
        if flavor is None:
            flavor = self._flavor(spec)
        known = (None, ()) if image is None else self._images.get(id(image)) or self._image(spec, image)
        if flavor[1] is None or known[1] is None:
            return None
        if not (zone is None or type(zone) is str) or type(spec.is_bfv) is not bool:
            return None
        return flavor[1], known[1], zone, spec.is_bfv, spec.prepare, spec.is_bfv or spec.flavor.root_gb > 0

    def _flavor(self, spec: RequestSpec) -> tuple[Flavor, Hashable]:
        check_spec(spec)
        flavor = spec.flavor
        key: Hashable = None
        if not any(name.startswith(READ_WITH_SIZE) for name in flavor.extra_specs):
            others = flavor.ephemeral_gb > 0 or flavor.swap > 0
            key = (tuple(sorted(flavor.extra_specs.items())), flavor.vcpus > 0, flavor.memory_mb > 0, others)
        if len(self._flavors) >= FAMILIES:
            self._flavors.clear()
            self._sizes.clear()
        self._flavors[id(flavor)] = flavor, key
        return flavor, key

    def _image(self, spec: RequestSpec, image: Image) -> tuple[Image, Hashable]:
        check_spec(spec)
        key: Hashable = None
        plain = all(type(value) is str for value in image.properties.values())
        if plain and not any(name.startswith(READ_WITH_SIZE) for name in image.properties):
            key = (image.id, image.disk_format, tuple(sorted(image.properties.items())))
        if len(self._images) >= FAMILIES:
            self._images.clear()
        self._images[id(image)] = image, key
        return image, key

    def _size(self, spec: RequestSpec) -> Size:
        size = self._sizes.get((id(spec.flavor), spec.is_bfv))
        if size is None:
            flavor, fleet = spec.flavor, self.fleet
            resources = {fleet.resource_class(name, create=True): n for name, n in _amounts(flavor, spec.is_bfv)}
            disk_mb = flavor.local_disk_mb(is_bfv=spec.is_bfv)
            shape = fleet.shape(resources, flavor.vcpus, flavor.memory_mb, disk_mb)
            size = self._sizes[id(flavor), spec.is_bfv] = Size(flavor, resources, shape)
        return size

    def _can_be_resized(self, request: Request, signature: Signature) -> bool:
        """Whether nothing of the signature but amounts would differ for a flavor of another size."""
        flavor, bfv = request.flavor, request.spec.is_bfv
        if not signature.simple or signature.ranking.resized(signature.needs) is None:
            return False
        if list(signature.requirements.group.resources) != _amounts(flavor, bfv):
            return False
        if self._size(request.spec).shape != signature.shape:
            return False
        # Whether rules read sizes does not depend on the image, whose properties that go with sizes are excluded.
        key = self._flavors[id(flavor)][1]
        known = self._size_is_unread.get(key)
        if known is None:
            known = self._size_is_unread[key] = self._reads_no_size(request, signature)
        return known

    def _reads_no_size(self, request: Request, signature: Signature) -> bool:
        flavor = request.flavor
        other = replace(flavor, name=f"{flavor.name} and more", vcpus=flavor.vcpus + 1, memory_mb=flavor.memory_mb + 1)
        probe = request.with_changes(spec=replace(request.spec, flavor=other))
        try:
            asked = placement_requirements(self.fleet, self.policy, probe, candidates_given=False)
            if _without_amounts(asked) != _without_amounts(signature.requirements):
                return False
            rules: list[Filter | Weigher] = [*self.policy.filters, *self.policy.weighers]
            if any(rule.key(request) is request for rule in rules):
                return False
            return all(_forms(rule, request) == _forms(rule, probe) for rule in rules)
        except HostlerError:
            return False


def _amounts(flavor: Flavor, is_bfv: bool) -> list[tuple[str, int]]:
    """What a guest takes of each resource class where no extra spec says otherwise, sorted by class."""
    disk = flavor.ephemeral_gb + -(-flavor.swap // 1024) + (0 if is_bfv else flavor.root_gb)
    amounts = {"DISK_GB": disk, "MEMORY_MB": flavor.memory_mb, "VCPU": flavor.vcpus}
    return [(name, amount) for name, amount in amounts.items() if amount]


def _without_amounts(requirements: PlacementRequirements) -> PlacementRequirements:
    query = requirements.query
    groups = tuple(
        replace(group, resources=tuple((name, 0) for name, _ in group.resources)) if not group.suffix else group
        for group in query.groups
    )
    return replace(requirements, query=replace(query, groups=groups))


def _forms(rule: Filter | Weigher, request: Request) -> tuple[Any, ...]:
    """All that a rule says of a request by itself."""
    said: tuple[Any, ...] = (rule.applies(request), rule.key(request))
    if isinstance(rule, Filter):
        return (*said, rule.bounds(request), rule.selection(request), rule.fields(request))
    return (*said, rule.column(request), rule.formula(request), rule.fields(request))
