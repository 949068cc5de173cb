"""Many requests for GPUs placed by one kernel call; the answers are those of ``Engine.place``, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ...ext import devices
from ...ext.constants import BUILDING
from ...ext.fleet_state import find_uuids
from ...ext.tables import format_uuid, make_many, parse_uuid
from ..fleet.columns import COLUMN
from ..fleet.consumers import Detail, Extras
from ..fleet.fleet import Fleet
from ..gpu.providers import GPU_MILLI
from ..request.checks import check_request, check_spec
from ..request.host_selection import names_hosts
from ..request.placement_query import RequestGroup
from ..request.placement_requirements import PlacementRequirements, placement_requirements
from ..types.errors import DuplicateName, InvalidValue
from ..types.request import Request
from ..types.validation import shown, uuid_words
from ..weighers.gpu import GpuWeigher
from .signature import CANDIDATES, GROUP_FILTERS, Signature

if TYPE_CHECKING:
    from .engine import Engine


_CHANGED_BY_CLAIMS: Final = frozenset(
    COLUMN[name] for name in ("free_ram_mb", "free_vcpus", "free_disk_mb", "num_io_ops", "num_instances", "vcpus_used")
)


@dataclass(frozen=True, slots=True, eq=False)
class GpuDecisions:
    """What became of each request, in order: the host's row (-1: refused), its GPUs as bits in row order, and the
    fleet's fragmentation after it, in thousandths of GPUs (0 where the policy names no typical requests)."""

    rows: NDArray[np.int32]
    gpus: NDArray[np.uint64]
    fragmentation: NDArray[np.float64]

    @property
    def placed(self) -> int:
        """How many got a host."""
        return int(np.count_nonzero(self.rows >= 0))


def place_gpus(engine: Engine, requests: Iterable[Request]) -> GpuDecisions:
    """Place each request, one after the other, each seeing the claims before it; a refusal does not stop the rest.

    Only for policies with one weigher that counts, of the GPU family, and requests whose filters judge static fields:
    InvalidValue otherwise, and nothing is placed. O(requests * hosts) comparisons, and O(changes) scores.
    """
    weigher, fleet = _weigher(engine), engine.fleet
    now = fleet.now
    try:
        plan = _Plan(engine, weigher, list(requests))
        chosen, bits, lost = plan.run()
        rows = np.append(plan.rows, np.int32(-1))[chosen]
        with fleet._history.undoing():
            plan.claim(rows, bits)
    except BaseException:
        fleet.advance(now, engine.policy.options.default.service_down_time)
        raise
    engine.sequence += len(plan.requests)
    return GpuDecisions(rows, bits, lost)


def _weigher(engine: Engine) -> GpuWeigher:
    counting = [weigher for weigher in engine.policy.weighers if weigher.multiplier() != 0.0]
    if len(counting) == 1 and isinstance(counting[0], GpuWeigher) and counting[0].multiplier() > 0:
        return counting[0]
    raise InvalidValue(
        "a batch for GPUs needs a policy with one GPU weigher, and no other",
        field="filter_scheduler.weight_classes",
        hint="use Engine.place for other policies",
    )


class _Plan:
    """The fleet and the requests as the kernel's arrays."""

    def __init__(self, engine: Engine, weigher: GpuWeigher, requests: list[Request]) -> None:
        self.engine, self.fleet, self.weigher, self.requests = engine, engine.fleet, weigher, requests
        self.uuids = make_many(engine._context.uuid_seed, engine.sequence, len(requests))
        """Of each request's guest; where none is given, the one that it would get in its turn."""
        self._check()
        self.rows = np.flatnonzero(self.fleet.is_host).astype(np.int32)
        self.signatures: list[Signature] = []
        self.asked_of = self._shapes()
        self.below = weigher.table(self.fleet).below(self.rows)

    def _check(self) -> None:
        """Check every request, once each, and take the time and uuid that it gives."""
        known: set[int] = set()
        given: dict[tuple[int, int], str] = {}
        self.engine.advance(None)
        for position, request in enumerate(self.requests):
            if id(request) not in known:
                check_request(request)
                if len(request.instance_uuids) > 1 or request.alternates or request.server_group is not None:
                    raise _not_here("requests for one instance, without alternates or server group")
                if names_hosts(request.spec):
                    raise _not_here("requests that name no hosts")
                known.add(id(request))
            if request.now is not None:
                self.engine.advance(request.now)
            for uuid in request.instance_uuids:
                words = uuid_words(uuid, "instance_uuids")
                if words in given:
                    raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")
                given[words] = uuid
                self.uuids[position] = words
        for position in np.flatnonzero(find_uuids(self.fleet._kernel.consumers, self.uuids) >= 0).tolist():
            if self.requests[position].instance_uuids:
                uuid = format_uuid(*self.uuids[position].tolist())
                raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")
            self.uuids[position] = parse_uuid(self.engine._context.new_uuid(after=position))

    def _shapes(self) -> NDArray[np.int32]:
        known: dict[int, int] = {}
        asked = np.empty(len(self.requests), np.int32)
        for position, request in enumerate(self.requests):
            number = known.get(id(request.spec))
            if number is None:
                number = known[id(request.spec)] = len(self.signatures)
                self.signatures.append(self._signature(request))
            asked[position] = number
        return asked

    def _signature(self, request: Request) -> Signature:
        """The request compiled, without a ranking."""
        check_spec(request.spec)
        engine = self.engine
        requirements = placement_requirements(self.fleet, engine.policy, request, candidates_given=False)
        signature = Signature(self.fleet, engine.policy, request, requirements, engine._context.compiled.filter_results)
        others = [stage for stage, _ in signature.row_judges if stage.name != CANDIDATES]
        selecting = [stage for stage in signature.selections if stage.name not in GROUP_FILTERS]
        if others or selecting or _moving(signature) or not _plain(self.fleet, requirements, signature):
            raise _not_here(f"flavor {shown(request.flavor.name)} asking for CPUs, memory, disk and GPUs alone")
        return signature

    def _allowed(self) -> NDArray[np.uint8]:
        class_of = self.fleet._store.row["class_of"][self.rows]
        allowed = np.empty((len(self.signatures), len(self.rows)), np.uint8)
        for number, signature in enumerate(self.signatures):
            passes = np.ones(len(self.fleet._classes), bool)
            for verdict in signature.class_results().values():
                passes &= verdict
            requirements = signature.requirements
            for judge in (requirements.cell_allows, requirements.traits_allow, requirements.aggregates_allow):
                passes &= [value.is_host and judge(self.fleet, value) for value in self.fleet._classes.values]
            allowed[number] = passes[class_of]
            for column, low, high, _ in signature.bounds:
                values = self.fleet._store.host[column, self.rows]
                allowed[number] &= (values >= low) & (values <= high)
        return allowed

    def run(self) -> tuple[NDArray[np.int32], NDArray[np.uint64], NDArray[np.float64]]:
        """What the kernel answers."""
        weigher, fleet, rows = self.weigher, self.fleet, self.rows
        gpu = self.engine.policy.options.gpu
        idle = weigher.table(fleet).idle(rows)
        shapes = [weigher.shape(signature.request) for signature in self.signatures]
        classes = sorted({index for signature in self.signatures for index in signature.resources})
        needs = [[signature.resources.get(index, 0) for index in classes] for signature in self.signatures]
        room = fleet._store.inventory["avail"][classes][:, rows]
        return devices.place(
            weigher.policy,
            float(gpu.largest_cpu_milli),
            float(gpu.largest_gpu_milli),
            weigher.mix.shapes,
            weigher.mix.share,
            weigher.mix.allowed(fleet, rows),
            rows,
            weigher.idle_cpu(fleet, rows),
            np.ascontiguousarray(room, np.int64),
            np.ascontiguousarray(idle),
            weigher.tags(fleet, rows, idle.shape[1]).copy(),
            self._allowed(),
            np.array(shapes, np.int64).reshape(len(shapes), 3),
            np.array(needs, np.int64).reshape(len(needs), len(classes)),
            self.asked_of,
            weigher.draw_keys(self.uuids),
        )

    def claim(self, rows: NDArray[np.int32], bits: NDArray[np.uint64]) -> None:
        """Charge the fleet with what the kernel chose."""
        fleet, milli = self.fleet, [self.weigher.shape(signature.request)[1] for signature in self.signatures]
        resource = fleet.resource_class(GPU_MILLI) if bits.any() else -1
        asked, uuids = self.asked_of.tolist(), [(high, low) for high, low in self.uuids.tolist()]
        shapes = [signature.shape for signature in self.signatures]
        owners = [
            (fleet._projects.id(request.project_id), fleet._users.id(request.user_id)) for request in self.requests
        ]
        images = self.engine._context.reads_instance_images
        below = dict(zip(self.rows.tolist(), self.below.tolist(), strict=True))
        details = []
        for at in np.flatnonzero(rows >= 0).tolist():
            number, row, mask, extras = asked[at], int(rows[at]), int(bits[at]), None
            if mask:
                gpus = [gpu for bit, gpu in enumerate(below[row]) if mask >> bit & 1]
                extras = Extras(tuple([(gpu, resource, milli[number]) for gpu in gpus]))
            properties = self.requests[at].image_properties if images else None
            details.append(Detail(uuids[at], row, shapes[number], *owners[at], -1, BUILDING, extras, properties))
        fleet._consumers.claim_many(details)


def _plain(fleet: Fleet, requirements: PlacementRequirements, signature: Signature) -> bool:
    """True if the host itself gives everything but the GPUs, and of these only the amount matters."""
    spec, query = signature.request.spec, requirements.query
    nested = any(index in fleet._nested_classes for index in signature.resources)
    granular = [group for group in query.groups if group.suffix]
    odd = spec.numa_topology is not None or bool(spec.pci_requests) or query.fallback is not None or nested
    return not (odd or requirements.group.in_tree or any(_narrows(group) for group in granular))


def _moving(signature: Signature) -> bool:
    """True if a filter bounds a figure that claims change."""
    return any(column in _CHANGED_BY_CLAIMS for column, *_ in signature.bounds)


def _narrows(group: RequestGroup) -> bool:
    wishes = (group.required, group.forbidden, group.any_of, group.member_of, group.forbidden_aggregates, group.in_tree)
    return any(wishes) or [name for name, _ in group.resources] != [GPU_MILLI]


def _not_here(wanted: str) -> InvalidValue:
    return InvalidValue(
        f"a batch for GPUs takes {wanted}", field="requests", hint="use Engine.place for other requests"
    )
