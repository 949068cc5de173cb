"""Moves of volumes to other pools in two steps, and what snapshots take: both ends of a move are charged until it is
confirmed (``changes.migrated``) or reverted.

Source: Cinder 29, scheduler manager, migrate_volume and create_snapshot. Cinder itself charges nothing for a migration.
"""

from __future__ import annotations

from dataclasses import replace

from ..types.decision import Refusal
from ..types.errors import InvalidValue
from ..types.validation import check_text, whole_number
from .changes import check_on, check_settled, move_to, named, why_not
from .context import VolumeContext
from .decision import VolumeDecision
from .explain import refusal
from .pools.backend_names import backend_part, pool_part
from .pools.request import VolumeRequest
from .scan import PoolRanking


def migrate(context: VolumeContext, request: VolumeRequest, target: str | None) -> VolumeDecision:
    """See ``VolumeEngine.migrate``."""
    context.checked(request)
    if request.volume_id is None:
        raise InvalidValue("say which volume it is", field="volume_id")
    if target is not None:
        check_text(target, "target")
    with context.deciding() as pools:
        pools.advance(request.now)
        check_settled(context, request.volume_id)
        known = pools.volumes.known(request.volume_id)
        if target == known.backend_id:
            raise InvalidValue(f"volume {request.volume_id} is on {target} already", field="target")
        filter_properties = context.filter_properties(request, operation="migrate")
        ranking = context.ranking(filter_properties)
        at = _best(context, ranking, known.backend_id, target)
        if at is not None:
            sized = replace(request.spec, size_gb=known.size_gb)
            return move_to(context, request.with_changes(spec=sized), ranking, at)
        if target is not None:
            why = why_not(context, filter_properties, ranking, target)
        elif len(ranking.rows):
            sentence = f"No valid backend was found: only {known.backend_id}, where the volume is, can take it"
            why = Refusal(sentence=sentence, stage="migrate")
        else:
            why = refusal(pools, context.policy, filter_properties, ranking)
        return context.decision(request, ranking, why)


def _best(context: VolumeContext, ranking: PoolRanking, present: str, target: str | None) -> int | None:
    """Place of the best pool but the ``present`` one: of a backend, or the one that is named, if there is a target."""
    for at, row in enumerate(ranking.rows.tolist()):
        name = context.pools.fact(row).backend_id
        if name != present and (
            target is None or name == target or (pool_part(target) is None and backend_part(name) == target)
        ):
            return at
    return None


def revert(context: VolumeContext, volume_id: str) -> None:
    """See ``VolumeEngine.reverted``."""
    with context.deciding() as pools:
        known = pools.volumes.known(volume_id)
        if known.moved_from is None:
            raise InvalidValue(f"volume {volume_id} is not moving", field="volume_id")
        host, cluster_name = known.moved_from
        give_back(context, known.charged[-1], known.size_gb)
        charged = known.charged[:-1]
        stays = replace(known, host=host, cluster_name=cluster_name, charged=charged, moved_from=None)
        pools.put_volume(known.volume_id, stays)


def snapshot(context: VolumeContext, request: VolumeRequest, backend: str | None) -> VolumeDecision:
    """See ``VolumeEngine.snapshot``."""
    context.checked(request)
    with context.deciding() as pools:
        pools.advance(request.now)
        if backend is None:
            if request.volume_id is None:
                raise InvalidValue("say where the volume is, or which volume it is", field="backend")
            backend = pools.volumes.known(request.volume_id).backend_id
        size = whole_number(request.spec.size_gb, "size_gb")
        untyped = request.with_changes(spec=replace(request.spec, volume_type=None, qos_specs=None))
        filter_properties = context.filter_properties(untyped, operation="create_snapshot")
        decision = check_on(context, named(untyped), filter_properties, check_text(backend, "backend"), size)
        if decision.selection is not None:
            pools.consume(pools.row_of[decision.selection.backend_id], size, pools.now)
        return decision


def give_back(context: VolumeContext, backend_id: str, size_gb: int) -> None:
    """See ``VolumeEngine.give_back``."""
    with context.deciding() as pools:
        pools.give_back(backend_id, size_gb, pools.now)
