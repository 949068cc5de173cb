"""Generic volume groups: which backend takes the group, and all of its volumes packed there as one decision.

Cinder ranks pools by the group type and by each volume, and intersects the lists by backend; it charges nothing, and
each volume is then placed by itself. ``place_group`` places them all, or none. Source: Cinder 29,
FilterScheduler._get_weighted_candidates_generic_group.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import replace
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..types.decision import Refusal
from ..types.errors import DuplicateName, InvalidValue
from ..types.steps import finished
from ..types.validation import check_text, shown
from .context import VolumeContext
from .decision import PoolSelection, VolumeGroupDecision
from .explain import refusal
from .pools.backend_names import backend_part
from .pools.filter_properties import FilterProperties
from .pools.filters.base import Rows
from .pools.filters.capacity import CapacityFilter
from .pools.reports import moment
from .pools.request import VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType, check_volume_type
from .scan import PoolRanking

T = TypeVar("T")
Order = list[tuple[str, float]]
"""(pool, weight), best first."""
STEP: Final = 8
"""Volumes that are ranked or placed in one step where there are up to a thousand pools."""
BACKENDS: Final = 64
"""Backends whose room is looked at in one step."""
Steps: TypeAlias = Generator[None, None, T]
_Counted: TypeAlias = tuple[list[tuple[tuple[str, float], int]], Refusal | None]


def group_order(context: VolumeContext, request: VolumeGroupRequest) -> tuple[Order, Refusal | None]:
    """Cinder's list: the pools that it ranks for a group, best first, a pool as often as it was matched, which is
    exponential in the volumes; and why there are none. Charges nothing."""
    counted, why = finished(_counted_order(context, request))
    return [each for each, times in counted for _ in range(times)], why


def _pause(context: VolumeContext) -> Steps[None]:
    """Let others use other versions of the fleet."""
    try:
        yield
    finally:
        context.fleet  # noqa: B018  # the state comes back to this version


def _step(context: VolumeContext) -> int:
    """Volumes of one step."""
    return max(1, min(STEP, STEP * 1_000 // max(1, len(context.pools.row_of))))


def _counted_order(
    context: VolumeContext, request: VolumeGroupRequest, dtype: type[object] = object
) -> Steps[_Counted]:
    """The pools of ``group_order``, each once, with how often it was matched (with the ``dtype`` bool: True).
    O(volumes * pools)."""
    _check(context, request)
    ranking, why = _ranked(context, _group_filter_properties(context, request), "the group type")
    if why is not None:
        return [], why
    backends, by_type, step = _Backends(context), ranking, _step(context)
    times, mine = np.ones(0, dtype), np.zeros(0, np.intp)
    counted: dict[Hashable, NDArray[Any]] = {}
    for index, volume in enumerate(request.volumes):
        alike = (id(volume.spec), volume.project_id, volume.user_id, id(volume.retry))
        if alike in counted:  # nothing has changed since: it finds the same pools
            times = times * counted[alike][mine]
            continue
        if counted and len(counted) % step == 0:
            yield from _pause(context)
        found, why = _ranked(context, context.filter_properties(volume), f"volume {index + 1}")
        if why is not None:
            return [], why
        if index == 0:
            ranking, mine = found, backends.of(found.rows)
            times = np.ones(len(found.rows), dtype)
            counted[alike] = backends.counts(found.rows, dtype)
        else:
            counted[alike] = backends.counts(found.rows, dtype)
            times = times * counted[alike][mine]
        if not times.any():
            sentence = f"No valid backend was found: none can take volume {index + 1} besides those before it"
            return [], Refusal(sentence=sentence, stage="group")
    if request.volumes:
        times = times * backends.counts(by_type.rows, dtype)[mine]
        if not times.any():
            sentence = "No valid backend was found: none has the group type and room"
            return [], Refusal(sentence=sentence, stage="group")
    else:
        times = np.ones(len(ranking.rows), dtype)
    yield from _pause(context)
    order = _order(context, ranking)
    return [(each, count) for each, count in zip(order, times.tolist(), strict=True) if count], None


class _Backends:
    """Numbers of backends, by the rows of their pools."""

    def __init__(self, context: VolumeContext) -> None:
        self._pools = context.pools
        self._numbers: dict[str, int] = {}
        self._of_row = np.full(0, -1, np.intp)
        """-1 for a row that was not asked for yet."""

    def of(self, rows: Rows) -> NDArray[np.intp]:
        """The number of the backend of each row. O(rows)."""
        if len(rows) and (last := int(rows.max())) >= len(self._of_row):
            more = np.full(max(last + 1 - len(self._of_row), len(self._of_row)), -1, np.intp)
            self._of_row = np.concatenate([self._of_row, more])
        found = self._of_row[rows]
        for row in rows[found < 0].tolist():
            name = backend_part(self._pools.fact(row).backend_id)
            self._of_row[row] = self._numbers.setdefault(name, len(self._numbers))
        numbers: NDArray[np.intp] = self._of_row[rows]
        return numbers

    def counts(self, rows: Rows, dtype: type[object]) -> NDArray[Any]:
        """How many of the rows each backend has, by its number. O(rows)."""
        numbers = self.of(rows)
        return np.bincount(numbers, minlength=len(self._numbers)).astype(dtype)


def _check(context: VolumeContext, request: object) -> VolumeGroupRequest:
    if not isinstance(request, VolumeGroupRequest):
        raise InvalidValue(f"request must be a VolumeGroupRequest, got {shown(request)}", field="request")
    if not isinstance(request.volumes, tuple | list):
        raise InvalidValue(f"volumes must be several requests, got {shown(request.volumes)}", field="volumes")
    if request.group_type is not None:
        check_volume_type(request.group_type, "group_type")
    if request.now is not None:
        moment(request.now, "now")
    if request.availability_zone is not None:
        check_text(request.availability_zone, "availability_zone")
    ids = [context.checked(volume).volume_id for volume in request.volumes]
    named = [volume_id for volume_id in ids if volume_id is not None]
    if len(set(named)) < len(named):
        raise DuplicateName("a volume of the group is named twice", field="volumes")
    return request


def _group_filter_properties(context: VolumeContext, request: VolumeGroupRequest) -> FilterProperties:
    """The group as filters read it: a volume of no size, of no volume type, with the group type's specs."""
    group_type = request.group_type if request.group_type is not None else VolumeType()
    spec = VolumeSpec(size_gb=0, availability_zone=request.availability_zone)
    return FilterProperties.of(spec, type_specs=group_type.extra_specs, instance_host=context.instance_host)


def _ranked(
    context: VolumeContext, filter_properties: FilterProperties, what: str
) -> tuple[PoolRanking, Refusal | None]:
    ranking = context.ranking(filter_properties)
    if len(ranking.rows):
        return ranking, None
    why = refusal(context.pools, context.policy, filter_properties, ranking)
    return ranking, replace_sentence(why, f"{why.sentence} ({what})")


def replace_sentence(why: Refusal, sentence: str) -> Refusal:
    """The refusal in other words."""
    return msgspec.structs.replace(why, sentence=sentence)


def _order(context: VolumeContext, ranking: PoolRanking) -> Order:
    fact = context.pools.fact
    names = [fact(row).backend_id for row in ranking.rows.tolist()]
    return list(zip(names, ranking.weights.tolist(), strict=True))


def place_group(
    context: VolumeContext, request: VolumeGroupRequest, most_tried: int | None = None
) -> VolumeGroupDecision:
    """See ``VolumeEngine.place_group``."""
    return finished(place_group_in_steps(context, request, most_tried))


def place_group_in_steps(
    context: VolumeContext, request: VolumeGroupRequest, most_tried: int | None = None
) -> Steps[VolumeGroupDecision]:
    """The same in steps of about a millisecond, between which others may use other versions of the fleet."""
    _check(context, request)
    yield from _pause(context)
    with context.deciding() as pools:
        pools.advance(request.now)
        counted, why = yield from _counted_order(context, request, bool)
        order = [each for each, _ in counted]
        if why is None:
            tries, size = _Tries(most_tried), sum(volume.spec.size_gb for volume in request.volumes)
            yield from _pause(context)
            for at, backend in enumerate(dict.fromkeys(backend_part(name) for name, _ in order)):
                chosen = None
                if at % BACKENDS == BACKENDS - 1:
                    yield from _pause(context)
                if _may_hold(context, backend, size):
                    chosen = yield from _packed(context, request, backend, tries)
                if chosen is not None:
                    return _decision(context, request, order, None, backend, chosen)
            none = f"on none of {tries.backends} that were tried" if tries.over else "on none"
            sentence = f"No valid backend was found: each volume would fit by itself, all together ({size} GiB) {none}"
            why = Refusal(sentence=sentence, stage=CapacityFilter.name, hint="split the group, or free some room")
        return _decision(context, request, order, why)


def _decision(
    context: VolumeContext,
    request: VolumeGroupRequest,
    order: Order,
    why: Refusal | None,
    backend: str | None = None,
    chosen: tuple[PoolSelection, ...] = (),
) -> VolumeGroupDecision:
    context.sequence += 1
    return VolumeGroupDecision(
        sequence=context.sequence,
        request_id=request.request_id,
        backend=backend,
        selections=chosen,
        order=tuple(order),
        refusal=why,
    )


class _Tries:
    """How many volumes may still be placed to see whether a backend holds a group; None: any number."""

    def __init__(self, left: int | None) -> None:
        self.left = left
        self.backends = 0
        """Backends of which it was seen."""

    @property
    def over(self) -> bool:
        """True if nothing more is tried."""
        return self.left is not None and self.left <= 0

    def placed(self) -> None:
        """One more was."""
        if self.left is not None:
            self.left -= 1


def _may_hold(context: VolumeContext, backend: str, size_gb: int) -> bool:
    """False where the pools of a backend have less room together than volumes need. O(pools of the backend)."""
    if not any(type(rule) is CapacityFilter for rule in context.policy.filters):
        return True
    rows, columns = context.places(backend), context.pools.columns
    if rows is None:
        return True
    room = np.maximum(np.maximum(columns["room_thin"][rows], columns["room_thick"][rows]), 0)
    return bool(room.sum() + len(rows) >= size_gb)  # room is rounded


def _packed(
    context: VolumeContext, request: VolumeGroupRequest, backend: str, tries: _Tries
) -> Steps[tuple[PoolSelection, ...] | None]:
    """All volumes on pools of one backend, charged; None, and nothing charged, if they do not go in.

    First in the order asked for, each where the policy likes it best; then the largest first; then the largest first,
    each where the least room is left.
    """
    sizes = [volume.spec.size_gb for volume in request.volumes]
    as_asked = list(range(len(sizes)))
    largest_first = sorted(as_asked, key=lambda index: -sizes[index])
    tries.backends += not tries.over
    for order, tightly in ((as_asked, False), (largest_first, False), (largest_first, True)):
        again = order == as_asked and order is not as_asked and not tightly
        if tries.over or again:
            continue
        chosen = yield from _tried(context, request, backend, order, tries, tightly=tightly)
        if chosen is not None:
            return chosen
    return None


def _tried(
    context: VolumeContext,
    request: VolumeGroupRequest,
    backend: str,
    order: list[int],
    tries: _Tries,
    *,
    tightly: bool,
) -> Steps[tuple[PoolSelection, ...] | None]:
    history = context.fleet._history
    start, sequence, step = history.hold(), context.sequence, _step(context)
    chosen: dict[int, PoolSelection] = {}
    for number, index in enumerate(order):
        if number and number % step == 0:
            yield from _pause(context)
        tries.placed()
        selection = _placed(context, request.volumes[index], backend, tightly=tightly)
        if selection is None:
            history.go(start)
            context.sequence = sequence
            return None
        chosen[index] = selection
    return tuple(chosen[index] for index in range(len(order)))


def _placed(context: VolumeContext, volume: VolumeRequest, backend: str, *, tightly: bool) -> PoolSelection | None:
    volume = volume.with_changes(volume_id=context.new_volume_id(volume))
    context.sequence += 1  # each volume has an id of its own
    filter_properties = context.filter_properties(volume)
    among, own = context.places(backend), context.places(volume.spec.resource_backend)
    if among is not None and own is not None:
        among = np.intersect1d(among, own).astype(np.int32)
    ranking = context.ranking(filter_properties, among=among)
    if not len(ranking.rows):
        return None
    at = 0
    if tightly:
        room = context.pools.columns[CapacityFilter.column(filter_properties)][ranking.rows]
        at = int(room.argmin())
    chosen = context.selection(replace(volume, alternates=0), ranking, at, volume.spec.size_gb)
    context.charge(chosen, volume)
    return chosen
