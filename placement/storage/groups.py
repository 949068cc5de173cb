"""Generic volume groups: which backend takes the group, and all of its volumes packed there as one decision.

Cinder ranks pools by the group type and by each volume, and intersects the lists by backend; it charges nothing, and
each volume is then placed by itself. ``place_group`` places them all, or none. Source: Cinder 29,
FilterScheduler._get_weighted_candidates_generic_group.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np

from ..types.decision import Refusal
from ..types.errors import DuplicateName, InvalidValue
from ..types.validation import check_text, shown
from .context import VolumeContext
from .decision import PoolSelection, VolumeGroupDecision
from .explain import refusal
from .pools.backend_names import backend_part
from .pools.filter_properties import FilterProperties
from .pools.filters.capacity import CapacityFilter
from .pools.reports import moment
from .pools.request import VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType, check_volume_type
from .scan import PoolRanking

Order = list[tuple[str, float]]
"""(pool, weight), best first."""


def group_order(context: VolumeContext, request: VolumeGroupRequest) -> tuple[Order, Refusal | None]:
    """The pools that Cinder ranks for a group, best first, a pool as often as it was matched; and why there are none.
    Charges nothing. O(volumes * pools)."""
    _check(context, request)
    order, why = _ranked(context, _group_filter_properties(context, request), "the group type")
    by_type = order
    for index, volume in enumerate(request.volumes):
        if why is not None:
            return [], why
        found, why = _ranked(context, context.filter_properties(volume), f"volume {index + 1}")
        order = found if index == 0 else _matching(order, found)
        if why is None and not order:
            sentence = f"No valid backend was found: none can take volume {index + 1} besides those before it"
            why = Refusal(sentence=sentence, stage="group")
    if why is None and request.volumes:
        order = _matching(order, by_type)
        if not order:
            why = Refusal(sentence="No valid backend was found: none has the group type and room", stage="group")
    return ([], why) if why is not None else (order, None)


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


def _ranked(context: VolumeContext, filter_properties: FilterProperties, what: str) -> tuple[Order, Refusal | None]:
    ranking = context.ranking(filter_properties)
    if not len(ranking.rows):
        why = refusal(context.pools, context.policy, filter_properties, ranking)
        return [], replace_sentence(why, f"{why.sentence} ({what})")
    return _order(context, ranking), None


def replace_sentence(why: Refusal, sentence: str) -> Refusal:
    """The refusal in other words."""
    return msgspec.structs.replace(why, sentence=sentence)


def _order(context: VolumeContext, ranking: PoolRanking) -> Order:
    names = (context.pools.fact(row).backend_id for row in ranking.rows.tolist())
    return list(zip(names, ranking.weights.tolist(), strict=True))


def _matching(first: Order, second: Order) -> Order:
    """Pools of ``first`` once for each of ``second`` on the same backend."""
    times = Counter(backend_part(name) for name, _ in second)
    return [each for each in first for _ in range(times[backend_part(each[0])])]


def place_group(context: VolumeContext, request: VolumeGroupRequest) -> VolumeGroupDecision:
    """See ``VolumeEngine.place_group``."""
    _check(context, request)
    with context.deciding() as pools:
        pools.advance(request.now)
        order, why = group_order(context, request)
        if why is None:
            for backend in dict.fromkeys(backend_part(name) for name, _ in order):
                chosen = _packed(context, request, backend)
                if chosen is not None:
                    return _decision(context, request, order, None, backend, chosen)
            size = sum(volume.spec.size_gb for volume in request.volumes)
            sentence = f"No valid backend was found: each volume would fit by itself, all together ({size} GiB) on none"
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


def _packed(context: VolumeContext, request: VolumeGroupRequest, backend: str) -> tuple[PoolSelection, ...] | None:
    """All volumes on pools of one backend, charged; None, and nothing charged, if they do not go in.

    First in the order asked for, each where the policy likes it best; then the largest first; then the largest first,
    each where the least room is left.
    """
    sizes = [volume.spec.size_gb for volume in request.volumes]
    as_asked = list(range(len(sizes)))
    largest_first = sorted(as_asked, key=lambda index: -sizes[index])
    for order, tightly in ((as_asked, False), (largest_first, False), (largest_first, True)):
        chosen = _tried(context, request, backend, order, tightly=tightly)
        if chosen is not None:
            return chosen
    return None


def _tried(
    context: VolumeContext, request: VolumeGroupRequest, backend: str, order: list[int], *, tightly: bool
) -> tuple[PoolSelection, ...] | None:
    history = context.fleet._history
    start, sequence = history.hold(), context.sequence
    chosen: dict[int, PoolSelection] = {}
    for index in order:
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
