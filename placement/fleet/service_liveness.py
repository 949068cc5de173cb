"""Compute services: which are up, by what they are set to, their heartbeats and the time.

Rule (Nova 33, servicegroup db driver): a service is up if abs(now - last seen) <= service_down_time, and it is neither
disabled nor forced down. A host of which no heartbeat was ever seen is not watched, and counts as seen; until a first
time is given, none is watched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..types.errors import InvalidValue
from ..types.validation import check_array, finite, shown
from .change_log import ChangeLog, Rows, rows_array
from .columns import COLUMN

Times = NDArray[np.float64]
"""Seconds since the epoch."""

LOOK_AHEAD: Final = 0.25
"""Part of the down time for which changes of verdict are queued when all rows are gone through."""
_UNSURE: Final = 4 * np.finfo(np.float64).eps
"""Relative distance from the ends of the rule's interval within which only the rule itself tells, as it rounds."""


class Services:
    """Verdicts on all hosts' services, in the column ``service_up``, for the time ``now`` (seconds since the epoch;
    None until one was given).

    Between ``_since`` and ``_until`` no verdict differs from the column's. Rows whose verdict changes next are queued
    by the time until which it holds, so that as time goes by only they are looked at. A heartbeat leaves the queue as
    it is: it only lowers ``_queued_until``, up to which the queue is complete. Once that has passed all rows are gone
    through: with regular heartbeats about once per down time.
    """

    def __init__(self, change_log: ChangeLog) -> None:
        self._change_log = change_log
        change_log.judge = self.judge
        self.now: float | None = None
        self.down_time = 60.0
        self._since = -math.inf
        self._until = math.inf
        self._queued_until = math.inf
        self._queue_rows: Rows = rows_array()
        self._queue_times: Times = np.zeros(0)
        self._head = 0
        self.caching = False
        """True while a rule's verdicts are worked out that are kept until the change log names their rows."""
        self._logs_all = False

    # commands

    def set_service(
        self, rows: Rows, *, disabled: bool | None, disabled_reason: str | None, forced_down: bool | None
    ) -> None:
        """Enable, disable or force down the services of hosts; None leaves it. O(rows)."""
        changes: dict[str, Any] = {}
        if disabled is not None:
            changes.update(disabled=bool(disabled), disabled_reason=disabled_reason if disabled else None)
        if forced_down is not None:
            changes["forced_down"] = bool(forced_down)
        with self._change_log.editing(rows):
            self._change_log.reclass(rows, **changes)
            self._judge(rows)

    def heartbeats(self, rows: Rows, at: float | NDArray[np.floating[Any]]) -> None:
        """The services of ``rows`` reported at ``at``, one time for all or one each; of a row named twice the last
        counts.

        Only rows whose verdict changes are logged as changed. InvalidValue, with nothing changed, for a time that is
        not finite. O(rows).
        """
        shape = () if isinstance(at, (int, float, np.number)) else rows.shape
        seen = check_array(at, "at", shape, "iuf", "finite times, one for all hosts or one each")
        if not np.all(np.isfinite(seen)):
            raise InvalidValue(f"heartbeats come at finite times, got {shown(at)}", field="at")
        column = self._change_log.store.host[COLUMN["last_seen_up"]]
        before = column[rows]
        column[rows] = seen
        if self._change_log.history.recording:
            self._change_log.record(_Heartbeats(self, rows.copy(), before, column[rows]))
        self._seen_anew(rows)

    def put_seen(self, rows: Rows, seen: Times) -> None:
        """Put back heartbeats of another version, unrecorded. O(rows)."""
        self._change_log.store.host[COLUMN["last_seen_up"], rows] = seen
        self._seen_anew(rows)

    def last_seen_is_read(self) -> None:
        """A rule reads when services were last seen, not only whether they are up. If its verdicts are kept,
        heartbeats are logged from now on. O(1)."""
        self._logs_all = self._logs_all or self.caching

    def _seen_anew(self, rows: Rows) -> None:
        self.judge(rows)
        if self._logs_all:
            self._change_log.changed(rows)

    # verdicts

    @property
    def holds(self) -> tuple[float, float]:
        """Times between which, ends included, no verdict differs from those of now unless a service is heard of or
        changed; NaN, which is between no times, while there is no time. O(1)."""
        if self.now is None:
            return math.nan, math.nan
        return min(self._since, self.now), max(self._until, self.now)

    def advance(self, now: float | None, down_time: float) -> None:
        """Set the time, and how many seconds without a heartbeat make a service down. None: no time was given yet.

        O(1) while no verdict changes, else O(verdicts that may change), with a pass over the rows about once per down
        time; O(rows) for a new ``down_time``, or back to a time at which some verdict was another one.
        """
        known = down_time == self.down_time and (now is None) == (self.now is None)
        time = None if now is None else finite(now, "now")
        self.now, self.down_time = time, finite(down_time, "service_down_time")
        if now is None:
            if not known:
                self.judge_all()
            return
        if known and self._since <= now <= self._until:
            return
        if known and self._since <= now <= self._queued_until:
            self._judge_queued()
        else:
            self.judge_all()

    def judge(self, rows: Rows) -> None:
        """Set the verdicts of ``rows`` for the present time, after their heartbeats or classes changed. O(rows)."""
        self._judge(rows)
        since, until = self._holds(rows)
        self._note(since, until)

    def judge_all(self) -> None:
        """Set all verdicts for the present time. O(rows), and a sort of those that change soon."""
        rows = np.arange(self._change_log.rows, dtype=np.int32)
        self._judge(rows)
        since, until = self._holds(rows)
        self._until = float(until.min(initial=math.inf))
        horizon = self._until + LOOK_AHEAD * self.down_time
        near = np.flatnonzero(until <= horizon) if self._until < math.inf else np.zeros(0, np.intp)
        order = np.argsort(until[near], kind="stable")
        self._queue_rows, self._queue_times, self._head = near[order].astype(np.int32), until[near][order], 0
        self._since, self._queued_until = -math.inf, math.inf
        self._note(since, until[until > horizon])

    def _judge_queued(self) -> None:
        """Look at the rows whose verdicts held until some time before now."""
        assert self.now is not None
        times = self._queue_times
        end = int(np.searchsorted(times, self.now, side="left"))
        rows = self._queue_rows[self._head : end]
        if len(rows):
            self._judge(rows)
            since, until = self._holds(rows)
            unsure = until == self.now
            self._note(since, until[~unsure])
            # The queue is in order of time, so what is unsure yet is at the end of what was taken; it is looked at
            # again.
            self._head += int(np.argmax(unsure)) if unsure.any() else len(rows)
        head = float(times[self._head]) if self._head < len(times) else math.inf
        self._until = min(head, self._queued_until)

    def _note(self, since: Times, until: Times) -> None:
        """Some rows, which need not be queued, have verdicts that hold for so long."""
        self._since = max(self._since, float(since.max(initial=-math.inf)))
        self._queued_until = min(self._queued_until, float(until.min(initial=math.inf)))
        self._until = min(self._until, self._queued_until)

    def _judge(self, rows: Rows) -> None:
        change_log = self._change_log
        classes = change_log.store.row["class_of"][rows]
        up = (change_log.is_host() & ~change_log.is_down())[classes]
        seen = change_log.store.host[COLUMN["last_seen_up"], rows]
        never = np.isnan(seen)
        if self.now is not None and not never.all():
            up &= never | (np.abs(self.now - seen) <= self.down_time)
        column = change_log.store.host[COLUMN["service_up"]]
        flipped = rows[column[rows] != up]
        if len(flipped):
            column[rows] = up
            change_log.changed(flipped)

    def _holds(self, rows: Rows) -> tuple[Times, Times]:
        """Since and until when the rule says of each row what it says now; both are now where that is unsure."""
        seen = self._change_log.store.host[COLUMN["last_seen_up"], rows]
        never = np.isnan(seen)
        if self.now is None or never.all():
            return np.full(len(rows), -math.inf), np.full(len(rows), math.inf)
        now, margin = self.now, _UNSURE * (np.abs(seen) + self.down_time)
        comes, goes = seen - self.down_time, seen + self.down_time
        since, until = np.full(len(rows), now), np.full(len(rows), now)
        not_yet, no_more = now < comes - margin, now > goes + margin
        alive = (now > comes + margin) & (now < goes - margin)
        until[not_yet], since[not_yet] = (comes - margin)[not_yet], -math.inf
        until[alive], since[alive] = (goes - margin)[alive], (comes + margin)[alive]
        until[no_more], since[no_more] = math.inf, (goes + margin)[no_more]
        until[never], since[never] = math.inf, -math.inf
        return since, until


@dataclass(slots=True)
class _Heartbeats:
    """Heartbeats of some rows before and after."""

    services: Services
    rows: Rows
    before: Times
    after: Times

    def redo(self) -> None:
        self.services.put_seen(self.rows, self.after)

    def undo(self) -> None:
        self.services.put_seen(self.rows, self.before)
