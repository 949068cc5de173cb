"""The requests of a batch as columns: which shape each has, what it names, and its time. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...ext.gather import SpecTable, gather
from ...ext.tables import make_many
from ..fleet.fleet import Fleet, uuid_words
from ..fleet.group_members import doubled_rows
from ..request.checks import check_request
from ..request.host_selection import names_hosts, names_targets
from ..types.decision import Decision
from ..types.errors import HostlerError, NoValidHost
from ..types.request import Request, RequestSpec
from .context import DecisionContext
from .nested_batch import goes_here
from .shape_table import NESTED, OTHERS, ShapeTable
from .signature import Signature

LOOKED_AT: Final = 64
"""Requests that are looked at first to see whether one call can decide them; more and more after that."""
ALONE: Final = -1
"""Mark of requests that ``Engine.place`` decides one by one."""


class Plan:
    """Requests read into columns and checked: ``which`` signature each has, or ALONE."""

    def __init__(
        self,
        context: DecisionContext,
        fleet: Fleet,
        batch: list[Request],
        place: Callable[[Request], Decision],
        *,
        strict: bool,
    ) -> None:
        count = len(batch)
        self.errors: dict[int, HostlerError] = {}
        """Of malformed requests, by position; ``strict``: the first is raised."""
        self._strict = strict
        self.context, self.fleet, self.batch, self.place = context, fleet, batch, place
        self.which = np.full(count, ALONE, np.int32)
        self.uuids = make_many(context.uuid_seed, fleet._heads.sequence, count)
        """Of the instances; made by the engine where a request leaves it out."""
        self.projects, self.users = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self.groups = np.full(count, -1, np.int32)
        down_time = context.policy.options.default.service_down_time
        self._new_down_time = down_time != fleet._services.down_time
        self.times = np.full(count, np.nan)
        """Time of each request, seconds since the epoch; NaN: the time before."""
        now = fleet._services.now
        self._began = np.nan if now is None else now
        self.careful = 0
        """Requests that the next kernel call may have at most; 0 while all requests were carried out: no limit."""
        self.shapes = context.compiled.numbered()
        self._read()
        self.clock = self.times
        """The time at each request's turn; NaN while none was given."""
        if np.isnan(self.times).any():
            given = np.maximum.accumulate(np.where(np.isnan(self.times), -1, np.arange(count)))
            self.clock = np.where(given >= 0, self.times[given], self._began)

    def span_from(self, first: int) -> int:
        """End of the requests from ``first`` on during which the same services are up; the time becomes the first
        one's."""
        self.advance(first)
        if first + 1 == len(self.clock):
            return first + 1
        # A rule that is not ours may read the time of a request.
        since, until = (self.clock[first],) * 2 if self.context.compiled.custom else self.fleet._services.holds
        return _first_outside(self.clock, first, since, until)

    def together(self, first: int, last: int) -> int:
        """End of the requests from ``first`` on that one kernel call can decide. O(requests that it takes)."""
        if self.careful:
            last = min(last, first + self.careful)
        nested, at, size = self.shapes.nested_shapes, first, LOOKED_AT
        mixed = grouped = False
        while at < last:
            end = min(at + size, last)
            numbers = self.which[at:end]
            grouped = grouped or bool(self.groups[at:end].max() >= 0)
            if grouped and mixed:
                return at
            if numbers.max() >= NESTED:
                if not mixed:
                    nested.refresh()
                mixed, which = True, numbers.tolist()
                unready = {
                    number
                    for number in set(which)
                    if number >= NESTED
                    and (grouped or nested.ready(number - NESTED, self.shapes.nested[number - NESTED]) is None)
                }
                if unready:
                    return next(position for position, number in enumerate(which, at) if number in unready)
            at, size = end, 4 * size
        return last

    def forget_time(self, position: int) -> bool:
        """Take back the time of a request that was not carried out. True if that is another one than the time before:
        the services that are up have to be looked at again. O(1) where all have one time, else O(requests)."""
        before = self.clock[position - 1] if position else self._began
        if np.isnan(self.times[position]) or self.times[position] == before:
            return False
        if self.clock is self.times:
            self.clock = self.times.copy()
        self.times[position] = np.nan
        given = np.flatnonzero(~np.isnan(self.times[position:]))
        self.clock[position : position + int(given[0]) if len(given) else None] = before
        self.fleet._rewind(None if np.isnan(before) else float(before))
        return True

    def new_uuids(self, first: int, last: int) -> None:
        """Make the uuids of a span again where requests leave them out: one before it was not carried out, and took no
        number. O(span)."""
        made = make_many(self.context.uuid_seed, self.fleet._heads.sequence, last - first)
        for position, request in enumerate(self.batch[first:last]):
            if not request.instance_uuids:
                self.uuids[first + position] = made[position]

    def advance(self, position: int) -> None:
        """Set the time to that of a request's turn."""
        now = float(self.clock[position])
        if now != self.fleet._services.now or self._new_down_time:
            self.context.advance(None if np.isnan(now) else now)

    def _read(self) -> None:
        """Read and check all requests. Changes nothing but the clock."""
        fleet, position = self.fleet, 0
        projects, users = fleet._projects.ids, fleet._users.ids
        plain = not self.context.compiled.custom and not fleet._shared_service_hosts
        shared, specs = self.shapes, self.shapes.specs if plain else _no_specs(self.shapes)
        consumers = fleet._consumers
        twice = consumers.also_on or (consumers.elsewhere and doubled_rows(consumers))
        groups = {} if twice else fleet._groups
        columns = (self.which, self.uuids, self.projects, self.users, self.groups, self.times)
        while True:
            position = gather(self.batch, position, Request, specs, projects, users, groups, *columns)
            if position == len(self.batch):
                if self.groups.max(initial=-1) >= 0:
                    self._check_groups()
                return
            if self.shapes is not shared or not shared.dropped:
                try:
                    check_request(self.batch[position])
                    self._look(position)
                except HostlerError as error:
                    self._malformed(position, error)
                position += 1
            if self.shapes is shared and shared.dropped:
                # What was numbered does not hold any more: start again with numbers of this plan's own.
                self.shapes, position = self.context.compiled.shapes_apart(), 0
                specs = self.shapes.specs if plain else _no_specs(self.shapes)
                self.which.fill(ALONE)
                self.errors.clear()

    def _malformed(self, position: int, error: HostlerError) -> None:
        if self._strict:
            raise error
        self.errors[position] = error
        self.which[position], self.times[position] = ALONE, np.nan

    def _check_groups(self) -> None:
        """InvalidValue if a server group has a policy that no enabled rule judges. O(requests)."""
        for group in np.unique(self.groups[self.groups >= 0]).tolist():
            of_group = np.flatnonzero(self.groups == group).tolist()
            try:
                self.context.prepared(self.batch[of_group[0]])
            except HostlerError as error:
                for position in of_group:
                    self._malformed(position, error)

    def _look(self, position: int) -> None:
        """A request that is not plain: check it, compile its spec, and read it or leave it to be placed alone."""
        context, fleet, request = self.context, self.fleet, self.batch[position]
        self.times[position] = np.nan if request.now is None else request.now
        spec, request = request.spec, context.prepared(request)
        hinted = request.server_group is not self.batch[position].server_group
        single = len(request.instance_uuids) <= 1 and not request.alternates
        for uuid in request.instance_uuids:
            uuid_words(uuid, "instance_uuids")
        if isinstance(request.server_group, str):
            fleet._group_id(request.server_group)  # which says if there is none
        self.which[position] = ALONE
        try:
            if hinted or not single:
                return
            compiled = context.compiled.signature(request, candidates_given=False)
            nested = request.server_group is None and goes_here(context, compiled) and not names_hosts(spec)
            if not compiled.simple and not nested:
                return  # judged when its turn comes, on what is free then
            signature = compiled if nested and compiled.ranks else context.ranked_way(request)
        except NoValidHost:
            return
        if signature is None:
            return
        self.which[position] = self._number(spec, request, signature)
        self.projects[position] = fleet._projects.id(request.project_id)
        self.users[position] = fleet._users.id(request.user_id)
        self.groups[position] = -1 if request.server_group is None else fleet._group_id(str(request.server_group))
        if request.instance_uuids:
            self.uuids[position] = uuid_words(request.instance_uuids[0], "instance_uuids")

    def _number(self, spec: RequestSpec, request: Request, signature: Signature) -> int:
        """The shape of a request that was asked for with ``spec``, which is known from now on."""
        shapes = self.shapes
        number = shapes.specs.find(spec, request.project_id)
        if number >= 0:
            return number
        number = shapes.number(signature) if signature.simple else shapes.nested_number(signature)
        # Of a spec that names targets, which hosts there are decides, too.
        if not names_targets(request.spec):
            shapes.remember(spec, number, request.project_id if self.context.compiled.reads_project else None)
        return number


def _no_specs(shapes: ShapeTable) -> SpecTable:
    """A table of specs that is empty: each request is looked at."""
    return SpecTable(shapes.shapes, RequestSpec, OTHERS)


def _first_outside(values: NDArray[np.float64], first: int, least: float, greatest: float) -> int:
    """The first position from ``first`` on whose value is not within [least, greatest]; the length if there is none.
    O(positions passed)."""
    size = 64
    while first < len(values):
        some = values[first : first + size]
        inside = (some >= least) & (some <= greatest) if least == least else np.isnan(some)
        outside = np.flatnonzero(~inside)
        if len(outside):
            return first + int(outside[0])
        first, size = first + len(some), 4 * size
    return first


class Answers(NamedTuple):
    """What the kernel answered to consecutive requests, up to the first whose uuid existed at its turn."""

    which: NDArray[np.int32]
    uuids: NDArray[np.uint64]
    rows: NDArray[np.int32]
    consumers: NDArray[np.int32]
    scores: NDArray[np.float64]
    counts: NDArray[np.int64]
    ways: NDArray[np.int32] | None = None
    """Where guests of nested shapes take what they take, if there are such shapes."""
    decided: bool = True
    """False: the next request is left to Python."""
