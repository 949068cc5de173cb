"""Placement of many volumes in order: whole runs in one kernel call, answers created on access."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ...ext import pools as kernel
from ...ext.tables import format_uuid, make_many
from ..types.errors import DuplicateName
from .compiled import AnySignature
from .context import VolumeContext
from .decision import PoolSelection, VolumeDecision
from .explain import sentence
from .placement import place
from .pools.reports import PoolFacts
from .pools.request import Retry, VolumeRequest
from .scan import by_stage, stage_names

_Lazy = tuple[VolumeRequest, str, int, "PoolFacts | None", float, NDArray[np.int64], int]
"""Request, volume id, sequence number, pool (None: refused), weight; rows by stage of the run, and the place in it."""


class VolumeDecisions(Sequence[VolumeDecision]):
    """The answers to ``place_many``, in order. A decision is made when it is looked at."""

    def __init__(self, context: VolumeContext, count: int) -> None:
        self._context = context
        self._stages = stage_names(context.policy)
        self._made: list[VolumeDecision | _Lazy | None] = [None] * count
        self.placed = 0
        """Number of requests that were placed."""

    def __repr__(self) -> str:
        return f"<VolumeDecisions on {len(self)} requests, {self.placed} placed>"

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, index: int) -> VolumeDecision: ...
    @overload
    def __getitem__(self, index: slice) -> list[VolumeDecision]: ...
    def __getitem__(self, index: int | slice) -> VolumeDecision | list[VolumeDecision]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        found = self._made[index]
        if isinstance(found, tuple):
            found = self._made[index] = self._decision(*found)
        assert found is not None
        return found

    def __iter__(self) -> Iterator[VolumeDecision]:
        return (self[i] for i in range(len(self)))

    def put(self, index: int, made: VolumeDecision) -> None:
        """Take in one answer."""
        self._made[index] = made

    def put_all(self, start: int, made: list[_Lazy]) -> None:
        """Take in the answers of a run."""
        self._made[start : start + len(made)] = made

    def _decision(
        self,
        request: VolumeRequest,
        volume_id: str,
        sequence: int,
        facts: PoolFacts | None,
        weight: float,
        counts: NDArray[np.int64],
        place: int,
    ) -> VolumeDecision:
        context = self._context
        removed = by_stage(self._stages, counts[place, 1:].tolist())
        considered = int(counts[place].sum())
        off = context.policy.options.scheduler_max_attempts == 1
        tried = () if facts is None else (facts.backend_id,)
        return VolumeDecision(
            sequence=sequence,
            request_id=request.request_id,
            considered=considered,
            removed=removed,
            selection=None if facts is None else _selection(request, volume_id, facts, weight),
            refusal=sentence(considered, removed, request.spec.size_gb) if facts is None else None,
            retry=None if off else Retry(num_attempts=1, backends=tried, hosts=tried),
            seed=context.seed_of(sequence),
        )


def _selection(request: VolumeRequest, volume_id: str, facts: PoolFacts, weight: float) -> PoolSelection:
    return PoolSelection(
        volume_id=volume_id,
        backend_id=facts.backend_id,
        host=facts.host,
        cluster_name=facts.cluster_name,
        pool_name=facts.pool_name,
        availability_zone=facts.availability_zone,
        weight=weight,
        charged_gb=request.spec.size_gb,
    )


def place_many(context: VolumeContext, requests: Iterable[VolumeRequest]) -> VolumeDecisions:
    """See ``VolumeEngine.place_many``."""
    given = [context.checked(request) for request in requests]
    _check_ids(context, given)
    decisions = VolumeDecisions(context, len(given))
    with context.deciding():
        start = 0
        while start < len(given):
            run = _run(context, given, start)
            if run:
                _place_run(context, decisions, given, start, run)
                start += len(run)
            else:
                decision = place(context, given[start])
                decisions.put(start, decision)
                decisions.placed += decision.placed
                start += 1
    return decisions


def _check_ids(context: VolumeContext, given: Sequence[VolumeRequest]) -> None:
    ids = [request.volume_id for request in given if request.volume_id is not None and request.retry is None]
    for volume_id in ids:
        context.pools.volumes.check_new(volume_id)
    if len(set(ids)) < len(ids):
        raise DuplicateName("a volume is named twice", field="volume_id")


def _run(context: VolumeContext, given: Sequence[VolumeRequest], start: int) -> list[AnySignature]:
    """Signatures of the requests from ``start`` on that one kernel call can decide."""
    run: list[AnySignature] = []
    known: dict[object, AnySignature | None] = {}
    by_user = context.policy.has_functions
    now = given[start].now
    for request in islice(given, start, None):
        if request.retry is not None or request.alternates or request.now != now:
            break
        key = (id(request.spec), request.project_id, request.user_id) if by_user else id(request.spec)
        if key not in known:
            known[key] = context.signature(request)
        signature = known[key]
        if signature is None or not signature.alone:
            break
        run.append(signature)
    return run


def _place_run(
    context: VolumeContext,
    decisions: VolumeDecisions,
    given: Sequence[VolumeRequest],
    start: int,
    run: Sequence[AnySignature],
) -> None:
    pools = context.pools
    pools.advance(given[start].now)
    different = list({id(each): each for each in run}.values())
    numbers = {id(signature): index for index, signature in enumerate(different)}
    for signature in different:
        signature.refresh()
    which = np.array([numbers[id(signature)] for signature in run], np.int32)
    requests = given[start : start + len(run)]
    sizes = np.array([request.spec.size_gb for request in requests], np.float64)
    rows, scores = np.empty(len(run), np.int32), np.empty(len(run))
    counts = np.zeros((len(run), 1 + len(stage_names(context.policy))), np.int64)
    rankings = [signature.ranking for signature in different]
    with pools.charging(rows) as columns:
        kernel.place(columns.kernel, columns.block, rankings, which, sizes, pools.now, rows, scores, counts)
    first = context.sequence + 1
    ids = _volume_ids(context, requests, first)
    facts = [pools.facts[row] if row >= 0 else None for row in rows.tolist()]
    pools.add_placed(
        [
            (volume_id, found.host, request.spec.size_gb, found.cluster_name, request.project_id, (found.backend_id,))
            for volume_id, found, request in zip(ids, facts, requests, strict=True)
            if found is not None
        ]
    )
    lazy = zip(
        requests,
        ids,
        range(first, first + len(run)),
        facts,
        scores.tolist(),
        repeat(counts),
        range(len(run)),
        strict=False,
    )
    decisions.put_all(start, list(lazy))
    decisions.placed += int(np.count_nonzero(rows >= 0))
    context.sequence += len(run)


def _volume_ids(context: VolumeContext, requests: Sequence[VolumeRequest], first: int) -> list[str]:
    """Ids of the volumes, made where they are left out; such are not in use, nor given to another of the requests."""
    made = make_many(context.id_seed, first - 1, len(requests)).tolist()
    used, given = context.pools.volumes, {request.volume_id for request in requests if request.volume_id is not None}
    ids: list[str] = []
    for index, (request, words) in enumerate(zip(requests, made, strict=True)):
        volume_id = request.volume_id if request.volume_id is not None else format_uuid(*words)
        if request.volume_id is None and (volume_id in used or volume_id in given):
            volume_id = context.unused_id(first - 1 + index, {*used, *given, *ids})
        ids.append(volume_id)
    return ids
