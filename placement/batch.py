"""Many placements in one kernel call: requests become arrays, answers become Decision values only when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from ..ext import batch as kernel
from ..ext.tables import format_uuid, make_many, parse_many
from .claim import Claimed
from .decision import Decision
from .errors import DuplicateName, HostlerError, InvalidValue
from .explain import quick_refusal
from .request import Request, ServerGroup
from .request_check import check_request

if TYPE_CHECKING:
    from .engine import Engine
    from .signature import Signature


@dataclass(slots=True)
class Run:
    """Consecutive requests that one kernel call decided."""

    first: int
    sequence: int
    requests: Sequence[Request]
    signatures: list[Signature]
    which: NDArray[np.int32]
    uuids: NDArray[np.uint64]
    rows: NDArray[np.int32]
    scores: NDArray[np.float64]
    counts: NDArray[np.int64]


class Decisions(Sequence[Decision]):
    """The answers to ``place_many``, in order. A Decision is made when it is looked at; the arrays are there at once.

    Names of hosts are read at that moment, so look before the hosts are removed.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine = engine
        self._whole: dict[int, Decision] = {}
        self._runs: list[Run] = []
        self.rows: NDArray[np.int32] = np.full(count, -1, np.int32)
        """Row of the (first) host of each decision, -1 where nothing was placed."""
        self.scores: NDArray[np.float64] = np.zeros(count)
        """Weight of that host."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def placed(self) -> int:
        """Number of requests that were placed."""
        return int(np.count_nonzero(self.rows >= 0))

    @overload
    def __getitem__(self, index: int) -> Decision: ...
    @overload
    def __getitem__(self, index: slice) -> list[Decision]: ...
    def __getitem__(self, index: int | slice) -> Decision | list[Decision]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError("decision out of range")
        known = self._whole.get(index)
        if known is None:
            known = self._whole[index] = self._decision(index)
        return known

    def __iter__(self) -> Iterator[Decision]:
        return (self[i] for i in range(len(self)))

    def add(self, index: int, decision: Decision) -> None:
        """Take in a decision that was made by itself."""
        self._whole[index] = decision
        if decision.placed:
            fleet = self._engine.fleet
            self.rows[index] = fleet.row_of_uuid(decision.selected.provider_uuid)
            self.scores[index] = decision.selected.weight

    def add_run(self, run: Run) -> None:
        """Take in what a kernel call decided."""
        self._runs.append(run)
        span = slice(run.first, run.first + len(run.rows))
        self.rows[span], self.scores[span] = run.rows, run.scores

    def _decision(self, index: int) -> Decision:
        run = next(run for run in self._runs if run.first <= index < run.first + len(run.rows))
        at = index - run.first
        engine, request, signature = self._engine, run.requests[at], run.signatures[run.which[at]]
        counts = [int(count) for count in run.counts[at][: len(signature.stages)]]
        removed = dict(zip(signature.stage_names, counts[1:], strict=True))
        row = int(run.rows[at])
        selections: tuple[Any, ...] = ()
        refusal = None
        if row >= 0:
            fleet = engine.fleet
            uuid = format_uuid(int(run.uuids[at, 0]), int(run.uuids[at, 1]))
            amounts = {fleet.resource_classes[i]: amount for i, amount in signature.resources.items()}
            claimed = Claimed(uuid, row, -1, float(run.scores[at]), {fleet.uuid(row): amounts}, ())
            selections = (engine.selection(claimed, ()),)
        else:
            refusal = quick_refusal(engine.fleet, signature, request, removed, sum(counts))
        return Decision(
            sequence=run.sequence + at,
            request_id=request.request_id,
            considered=sum(counts),
            removed=removed,
            selections=selections,
            refusal=refusal,
            seed=engine.seed_of(run.sequence + at),
        )


def place_batch(engine: Engine, requests: Iterable[Request]) -> Decisions:
    """``Engine.place_many``: runs of requests that the kernel can decide alone go to it together, the others one by one."""
    batch = list(requests)
    decisions = Decisions(engine, len(batch))
    if not batch:
        return decisions
    plan = _plan(engine, batch)
    start, sequence = engine.fleet.history.hold(), engine.sequence
    try:
        first = 0
        while first < len(batch):
            last = first
            while last < len(batch) and plan[last] is not None:
                last += 1
            if last > first:
                _place_run(engine, decisions, batch, plan, first, last)
            if last < len(batch):
                decisions.add(last, engine.place(batch[last]))
            first = last + 1
    except BaseException:
        engine.fleet.history.go(start)
        engine.sequence = sequence
        raise
    return decisions


def _plan(engine: Engine, batch: list[Request]) -> list[Signature | None]:
    """For each request its signature if the kernel can decide it alone, else None. Raises for whatever is malformed."""
    plan: list[Signature | None] = []
    known: dict[tuple[int, str], Signature | None] = {}
    latest = engine.fleet.now
    compiled = engine.compiled
    for request in batch:
        if type(request) is not Request:
            check_request(request)
        now = request.now
        if now is not None and now != latest:
            check_request(request)
            engine.fleet.advance(now, engine.policy.options.default.service_down_time)
            latest = now
            plan.append(None)
            engine.ranked_way(request)
            continue
        if len(request.instance_uuids) > 1 or request.alternates or isinstance(request.server_group, ServerGroup):
            check_request(request)
            engine.signature(request)
            plan.append(None)
            continue
        key = (id(request.spec), request.project_id if compiled.reads_project else "")
        if key not in known or compiled.custom:
            check_request(request)
            signature = engine.ranked_way(request.with_changes(instance_uuids=("",)))
            known[key] = signature if signature is not None and signature.simple else None
            if signature is None:
                engine.signature(request)
        plan.append(known[key])
    engine.fleet.advance(latest, engine.policy.options.default.service_down_time)
    return plan


def _place_run(
    engine: Engine, decisions: Decisions, batch: list[Request], plan: list[Signature | None], first: int, last: int
) -> None:
    fleet, requests = engine.fleet, batch[first:last]
    count = len(requests)
    signatures: dict[int, int] = {}
    unique: list[Signature] = []
    which = np.empty(count, np.int32)
    for position, signature in enumerate(plan[first:last]):
        index = signatures.get(id(signature))
        if index is None:
            assert signature is not None
            index = signatures[id(signature)] = len(unique)
            unique.append(signature)
        which[position] = index
    for signature in unique:
        signature.refresh()
    width = max(len(signature.stages) for signature in unique)
    uuids = _uuids(engine, requests)
    groups = _groups(engine, requests)
    rows, consumers = np.empty(count, np.int32), np.empty(count, np.int32)
    scores, counts = np.empty(count, np.float64), np.empty((count, width), np.int64)
    done = kernel.place(
        fleet.kernel,
        [signature.ranking for signature in unique],
        which,
        np.array([signature.shape for signature in unique], np.int32)[which],
        uuids,
        _interned(fleet.projects, [request.project_id for request in requests]),
        _interned(fleet.users, [request.user_id for request in requests]),
        groups,
        True,
        rows,
        consumers,
        scores,
        counts,
    )
    placed = consumers[:done][rows[:done] >= 0]
    if done < count:
        kernel.release(fleet.kernel, placed[::-1].copy())
        taken = format_uuid(int(uuids[done, 0]), int(uuids[done, 1]))
        raise DuplicateName(f"consumer {taken} exists", field="instance_uuids")
    fleet.placed(placed)
    if engine.reads_instance_images:
        for request, consumer in zip(requests, consumers, strict=True):
            if consumer >= 0 and request.image_properties:
                fleet.image_properties[int(consumer)] = request.image_properties
    decisions.add_run(Run(first, engine.sequence + 1, requests, unique, which, uuids, rows, scores, counts))
    engine.sequence += count


def _uuids(engine: Engine, requests: Sequence[Request]) -> NDArray[np.uint64]:
    texts = [request.instance_uuids[0] if request.instance_uuids else "" for request in requests]
    try:
        if all(texts):
            return parse_many(texts)
        words = make_many(engine.uuid_seed, engine.sequence, len(texts))
        given = [position for position, text in enumerate(texts) if text]
        if given:
            words[given] = parse_many([texts[position] for position in given])
        return words
    except (ValueError, TypeError) as error:
        raise InvalidValue(f"instance_uuids must be uuids: {error}", field="instance_uuids") from None


def _groups(engine: Engine, requests: Sequence[Request]) -> NDArray[np.int32]:
    groups = np.full(len(requests), -1, np.int32)
    for position, request in enumerate(requests):
        if request.server_group is not None:
            groups[position] = engine.fleet.group_id(request.server_group)  # type: ignore[arg-type]  # _plan let only uuids pass
    return groups


def _interned(table: Any, texts: list[str]) -> NDArray[np.int32]:
    known = {text: table.id(text) for text in set(texts)}
    if len(known) == 1:
        return np.full(len(texts), next(iter(known.values())), np.int32)
    return np.array([known[text] for text in texts], np.int32)


__all__ = ["Decisions", "HostlerError", "place_batch"]
