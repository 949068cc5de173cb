"""The shapes of requests that an engine has met, by number: what ``place_many`` gives to the kernel, and where
``place`` finds the signature of a spec that was never seen, but whose parts were.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_A_HOST
from ...ext.gather import SpecTable
from ...ext.ranking import Ranking
from ...ext.shapes import Shapes
from ..fleet.fleet import Fleet
from ..policy.policy import Policy
from ..request.checks import check_flavor_fields, check_spec
from ..request.prepare import check_flavor
from ..types.errors import HostlerError
from ..types.request import Flavor, Image, Request, RequestSpec
from ..types.slowly_freed import SlowlyFreed
from .compiled_filter import AllOf, ClassResults, FilterResults
from .nested_shapes import NestedShapes
from .signature import AGGREGATES, TRAITS, Signature
from .spec_parts import (
    FLAVOR_ALONE,
    READ_WITH_SIZE,
    Part,
    amounts,
    go_together,
    judges_by_name,
    part_of,
    put_together,
    reads_size,
    starts_with,
    what_is_read,
)

PARTS: Final = 16_384
"""Flavors, images and zones kept at most; beyond that a new table is made."""
KEPT_BYTES: Final = 256 << 20
"""Bytes of these, and of specs that are known as a whole, likewise."""
RANKINGS: Final = 4_096
"""Rankings kept at most, likewise; and signatures that ``find`` makes of them, of which the oldest go first."""
NESTED: Final = 1 << 30
"""Numbers of signatures with nested providers, or weighers of rows (``nested_batch``): this and greater ones."""
SHAPES: Final = 131_072
"""Shapes kept at most; beyond that they get new numbers."""
_IN_PARTS: Final = ("flavor", "image", "availability_zone", "is_bfv", "prepare")
OTHERS: Final = tuple(each.name for each in fields(RequestSpec) if each.name not in _IN_PARTS)
"""Fields of a spec that must be empty for its parts to say all."""
_PREPARE: Final = (None, False, True)


class _Kind(NamedTuple):
    """A flavor without its size: ``classes`` are the names of what it takes, in order."""

    part: Part
    classes: tuple[str, ...]


class _Size(NamedTuple):
    """What a guest takes: amounts by resource class index, and the fleet's shape of it."""

    resources: dict[int, int]
    guest: int


class ShapeTable:
    """Request shapes by number, made of the parts of specs or of signatures. Valid until ``dropped``."""

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        results: FilterResults,
        *,
        prepare: Callable[[Request], Request] | None = None,
        compile: Callable[[Request], Signature] | None = None,
        freed: SlowlyFreed | None = None,
    ) -> None:
        """``prepare`` completes and checks a request, ``compile`` compiles one that was prepared; without them nothing
        is known by its parts. ``freed`` gets what the table has kept once it is no longer used."""
        self.fleet, self.policy = fleet, policy
        self.dropped = False
        self._results, self._prepare, self._compile = results, prepare, compile
        self.shapes = Shapes(fleet._kernel)
        self.specs = SpecTable(self.shapes, RequestSpec, OTHERS, None if compile is None else _missing_in(self))
        self.stage_names: list[tuple[str, ...]] = []
        """By ranking."""
        self.resources: list[dict[int, int]] = []
        """By size: amounts by resource class index."""
        self.width = 1
        """Stages of the ranking that has the most, and one."""
        self.nested: list[Signature] = []
        """Signatures that are decided one by one, or by the kernel for them, by number from ``NESTED`` on."""
        self.nested_shapes = NestedShapes(fleet)
        self._nested: dict[int, int] = {}
        self._epochs: tuple[int, ...] = ()
        self._parts = self._part_bytes = self._spec_bytes = 0
        self._fixed: dict[int, int] = {}
        self._owners: list[Signature] = []
        self._plain: dict[int, Signature | None] = {}
        self._kinds: dict[Hashable, int] = {}
        self._kind: list[_Kind] = []
        self._images: list[Part] = []
        self._read_of_images: dict[Hashable, int] = {}
        self._zones: dict[tuple[int, str | None], int] = {}
        self._zone: list[Part] = []
        self._sizes: dict[Hashable, int] = {}
        self._size: list[_Size] = []
        self._templates: dict[Hashable, Signature] = {}
        self._rankings: dict[Hashable, int] = {}
        self._first: dict[tuple[int, Hashable], NDArray[np.uint8]] = {}
        self._made: dict[tuple[int, int], Ranking] = {}
        self._freed = freed

    def __del__(self) -> None:
        freed = getattr(self, "_freed", None)
        if freed is not None:
            specs = self.specs
            freed.add(list(self.resources), self._size, self._sizes, self._owners, self._made, specs.specs)
            freed.add(*specs.flavors, *specs.images, *specs.zones, *specs.families)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, without rows of rankings."""
        return self.shapes.nbytes

    @property
    def full(self) -> bool:
        """True if a new table is to be made."""
        many = self._parts > PARTS or len(self.specs.specs) > RANKINGS or len(self.stage_names) > RANKINGS
        return many or self._part_bytes + self._spec_bytes > KEPT_BYTES

    def refresh(self) -> None:
        """Forget zones if hosts have come or gone, and the numbers of shapes if there are too many. O(1)."""
        fleet = self.fleet
        epochs = (fleet._static_epoch, fleet._topology_epoch, len(fleet._classes), fleet.rows)
        if epochs != self._epochs:
            self._epochs = epochs
            for zones in self.specs.zones:
                zones.clear()
            self.specs.forget_objects()
        if len(self.shapes) > SHAPES:
            self.shapes.forget()
            self._fixed.clear()
            self.specs.specs.clear()
            self._spec_bytes = 0
            self.specs.forget_objects()

    # signatures

    def remember(self, spec: RequestSpec, number: int, project: str | None) -> None:
        """Know the shape of a spec as a whole from now on; that of one project's if ``project`` is given. O(1)."""
        known = self.specs.specs
        if spec not in known:
            self._spec_bytes += spec.nbytes
        if project is None:
            known[spec] = number
        else:
            known.setdefault(spec, {})[project] = number

    def number(self, signature: Signature) -> int:
        """The shape of a compiled signature's owner, a new one if it has none."""
        owner = signature.owner
        number = self._fixed.get(id(owner))
        if number is None:
            ranking = self._add_ranking(owner.ranking, owner)
            size = self.shapes.add_size(owner.shape)
            self.resources.append(owner.resources)
            self._size.append(_Size(owner.resources, owner.shape))
            number = self._fixed[id(owner)] = self.shapes.number(ranking, size)
            self._owners.append(owner)
        return number

    def nested_number(self, signature: Signature) -> int:
        """The number of a compiled signature that is decided by itself, a new one if it has none."""
        number = self._nested.get(id(signature))
        if number is None:
            number = self._nested[id(signature)] = NESTED + len(self.nested)
            self.nested.append(signature)
        return number

    def find(self, request: Request) -> Signature | None:
        """The signature of a prepared request whose parts are known, or can be; None if it must be compiled."""
        spec = request.spec
        if self._compile is None or self.specs.find(spec) < 0:
            return None
        found = self._parts_of(spec)
        if found is None:
            return None
        way, kind, parts, size = found
        plain, template = self._plain[way], self._templates.get(_layout(way, kind, parts))
        if plain is None or template is None or not go_together(parts):
            return None
        numbers = {stage.name: stage.number for stage in template.stages}
        judges = sorted((numbers[name], each) for name, each in put_together(parts, plain).items())
        stage = self._class_stage(template, plain, parts)
        key = (self._rankings[id(template), stage.tobytes()], size)
        resources, guest = self._size[size]
        needs = [
            (index, n, number, units)
            for (index, _, number, units), n in zip(template.needs, resources.values(), strict=True)
        ]
        ranking = self._made.get(key)
        if ranking is None:
            ranking = self.shapes.rankings[key[0]].resized(needs)
            assert ranking is not None
            if len(self._made) >= RANKINGS:
                del self._made[next(iter(self._made))]
            self._made[key] = ranking
        together = [(number, AllOf(each)) for number, each in judges]
        return template.like(request, resources, guest, needs, together, stage, ranking)

    def _add_ranking(self, ranking: Ranking, template: Signature) -> int:
        self.stage_names.append(tuple(template.stage_names))
        self.width = max(self.width, len(template.stages))
        return self.shapes.add_ranking(ranking)

    # parts

    def _missing(self, spec: RequestSpec) -> int:
        """The shape of a spec of which some part, or the parts together, were not met before; -1 if it has none by its
        parts."""
        try:
            if type(spec.is_bfv) is not bool or not (spec.prepare is None or type(spec.prepare) is bool):
                return -1
            way = 3 * spec.is_bfv + _PREPARE.index(spec.prepare)
            flavor, image, zone = spec.flavor, spec.image, spec.availability_zone
            if flavor not in self.specs.flavors[way]:
                self._put(self.specs.flavors[way], flavor, self._add_flavor(way, flavor), flavor.nbytes)
            if image not in self.specs.images[way]:
                self._put(self.specs.images[way], image, self._add_image(way, image), image.nbytes if image else 0)
            if zone not in self.specs.zones[way]:
                self._put(self.specs.zones[way], zone, self._add_zone(way, zone), len(zone or ""))
            found = self._parts_of(spec)
            if found is None or self.dropped:
                return -1
            number = self._add_family(spec, *found)
        except (HostlerError, TypeError):
            # What cannot be hashed is no part of a valid request.
            return -1
        return -1 if number < 0 or self.dropped else self.shapes.number(number, found[3])

    def _put(self, table: dict[Hashable, int], key: Hashable, number: int, nbytes: int) -> None:
        table[key] = number
        self._parts += 1
        self._part_bytes += nbytes

    def _parts_of(self, spec: RequestSpec) -> tuple[int, _Kind, tuple[Part, Part, Part], int] | None:
        """(way, flavor without its size, parts, size) of a spec; None if not all are known by themselves."""
        way = 3 * spec.is_bfv + _PREPARE.index(spec.prepare)
        flavor = self.specs.flavors[way].get(spec.flavor, -1)
        image = self.specs.images[way].get(spec.image, -1)
        zone = self.specs.zones[way].get(spec.availability_zone, -1)
        if min(flavor, image, zone) < 0:
            return None
        kind = self._kind[flavor >> 32]
        return way, kind, (kind.part, self._images[image], self._zone[zone]), flavor & 0xFFFFFFFF

    def _add_flavor(self, way: int, flavor: Flavor) -> int:
        check_flavor_fields(flavor)
        taken = amounts(flavor, way >= 3)
        classes = tuple(name for name, _ in taken)
        key = (way, classes, tuple(sorted(flavor.extra_specs.items())))
        number = self._kinds.get(key)
        if number is None:
            part = None
            if all(name.startswith(FLAVOR_ALONE) for name in flavor.extra_specs):
                part = self._part(way, flavor, None, None)
            number = -1
            if part is not None:
                number = len(self._kind)
                self._kind.append(_Kind(part, classes))
            self._kinds[key] = number
        elif number >= 0 and (self.policy.own.prepare if way % 3 == 0 else way % 3 == 2):
            check_flavor(flavor)
        return -1 if number < 0 else number << 32 | self._add_size(flavor, way >= 3, taken)

    def _add_size(self, flavor: Flavor, is_bfv: bool, taken: tuple[tuple[str, int], ...]) -> int:
        fleet = self.fleet
        resources = {fleet.resource_class(name, create=True): amount for name, amount in taken}
        disk_mb = flavor.local_disk_mb(is_bfv=is_bfv)
        guest = fleet._shape(resources, flavor.vcpus, flavor.memory_mb, disk_mb)
        size = self._sizes.get((taken, guest))
        if size is None:
            size = self._sizes[taken, guest] = self.shapes.add_size(guest, [amount for _, amount in taken])
            self.resources.append(resources)
            self._size.append(_Size(resources, guest))
        return size

    def _add_image(self, way: int, image: Image | None) -> int:
        """Number of the image's part; images of which the rules read the same have one."""
        if starts_with(() if image is None else image.properties, READ_WITH_SIZE):
            return -1
        prepared = self._prepared(way, None, image, None)
        if prepared is None:
            return -1
        read: Hashable = None
        try:
            read = (way, *what_is_read(self.fleet, self.policy, prepared))
            known = self._read_of_images.get(read)
        except TypeError:
            # A rule reads something that has no hash.
            known, read = None, None
        if known is not None:
            return known
        part = self._part(way, None, image, None)
        number = -1
        if part is not None:
            number = len(self._images)
            self._images.append(part)
        if read is not None and not self.dropped:
            self._read_of_images[read] = number
        return number

    def _add_zone(self, way: int, zone: str | None) -> int:
        prepared = self._prepared(way, None, None, zone)
        if prepared is None:
            return -1
        number = self._zones.get((way, zone))
        if number is None:
            part = self._part(way, None, None, zone)
            number = -1
            if part is not None:
                number = len(self._zone)
                self._zone.append(part)
            self._zones[way, zone] = number
        return number

    def _prepared(self, way: int, flavor: Flavor | None, image: Image | None, zone: str | None) -> Request | None:
        """The request of these parts, a plain one for each that is missing, prepared; None if more than the spelling of
        image properties changes."""
        assert self._prepare is not None
        flavor = Flavor(name="plain", vcpus=1, memory_mb=1) if flavor is None else flavor
        spec = RequestSpec(
            flavor=flavor, image=image, availability_zone=zone, is_bfv=way >= 3, prepare=_PREPARE[way % 3]
        )
        check_spec(spec)
        prepared = self._prepare(Request(spec=spec, instance_uuids=("",)))
        made = prepared.spec
        if made not in (spec, replace(spec, image=made.image, prepare=False)):
            return None
        return None if prepared.server_group is not None else prepared

    def _part(self, way: int, flavor: Flavor | None, image: Image | None, zone: str | None) -> Part | None:
        if way not in self._plain:
            self._plain[way] = self._signature(way, None, None, None)
        plain = self._plain[way]
        signature = None if plain is None else self._signature(way, flavor, image, zone)
        if plain is None or signature is None:
            return None
        if flavor is not None and (
            signature.requirements.group.resources != amounts(flavor, way >= 3)
            or reads_size(self.policy, signature.request)
        ):
            return None
        return part_of(self.policy, signature, plain)

    def _signature(self, way: int, flavor: Flavor | None, image: Image | None, zone: str | None) -> Signature | None:
        """The signature of the request of these parts, if the kernel can decide requests like it by the index."""
        prepared = self._prepared(way, flavor, image, zone)
        if prepared is None:
            return None
        assert self._compile is not None
        signature = self._compile(prepared)
        if self.dropped or not signature.simple or signature.ranking.resized(signature.needs) is None:
            return None
        return signature

    # families

    def _add_family(self, spec: RequestSpec, way: int, kind: _Kind, parts: tuple[Part, Part, Part], size: int) -> int:
        """Number of the ranking of all specs of these parts, whatever their size; -1 if they have none."""
        flavor, image = self.specs.flavors[way][spec.flavor], self.specs.images[way][spec.image]
        key = (flavor >> 32) << 40 | image << 20 | self.specs.zones[way][spec.availability_zone]
        number = self.specs.families[way].get(key)
        if number is not None:
            return number
        number = -1
        template = self._template_of(way, kind, parts, spec) if go_together(parts) else None
        if template is not None:
            plain = self._plain[way]
            assert plain is not None
            stage = self._class_stage(template, plain, parts)
            known = (id(template), stage.tobytes())
            found = self._rankings.get(known)
            if found is None:
                ranking = template.ranking.judging(stage)
                assert ranking is not None
                found = self._rankings[known] = self._add_ranking(ranking, template)
            number = found
        self.specs.families[way][key] = number
        return number

    def _template_of(
        self, way: int, kind: _Kind, parts: tuple[Part, Part, Part], spec: RequestSpec
    ) -> Signature | None:
        """A signature that differs from that of ``spec``, of these parts, in amounts and results by class alone."""
        layout = _layout(way, kind, parts)
        template = self._templates.get(layout)
        if template is None:
            template = self._template(spec)
            if template is not None:
                self._templates[layout] = template
        return template

    def _class_stage(self, template: Signature, plain: Signature, parts: tuple[Part, Part, Part]) -> NDArray[np.uint8]:
        """By host class, the stage that refuses it, 0 for none."""
        key = tuple(name for part in parts for name in part.rules)
        first = self._first_of_plain(template, plain, key)
        for part in parts:
            first = np.minimum(first, self._first_of_part(template, part))
        first += np.uint8(1)  # what no stage refuses, 255, becomes 0
        first[self._no_hosts] = NOT_A_HOST
        return first

    def _first_of_plain(self, template: Signature, plain: Signature, without: tuple[str, ...]) -> NDArray[np.uint8]:
        """One less than the first stage of a plain request that refuses each class, 255 for none; but for the stages of
        Placement and those called ``without``."""
        known = self._first.get((id(template), without))
        if known is None:
            left_out = {*without, TRAITS, AGGREGATES}
            judges = {name: (judge,) for name, judge in judges_by_name(plain).items() if name not in left_out}
            known = self._first[id(template), without] = self._first_refusals(template, judges)
        return known

    def _first_of_part(self, template: Signature, part: Part) -> NDArray[np.uint8]:
        """The same of the stages that a part adds."""
        known = self._first.get((id(template), id(part)))
        if known is None:
            judges = {
                name: (judge,) for name, judge in (*part.stages.items(), *part.rules.items()) if judge is not None
            }
            known = self._first[id(template), id(part)] = self._first_refusals(template, judges)
        return known

    def _first_refusals(self, template: Signature, judges: Mapping[str, tuple[ClassResults, ...]]) -> NDArray[np.uint8]:
        numbers = {stage.name: stage.number for stage in template.stages}
        first = np.full(len(self.fleet._classes), 255, np.uint8)
        for number, results in sorted(((numbers[name], each) for name, each in judges.items()), reverse=True):
            for result in results:
                first[~result.refresh()] = number - 1
        return first

    @functools.cached_property
    def _no_hosts(self) -> NDArray[np.bool_]:
        """Which classes are of rows that are no hosts."""
        return ~self._results.hosts.refresh()

    def _template(self, spec: RequestSpec) -> Signature | None:
        assert self._prepare is not None
        assert self._compile is not None
        signature = self._compile(self._prepare(Request(spec=spec, instance_uuids=("",))))
        usable = not self.dropped and signature.simple and signature.ranking.resized(signature.needs) is not None
        return signature if usable else None


def _missing_in(table: ShapeTable) -> Callable[[RequestSpec], int]:
    """``ShapeTable._missing`` without a reference to the table, whose shapes would otherwise stay, once it is dropped,
    until a full garbage collection."""
    known = weakref.ref(table)

    def missing(spec: RequestSpec) -> int:
        present = known()
        return -1 if present is None else present._missing(spec)

    return missing


def _layout(way: int, kind: _Kind, parts: tuple[Part, Part, Part]) -> Hashable:
    """What decides of the stages of a request of these parts, and of their numbers."""
    return way, kind.classes, *(any(name in part.stages for part in parts) for name in (TRAITS, AGGREGATES))
