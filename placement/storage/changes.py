"""What happens to volumes after they were placed: checks, growth, retype, take-over, and their end.

Source: Cinder 29, FilterScheduler.backend_passes_filters and find_retype_backend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from ..types.decision import Refusal
from ..types.errors import InvalidValue, UnknownName
from ..types.limits import MAX_AMOUNT
from ..types.validation import check_text, shown, whole_number
from .context import VolumeContext
from .decision import VolumeDecision
from .explain import changes_that_would_help, reasons, refusal, why_absent
from .pools.backend_names import backend_part, pool_part
from .pools.filter_properties import FilterProperties
from .pools.pools import Pools
from .pools.request import VolumeRequest
from .pools.volumes import Volume
from .scan import PoolRanking

MIGRATION_POLICIES: Final = ("never", "on-demand")


def passes(context: VolumeContext, request: VolumeRequest, backend: str) -> VolumeDecision:
    """See ``VolumeEngine.passes``."""
    context.checked(request)
    check_text(backend, "backend")
    with context.deciding() as pools:
        pools.advance(request.now)
        return check_on(context, named(request), context.filter_properties(request), backend)


def named(request: VolumeRequest) -> VolumeRequest:
    """The request with an id: a volume that nothing is known of has none."""
    return request if request.volume_id is not None else request.with_changes(volume_id="")


def check_on(
    context: VolumeContext, request: VolumeRequest, filter_properties: FilterProperties, backend: str, charged: int = 0
) -> VolumeDecision:
    """The decision for the first ranked pool of a backend."""
    ranking = context.ranking(filter_properties)
    at = find(context, ranking, backend, any_pool=pool_part(backend) is None)
    if at is not None:
        return context.decision(request, ranking, None, context.selection(request, ranking, at, charged))
    return context.decision(request, ranking, why_not(context, filter_properties, ranking, backend))


def find(context: VolumeContext, ranking: PoolRanking, backend: str, *, any_pool: bool) -> int | None:
    """Place in the ranking of the first pool with this id, or of this ``host@backend``."""
    for at, row in enumerate(ranking.rows.tolist()):
        name = context.pools.fact(row).backend_id
        if (backend_part(name) if any_pool else name) == backend:
            return at
    return None


def why_not(context: VolumeContext, filter_properties: FilterProperties, ranking: PoolRanking, backend: str) -> Refusal:
    """The refusal of one backend, with the reason of its pool if it has but one."""
    whole = pool_part(backend) is None

    def mine(name: str) -> bool:
        return (backend_part(name) if whole else name) == backend

    found = reasons(context.pools, context.policy, filter_properties, ranking, mine)
    if not found:
        problem, hint = why_absent(context.pools, backend)
        return Refusal(sentence=f"{backend} cannot take the volume: {problem}", stage="report", hint=hint)
    changes = changes_that_would_help(context.pools, context.policy, filter_properties, ranking)
    sentence = f"{backend} cannot take the volume: {'; '.join(dict.fromkeys(each.reason for each in found))}"
    return Refusal(sentence=sentence, stage=found[0].stage, hint="; ".join(each.text for each in changes) or None)


def extend(context: VolumeContext, request: VolumeRequest, new_size_gb: int, backend: str | None) -> VolumeDecision:
    """See ``VolumeEngine.extend``."""
    context.checked(request)
    whole_number(new_size_gb, "new_size_gb", most=MAX_AMOUNT)
    growth = new_size_gb - request.spec.size_gb
    if growth <= 0:
        problem = f"new_size_gb must be more than the size, {request.spec.size_gb}, got {new_size_gb}"
        raise InvalidValue(problem, field="new_size_gb")
    with context.deciding() as pools:
        pools.advance(request.now)
        check_settled(context, request.volume_id)
        where = _where(context, request, backend)
        filter_properties = context.filter_properties(request, requested_gb=growth, operation="extend_volume")
        decision = check_on(context, named(request), filter_properties, where, growth)
        if decision.selection is not None:
            chosen = decision.selection.backend_id
            pools.consume(pools.row_of[chosen], growth, pools.now)
            known = pools.volumes.get(request.volume_id) if request.volume_id is not None else None
            if known is not None:
                pools.put_volume(known.volume_id, _grown(pools, known, growth, chosen))
        return decision


def _grown(pools: Pools, volume: Volume, growth: int, backend_id: str) -> Volume:
    """A volume whose pool was charged its growth; of one that was taken over nothing was charged before."""
    size_gb = volume.size_gb + growth
    if volume.charged or not pools.charges_growth:
        return replace(volume, size_gb=size_gb)
    return replace(volume, size_gb=size_gb, charged=(backend_id,), uncharged_gb=volume.size_gb)


def check_settled(context: VolumeContext, volume_id: str | None) -> None:
    """InvalidValue for a volume whose move has not ended. O(1)."""
    known = context.pools.volumes.get(volume_id) if volume_id is not None else None
    if known is not None and known.moved_from is not None:
        problem = f"volume {volume_id} is moving from {known.moved_from[1] or known.moved_from[0]}"
        raise InvalidValue(problem, field="volume_id", hint="end the move first")


def _where(context: VolumeContext, request: VolumeRequest, backend: str | None) -> str:
    """The pool that a volume is on."""
    if backend is not None:
        return check_text(backend, "backend")
    if request.volume_id is None:
        raise InvalidValue("say where the volume is, or which volume it is", field="backend")
    return context.pools.volumes.known(request.volume_id).backend_id


def retype(
    context: VolumeContext, request: VolumeRequest, backend: str | None, migration_policy: str
) -> VolumeDecision:
    """See ``VolumeEngine.retype``."""
    context.checked(request)
    if migration_policy not in MIGRATION_POLICIES:
        raise UnknownName.among("migration policy", str(migration_policy), MIGRATION_POLICIES, field="migration_policy")
    with context.deciding() as pools:
        pools.advance(request.now)
        check_settled(context, request.volume_id)
        where = _where(context, request, backend)
        filter_properties = context.filter_properties(request, exists_on=where, operation="retype")
        ranking = context.ranking(filter_properties)
        request = named(request)
        at = find(context, ranking, where, any_pool=False)
        if at is None and pool_part(where) is None:
            at = find(context, ranking, where, any_pool=True)
        if at is not None:
            return context.decision(request, ranking, None, context.selection(request, ranking, at, 0))
        if len(ranking.rows) and migration_policy == "never":
            why = why_not(context, filter_properties, ranking, where)
            sentence = f"{why.sentence}, and the migration policy is never"
            return context.decision(request, ranking, Refusal(sentence=sentence, stage=why.stage, hint=_MOVE))
        if not len(ranking.rows):
            return context.decision(request, ranking, refusal(pools, context.policy, filter_properties, ranking))
        return move_to(context, request, ranking, 0)


_MOVE: Final = "the migration policy on-demand lets it move"


def move_to(context: VolumeContext, request: VolumeRequest, ranking: PoolRanking, at: int) -> VolumeDecision:
    """The volume goes to the pool at a place of the ranking; its old one stays charged."""
    pools = context.pools
    chosen = context.selection(request, ranking, at, request.spec.size_gb)
    pools.consume(int(ranking.rows[at]), chosen.charged_gb, pools.now)
    known = pools.volumes.get(chosen.volume_id)
    if known is not None:
        place = {"host": chosen.host, "cluster_name": chosen.cluster_name}
        charged, before = (*known.charged, chosen.backend_id), (known.host, known.cluster_name)
        moved = replace(known, **place, charged=charged, moved_from=before)  # type: ignore[arg-type]  # one dict for two fields
        pools.put_volume(known.volume_id, moved)
    return context.decision(request, ranking, None, chosen)


def manage(context: VolumeContext, request: VolumeRequest, backend: str) -> VolumeDecision:
    """See ``VolumeEngine.manage``."""
    context.checked(request)
    check_text(backend, "backend")
    with context.deciding() as pools:
        pools.advance(request.now)
        request = request.with_changes(volume_id=context.new_volume_id(request))
        filter_properties = context.filter_properties(request, requested_gb=0, operation="manage")
        decision = check_on(context, request, filter_properties, backend)
        chosen = decision.selection
        if chosen is not None:
            volume = Volume(
                volume_id=chosen.volume_id,
                host=chosen.host,
                cluster_name=chosen.cluster_name,
                size_gb=request.spec.size_gb,
                project_id=request.project_id,
            )
            pools.put_volume(chosen.volume_id, volume)
        return decision


def migrated(context: VolumeContext, volume_id: str) -> None:
    """See ``VolumeEngine.migrated``."""
    with context.deciding() as pools:
        known = pools.volumes.known(volume_id)
        volume_id = known.volume_id
        *old, new = known.charged or (known.backend_id,)
        _give_back(context, replace(known, charged=tuple(old)))
        if old or known.moved_from is not None:
            pools.put_volume(volume_id, replace(known, charged=(new,), uncharged_gb=0, moved_from=None))


def release(context: VolumeContext, volume_ids: str | Iterable[str], *, give_back: bool) -> int:
    """See ``VolumeEngine.release`` and ``forget``."""
    ids = [volume_ids] if isinstance(volume_ids, str) else list(volume_ids)
    with context.deciding() as pools:
        known = [pools.volumes.known(each) for each in ids]
        if len({volume.volume_id for volume in known}) < len(ids):
            raise InvalidValue(f"a volume is named twice: {shown(ids)}", field="volume_ids")
        for volume in known:
            pools.put_volume(volume.volume_id, None)
            if give_back:
                _give_back(context, volume)
    return len(ids)


def _give_back(context: VolumeContext, volume: Volume) -> None:
    pools = context.pools
    for backend_id, size_gb in zip(volume.charged, (volume.charged_gb, volume.size_gb), strict=False):
        pools.give_back(backend_id, size_gb, pools.now)
