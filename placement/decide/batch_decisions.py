"""The answers to many placements: the kernel's arrays, from which Decision values are created on access."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from ...ext.draws import word, words
from ...ext.tables import format_many, format_uuid
from ..fleet.fleet import Fleet
from ..types.decision import Decision, PackedDecision, Refusal, Selection
from ..types.errors import HostlerError
from ..types.request import Request
from .context import DecisionContext
from .explain.refusals import main_stage, quick_refusal
from .nested_batch import NestedAnswer, OneNested, as_decision
from .nested_run import NestedRun
from .packed_decisions import pack_run
from .run import Run

FEW: Final = 3
"""Decisions of a run that are made as fast as packed."""
_NONE: Final[tuple[Selection, ...]] = ()


class Decisions(Sequence[Decision]):
    """The answers to ``place_many``, in order, as they were decided, whatever becomes of the fleet.

    A Decision is made when it is looked at; the arrays are there at once. A request with an error (``errors``) was not
    carried out: its Decision is a refusal by the stage ``request`` that says so, and has the number 0.
    """

    def __init__(self, context: DecisionContext, count: int) -> None:
        self._context = context
        self.errors: dict[int, HostlerError] = {}
        """By position: what ``place`` would have raised."""
        self._whole: dict[int, Decision] = {}
        self._alone: list[int] = []
        self._nested: dict[int, NestedRun | OneNested] = {}
        """What tells of requests for nested providers, until the Decision is made of it."""
        self._runs: list[Run] = []
        self._firsts: list[int] = []
        self._readers: dict[int, _RunReader] = {}
        """By number of the run, of those that were looked at."""
        self._complete: set[int] = set()
        """Numbers of the runs of which all Decisions were made."""
        self._settled = False
        self.rows: NDArray[np.int32] = np.full(count, -1, np.int32)
        """Row of the (first) host of each decision, -1 where nothing was placed."""
        self.scores: NDArray[np.float64] = np.zeros(count)
        """Weight of that host."""

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Decisions on {len(self)} requests, {self.placed} placed>"

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
        if known is None and index in self._nested:
            known = self._make(index)
        if known is None:
            known = self._whole[index] = self._reader_of(index).decision(index)
        return known

    def __iter__(self) -> Iterator[Decision]:
        whole = self._whole
        for index in list(self._nested):
            self._make(index)
        for number, run in enumerate(self._runs):
            if number not in self._complete:
                self._complete.add(number)
                reader = self._readers.get(number) or self._reader_of_run(number)
                for index, decision in enumerate(reader.decisions(0, len(run.rows)), run.first):
                    whole.setdefault(index, decision)
        return map(whole.__getitem__, range(len(self.rows)))

    def _to_pass_on(self) -> list[PackedDecision | Decision]:
        """Each decision, packed if it placed one guest on a plain provider, which takes a tenth of the time that its
        Decision does. Few decisions, and those from before a change of the fleet, are Decisions. O(requests)."""
        if self._settled or len(self.rows) <= FEW:
            return list(iter(self))
        found: list[PackedDecision | None] = [None] * len(self.rows)
        for run in self._runs:
            found[run.first : run.first + len(run.rows)] = pack_run(self._context, run)
        whole = self._whole
        return [self[index] if packed is None or index in whole else packed for index, packed in enumerate(found)]

    def uuids(self) -> list[str]:
        """Uuid of the (first) instance of each request, in order; empty where one that was refused had none.
        O(requests)."""
        found = [""] * len(self.rows)
        for run in self._runs:
            found[run.first : run.first + len(run.rows)] = format_many(run.uuids)
        for index, nested in self._nested.items():
            if self.rows[index] >= 0:
                found[index] = nested.told(index)[1]
        for index, decision in self._whole.items():
            if decision.placed:
                found[index] = decision.selections[0].instance_uuid
        return found

    def sizes(self) -> list[int]:
        """What each request takes, in order: a number for ``amounts_of``. Requests with equal numbers take alike; the
        number of one that was not placed says nothing. O(requests)."""
        found = [0] * len(self.rows)
        for run in self._runs:
            found[run.first : run.first + len(run.rows)] = run.sizes.tolist()
        for at in self._alone:
            found[at] = ~at
        return found

    def amounts_of(self, size: int) -> dict[str, int]:
        """What a request of this number (``sizes``) takes of each resource class, all instances and providers together.
        All runs of one call have one table of sizes. O(resource classes)."""
        if size < 0:
            return self[~size].amounts()
        names = self._context.fleet.resource_classes
        return {names[index]: amount for index, amount in self._runs[0].resources[size].items()}

    def _add(self, index: int, decision: Decision) -> None:
        """Take in a decision that was made by itself."""
        self._whole[index] = decision
        self._alone.append(index)
        if decision.placed:
            fleet = self._context.fleet
            self.rows[index] = fleet.row_of_uuid(decision.selected.provider_uuid)
            self.scores[index] = decision.selected.weight

    def stage_of(self, index: int) -> str:
        """The stage that a refusal names, "" for what was placed; as its Decision says, which is not made for it.
        O(stages)."""
        if self.rows[index] >= 0:
            return ""
        nested = self._nested.get(index)
        if nested is not None:
            return main_stage(nested.removed(index))
        refusal = self[index].refusal
        return "" if refusal is None else refusal.stage

    def _add_nested(self, index: int, request: Request, uuid: str, answer: NestedAnswer) -> None:
        """Take in what was decided of a request for nested providers."""
        self._nested[index] = OneNested(request, uuid, answer)
        self._alone.append(index)
        self.rows[index], self.scores[index] = answer.row, answer.weight

    def _add_nested_run(self, run: NestedRun) -> None:
        """Take in what a kernel call decided of such requests, and of others between them."""
        nested = run.nested
        self._nested.update(dict.fromkeys(nested, run))
        self._alone += nested
        span = slice(run.first, run.first + len(run.answers.rows))
        self.rows[span], self.scores[span] = run.answers.rows, run.answers.scores

    def _make(self, index: int) -> Decision:
        made = self._whole[index] = as_decision(self._context, *self._nested.pop(index).told(index))
        return made

    def _add_error(self, index: int, error: HostlerError) -> None:
        """Take in a request that was not carried out."""
        self.errors[index] = error
        refusal = Refusal(sentence=str(error.args[0]), stage="request", hint=error.hint, code="request")
        self._whole[index] = Decision(sequence=0, request_id=None, considered=0, removed={}, refusal=refusal)

    def _add_run(self, run: Run) -> None:
        """Take in what a kernel call decided."""
        self._runs.append(run)
        self._firsts.append(run.first)
        span = slice(run.first, run.first + len(run.rows))
        self.rows[span], self.scores[span] = run.rows, run.scores

    def settle(self) -> None:
        """Read the names of hosts, which are about to change. O(hosts chosen)."""
        if not self._settled:
            self._settled = True
            for index in list(self._nested):
                self._make(index)
            for number in range(len(self._runs)):
                self._reader_of_run(number).settle()

    def _reader_of(self, index: int) -> _RunReader:
        number = bisect_right(self._firsts, index) - 1
        return self._readers.get(number) or self._reader_of_run(number)

    def _reader_of_run(self, number: int) -> _RunReader:
        known = self._readers.get(number)
        if known is None:
            known = self._readers[number] = _RunReader(self._context, self._runs[number])
        return known


class _Filtered(NamedTuple):
    """What the stages removed of the hosts that were considered."""

    considered: int
    removed: dict[str, int]


class _RunReader:
    """Makes the Decisions of a run. Columns are read for all of them at once, and what many have in common once."""

    def __init__(self, context: DecisionContext, run: Run) -> None:
        self._context, self._run = context, run
        self.first, self.end = run.first, run.first + len(run.rows)
        self._rankings, self._sizes = run.rankings.tolist(), run.sizes.tolist()
        self._rows, self._scores = run.rows.tolist(), run.scores.tolist()
        self._uuids, self._counts = run.uuids.tolist(), run.counts.tolist()
        fleet = context.fleet
        columns = fleet._change_log.store.row
        self._classes = columns["class_of"].take(run.rows).tolist()
        self._providers = fleet._providers.words(run.rows).tolist()
        self._hosts = columns["service_host"].take(run.rows).tolist()
        names = fleet.resource_classes
        self._amounts = {
            size: {names[index]: n for index, n in run.resources[size].items()} for size in dict.fromkeys(self._sizes)
        }
        self._places: dict[int, tuple[str | None, str | None]] = {}
        self._names: dict[int, tuple[str, str]] = {}
        """By row: service host and node."""
        self._filtered: dict[tuple[int, ...], _Filtered] = {}

    def decision(self, index: int) -> Decision:
        """The Decision of request number ``index`` of all."""
        return self.decisions(index - self.first, index - self.first + 1)[0]

    def decisions(self, first: int, last: int) -> list[Decision]:
        """The Decisions of the run from number ``first`` to the one before ``last``. O(requests)."""
        run, sequence, names, places = self._run, self._run.sequence, self._names, self._places
        fleet, seed = self._context.fleet, self._context.seed
        if last == first + 1:
            seeds = [word(seed, sequence + first)]
        else:
            seeds = words(seed, sequence + first, last - first).tolist()
        made = []
        for at, own_seed in enumerate(seeds, first):
            row, ranking, counts, number = self._rows[at], self._rankings[at], self._counts[at], self._classes[at]
            filtered = self._filtered.get((ranking, *counts)) or self._filtered_by(ranking, counts)
            removed, selections, refusal = filtered.removed.copy(), _NONE, None
            if row >= 0:
                high, low = self._providers[at]
                provider = format_uuid(high, low)
                cell, zone = places.get(number) or self._place(fleet, number)
                host, node = names.get(row) or self._name(fleet, at, row)
                high, low = self._uuids[at]
                selection = Selection(
                    instance_uuid=format_uuid(high, low),
                    host=host,
                    node=node,
                    provider_uuid=provider,
                    cell_uuid=cell,
                    availability_zone=zone,
                    weight=self._scores[at],
                    allocations={provider: self._amounts[self._sizes[at]].copy()},
                )
                selections = (selection,)
            else:
                refusal = quick_refusal(removed, filtered.considered)
            decision = Decision(
                sequence=sequence + at,
                request_id=run.requests[at].request_id,
                considered=filtered.considered,
                removed=removed,
                selections=selections,
                refusal=refusal,
                seed=own_seed,
            )
            made.append(decision)
        return made

    def _name(self, fleet: Fleet, at: int, row: int) -> tuple[str, str]:
        """(service host, node) of the row chosen for a request."""
        known = self._names[row] = fleet._nodes.names.get(self._hosts[at]), fleet._providers.names.get(row)
        return known

    def settle(self) -> None:
        """Read all that is read when a decision is looked at."""
        fleet = self._context.fleet
        for at, row in enumerate(self._rows):
            if row >= 0 and row not in self._names:
                self._name(fleet, at, row)
                self._place(fleet, self._classes[at])

    def _filtered_by(self, ranking: int, counts: list[int]) -> _Filtered:
        stages = self._run.stage_names[ranking]
        mine = counts[: len(stages) + 1]
        known = self._filtered[ranking, *counts] = _Filtered(sum(mine), dict(zip(stages, mine[1:], strict=True)))
        return known

    def _place(self, fleet: Fleet, number: int) -> tuple[str | None, str | None]:
        """(cell, availability zone) of the rows of a host class."""
        known = self._places.get(number)
        if known is None:
            static = fleet._change_log.classes[number]
            known = self._places[number] = (static.cell_uuid, self._context.zone_of(static))
        return known
