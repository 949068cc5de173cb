"""A fork of an engine on which a plan is made: moves to hosts that the planner names, each judged by the engine's
rules with both ends held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import BUILDING
from ...ext.tables import parse_uuid
from ..decide.context import DecisionContext
from ..decide.engine import Engine
from ..decide.moves import confirm, hold_source, note_move
from ..decide.scan_placement import ScanPlacement
from ..decide.signature import GROUP_FILTERS
from ..fleet.change_log import Rows
from ..fleet.consumers import Detail
from ..fleet.fleet import Fleet
from ..request.host_selection import names_hosts, selected, skips_filters
from ..types.errors import DuplicateName, HostlerError
from ..types.moves import PendingMove
from ..types.plans import PlanOptions
from ..versions.history import Version
from .guests import Guest, Guests

UNKNOWN_REQUEST: Final = "request"
"""Stage of a request that is refused before any host is looked at."""
_STAND_IN: Final = 0x506C616E4D6F7665
"""First word of the uuids of consumers that hold targets."""
_NONE: Final = np.zeros(0, np.int32)


class OnRow(ScanPlacement):
    """The scan of one request, for rows that the caller names."""

    def refusing(self, row: int) -> str | None:
        """The stage that refuses a row, None if it passes. O(1), and O(members) for server groups."""
        self.signature.refresh()
        rows = np.array([row], np.int32)
        number = int(self.signature.ranking.judge(rows)[0])
        spec = self.request.spec
        if number and not (skips_filters(spec) and number > self.signature.last_candidate_stage):
            stages = self.signature.stages
            return stages[number].name if number < len(stages) else "not a host"
        if names_hosts(spec) and not selected(self.fleet, spec, rows)[0]:
            return "host_selection"
        for stage in self.selections:
            if not self.selection_passes(stage, rows)[0]:
                return stage.name
        return None

    def passing(self) -> NDArray[np.bool_]:
        """Which rows pass. O(rows)."""
        self.signature.refresh()
        passing: NDArray[np.bool_] = self.signature.ranking.stages() == 0
        spec = self.request.spec
        if names_hosts(spec):
            rows = np.flatnonzero(passing).astype(np.int32)
            passing[rows] = selected(self.fleet, spec, rows)
        for stage in self.selections:
            if self.group is None and stage.name in GROUP_FILTERS:
                continue
            rows = np.flatnonzero(passing).astype(np.int32)
            passing[rows] = self.selection_passes(stage, rows)
        return passing

    def claim_on(self, row: int) -> str | None:
        """Claim a row for the instance; the stage that refuses it otherwise, with nothing changed."""
        refused = self.refusing(row)
        if refused is not None:
            return refused
        allocations = self._allocations(self.instance, row)
        if allocations is None:
            return "claim"
        self._take(self.instance, row, 0.0, allocations, ())
        return None

    def scored(self, rows: NDArray[np.int32]) -> NDArray[np.float64]:
        """The weights of ``rows`` under the engine's policy."""
        return self.signature.ranking.score_rows(rows, self.members(rows))


@dataclass(frozen=True, slots=True)
class Step:
    """A move that was made on a trial: of a guest, as it was on its source, to a row."""

    guest: Guest
    target: int
    reason: str

    @property
    def source(self) -> int:
        """Row of the source."""
        return self.guest.row


class Trial:
    """A fork of an engine, and the moves made on it."""

    def __init__(self, engine: Engine, options: PlanOptions) -> None:
        self.engine = engine.fork()
        self.fleet: Fleet = self.engine.fleet
        """The fleet as the moves have left it."""
        self.context: DecisionContext = self.engine._context
        self.options = options
        self.guests = Guests(self.fleet, options)
        self.steps: list[Step] = []
        self.attempts = 0
        """Questions and moves that were tried; searches are limited by it."""
        self._under_way: dict[str, tuple[int, int]] = {}
        """Instance -> consumers that hold its source and its target."""
        self._stand_ins = 0
        self._scans: dict[tuple[int, str] | None, OnRow] = {}
        """The scans of plain requests, which their guests share."""
        self._rejected: dict[str, str] = {}
        self._zones: tuple[int, NDArray[np.int32]] = (-1, np.zeros(0, np.int32))

    # questions

    def scan(self, guest: Guest) -> OnRow | None:
        """The scan of what a guest asks; None if its request is refused before any host is looked at, for which
        ``why_stays`` has the reason."""
        request = guest.request
        assert request is not None
        key = (id(request.spec), request.project_id) if request.server_group is None else None
        scan = self._scans.get(key)
        if scan is not None and not scan.signature.stale:
            return scan
        try:
            scan = OnRow(self.context, self.context.prepared(request))
            if key is not None and scan.group is None and scan.signature.simple and not self.context.compiled.custom:
                self._scans[key] = scan
            return scan
        except HostlerError as error:
            self._rejected[guest.uuid] = str(error.args[0])
            return None

    def why_stays(self, guest: Guest) -> str:
        """Why a guest cannot move at all; empty if it can."""
        return guest.stays or self._rejected.get(guest.uuid, "")

    def targets(self, guest: Guest, allowed: NDArray[np.bool_] | None = None) -> tuple[OnRow | None, Rows]:
        """Rows that can take a guest now, its own service host left out, in row order, and the scan that says so.
        ``allowed``: mask of rows. O(rows)."""
        self.attempts += 1
        if guest.stays:
            return None, _NONE
        scan = self.scan(guest)
        if scan is None:
            return None, _NONE
        passing = scan.passing()
        if allowed is not None:
            passing &= allowed[: len(passing)]
        fleet = self.fleet
        passing[fleet._rows_of_service_host(fleet._service_host(guest.row))] = False
        if guest.derived:
            zones = self.zones()
            passing &= zones == zones[guest.row]
        return scan, np.flatnonzero(passing).astype(np.int32)

    def zones(self) -> NDArray[np.int32]:
        """A number for the availability zone of each row. O(rows) when the topology has changed."""
        fleet = self.fleet
        if self._zones[0] != fleet._topology_epoch or len(self._zones[1]) != fleet.rows:
            numbers: dict[str | None, int] = {}
            by_class = np.zeros(len(fleet._classes), np.int32)
            for index in range(len(fleet._classes)):
                zone = self.context.zone_of(fleet._classes[index])
                by_class[index] = numbers.setdefault(zone, len(numbers))
            self._zones = (fleet._topology_epoch, by_class[fleet._store.row["class_of"][: fleet.rows]])
        return self._zones[1]

    # moves

    def hold(self) -> Mark:
        """The trial as it is, to come back to."""
        return Mark(self.fleet._history.hold(), len(self.steps))

    def back(self, mark: Mark) -> None:
        """Take back what was done since ``mark``. O(changes)."""
        self.fleet._history.go(mark.version)
        del self.steps[mark.steps :]

    def begin(self, guest: Guest, row: int, *, passes: bool = False) -> str | None:
        """Claim a row for a guest and keep its source; the stage that refuses it otherwise, with nothing changed.
        ``passes``: the row is known to pass."""
        self.attempts += 1
        scan = self.scan(guest)
        if scan is None:
            return UNKNOWN_REQUEST
        if self._is_plain(guest, scan):
            refused = None if passes else scan.refusing(row)
            return self._begin_plain(guest, row, scan) if refused is None else refused
        fleet = self.fleet
        start = fleet._history.hold()
        try:
            migration = hold_source(fleet, guest.uuid, None)
            assert guest.request is not None
            # Plain requests share a scan, which is of another guest's instance.
            refused = OnRow(self.context, self.context.prepared(guest.request)).claim_on(row)
            if refused is not None:
                fleet._history.go(start)
                return refused
            source, target = fleet.name(guest.row), fleet.name(row)
            note_move(
                fleet,
                PendingMove(instance=guest.uuid, migration=migration, kind=guest.kind, source=source, target=target),
            )
            return None
        except HostlerError as error:
            fleet._history.go(start)
            return str(error.args[0])

    def _is_plain(self, guest: Guest, scan: OnRow) -> bool:
        """True if a guest takes amounts of its host only and is in no server group, so that its target can be held by
        any consumer."""
        consumers, consumer = self.fleet._consumers, guest.consumer
        return (
            scan.group is None
            and scan.signature.simple
            and guest.shape >= 0
            and not (consumer in consumers.extras or consumer in consumers.notes or consumer in consumers.missing)
            and guest.uuid not in consumers.moves
        )

    def _begin_plain(self, guest: Guest, row: int, scan: OnRow) -> str | None:
        """The same at less cost: a consumer of its own holds the target until the move ends."""
        fleet = self.fleet
        if not fleet._inventories.fits(row, scan.signature.resources):
            return "claim"
        properties = fleet._image_properties.get(guest.consumer)
        line = fleet._kernel.consumer(guest.consumer)
        while True:
            self._stand_ins += 1
            words = (_STAND_IN, self._stand_ins)
            detail = Detail(words, row, scan.signature.shape, line[4], line[5], -1, BUILDING, None, properties)
            try:
                self._under_way[guest.uuid] = (guest.consumer, fleet._consumers.claim(detail))
                return None
            except DuplicateName:
                continue

    def is_moving(self, guest: Guest) -> bool:
        """True while a move of the guest is under way."""
        return guest.uuid in self._under_way or guest.uuid in self.fleet._consumers.moves

    def end(self, uuid: str) -> None:
        """Give back what a guest's source holds; the guest counts as built."""
        fleet = self.fleet
        plain = self._under_way.pop(uuid, None)
        if plain is None:
            confirm(fleet, uuid)
            fleet._set_building(fleet.consumer_id(uuid), False)
            return
        source, target = plain
        fleet.release([source])
        fleet._consumers.rename(target, parse_uuid(uuid))
        fleet._set_building(target, False)

    def move(self, guest: Guest, row: int, reason: str, *, passes: bool = False) -> str | None:
        """Move a guest, both ends held meanwhile; the stage that refuses it otherwise, with nothing changed.
        ``passes``: the row is one of ``targets``."""
        refused = self.begin(guest, row, passes=passes)
        if refused is None:
            self.end(guest.uuid)
            self.steps.append(Step(guest, row, reason))
        return refused

    def again(self, guest: Guest) -> Guest:
        """A guest where it is now."""
        consumer = self.fleet.consumer_id(guest.uuid)
        row = self.fleet._kernel.consumer(consumer)[2]
        return guest if (consumer, row) == (guest.consumer, guest.row) else self.guests.of(consumer)


@dataclass(frozen=True, slots=True)
class Mark:
    """A state of a trial."""

    version: Version
    steps: int
