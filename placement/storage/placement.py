"""One volume placed: by the ranking kernel where it alone can decide, else by the scan of all pools."""

from __future__ import annotations

from dataclasses import replace

from ..types.decision import Refusal, ScorePart
from .compiled import AnySignature
from .context import VolumeContext
from .decision import PoolAlternate, PoolSelection, VolumeDecision
from .explain import refusal
from .pools.filter_properties import FilterProperties
from .pools.request import Retry, VolumeRequest
from .scan import PoolRanking, by_stage


def place(context: VolumeContext, request: VolumeRequest) -> VolumeDecision:
    """See ``VolumeEngine.place``."""
    context.checked(request)
    with context.deciding() as pools:
        pools.advance(request.now)
        retry = _next_attempt(context, request)
        if retry is not None and retry.num_attempts > context.policy.options.scheduler_max_attempts:
            return _out_of_attempts(context, request, retry)
        if retry is not None and retry.backends:
            _take_back(context, request, retry.backends[-1])
        signature = context.signature(request) if retry is None or not retry.tried else None
        request = request.with_changes(retry=retry, volume_id=context.new_volume_id(request))
        if signature is not None:
            decision = _place_ranked(context, request, signature)
            if decision is not None:
                return decision
        filter_properties = context.filter_properties(request)
        ranking = context.ranking(filter_properties, among=context.places(request.spec.resource_backend))
        return _answer(context, request, filter_properties, ranking, request.spec.size_gb)


def _place_ranked(context: VolumeContext, request: VolumeRequest, signature: AnySignature) -> VolumeDecision | None:
    """The decision by the index; None if no pool passes, which the scan explains."""
    signature.refresh()
    pools, ranking = context.pools, signature.ranking
    rows, weights = ranking.best(-1, 1 + request.alternates)
    if not rows:
        return None
    counts = ranking.counts(-1, signature.stages)
    best, others = pools.fact(rows[0]), zip(map(pools.fact, rows[1:]), weights[1:], strict=True)
    parts = zip(context.policy.weighers, ranking.row_parts(rows[0]), strict=True)
    assert request.volume_id is not None
    chosen = PoolSelection(
        volume_id=request.volume_id,
        backend_id=best.backend_id,
        host=best.host,
        cluster_name=best.cluster_name,
        pool_name=best.pool_name,
        availability_zone=best.availability_zone,
        weight=weights[0],
        charged_gb=request.spec.size_gb,
        parts=tuple([ScorePart(weigher.name, *part) for weigher, part in parts]),
        alternates=tuple([PoolAlternate(other.backend_id, other.host, weight) for other, weight in others]),
    )
    context.charge(chosen, request)
    context.sequence += 1
    return VolumeDecision(
        sequence=context.sequence,
        request_id=request.request_id,
        considered=sum(counts),
        removed=by_stage(context.stage_names, counts[1:]),
        selection=chosen,
        retry=_after(request.retry, chosen.backend_id),
        seed=context.seed_of(context.sequence),
    )


def _next_attempt(context: VolumeContext, request: VolumeRequest) -> Retry | None:
    if context.policy.options.scheduler_max_attempts == 1:
        return None  # rescheduling is off
    if request.retry is None:
        return Retry(num_attempts=1)
    return replace(request.retry, num_attempts=request.retry.num_attempts + 1)


def _out_of_attempts(context: VolumeContext, request: VolumeRequest, retry: Retry) -> VolumeDecision:
    most = context.policy.options.scheduler_max_attempts
    sentence = f"No valid backend was found: {most} attempts have failed, and more are not made"
    why = Refusal(sentence=sentence, stage="retry", hint="raise scheduler_max_attempts")
    return context.decision(request, None, why, retry=retry)


def _take_back(context: VolumeContext, request: VolumeRequest, tried: str) -> None:
    pools = context.pools
    known = pools.volumes.get(request.volume_id) if request.volume_id is not None else None
    if known is not None and tried in known.charged:
        pools.put_volume(known.volume_id, None)
    pools.give_back(tried, request.spec.size_gb)


def _answer(
    context: VolumeContext,
    request: VolumeRequest,
    filter_properties: FilterProperties,
    ranking: PoolRanking,
    charged: int,
) -> VolumeDecision:
    """The decision for a ranking: its best pool, charged."""
    if not len(ranking.rows):
        why = refusal(context.pools, context.policy, filter_properties, ranking)
        return context.decision(request, ranking, why, retry=request.retry)
    chosen = context.selection(request, ranking, 0, charged)
    context.charge(chosen, request)
    return context.decision(request, ranking, None, chosen, _after(request.retry, chosen.backend_id))


def _after(retry: Retry | None, backend_id: str) -> Retry | None:
    """What the next attempt must carry: this pool was tried."""
    if retry is None:
        return None
    backends = None if retry.backends is None else (*retry.backends, backend_id)
    return replace(retry, backends=backends, hosts=(*retry.hosts, backend_id))
