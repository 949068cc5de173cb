"""Which compute services are up, from their settings, their heartbeats and the time.

Rule (Nova 33, servicegroup db driver): a service is up if abs(now - last seen) <= service_down_time, and it is neither
disabled nor forced down. Without any heartbeat a host is not monitored and counts as seen; before the first time is
given, no host is monitored.
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
"""Fraction of the down time for which state changes are queued by a scan of all rows."""
_UNSURE: Final = 4 * np.finfo(np.float64).eps
"""Relative distance from the ends of the rule's interval within which rounding matters and the rule itself is
evaluated."""
_LEAST: Final = float(np.finfo(np.float64).tiny)
"""The least such distance, for a heartbeat at 0 and no down time."""


class Services:
    """States of all compute services, in the column ``service_up``, for the time ``now`` (seconds since the epoch; None
    until one was given).

    Between ``_since`` and ``_until`` no state differs from the column. Rows whose state changes next are queued by the
    time until which it is valid, so that as time advances only these are evaluated. A heartbeat does not change the
    queue: it only lowers ``_queued_until``, up to which the queue is complete. After that time all rows are scanned:
    with regular heartbeats about once per down time.
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
        """True while a rule is evaluated whose results are cached until the change log names their rows."""
        self._logs_all = False
        self.disabled_is_down = False
        """A disabled host may be evacuated though its compute service is alive, as in old journals."""
        self.versions_stay = True
        """Reports leave the versions of services as they are, where they tell none; they did not in old journals."""
        self.beats = 0
        """Number of times that heartbeats changed."""

    # commands

    def set_service(
        self, rows: Rows, *, disabled: bool | None, disabled_reason: str | None, forced_down: bool | None
    ) -> None:
        """Enable, disable or force down the services of hosts; None keeps a setting. O(rows)."""
        changes: dict[str, Any] = {}
        if disabled is not None:
            changes.update(disabled=bool(disabled), disabled_reason=disabled_reason if disabled else None)
        if forced_down is not None:
            changes["forced_down"] = bool(forced_down)
        with self._change_log.editing(rows):
            self._change_log.reclass(rows, **changes)
            self._judge(rows)

    def heartbeats(self, rows: Rows, at: float | NDArray[np.floating[Any]]) -> None:
        """The services of ``rows`` reported at ``at``, one time for all or one each; for a row given twice the last one
        counts.

        Only rows whose state changes are logged as changed. InvalidValue, with nothing changed, for a time that is not
        finite. O(rows).
        """
        shape = () if isinstance(at, (int, float, np.number)) else rows.shape
        seen = check_array(at, "at", shape, "iuf", "finite times, one for all hosts or one each")
        if not np.all(np.isfinite(seen)):
            raise InvalidValue(f"heartbeat times must be finite numbers, got {shown(at)}", field="at")
        column = self._change_log.store.host[COLUMN["last_seen_up"]]
        before = column[rows]
        column[rows] = seen
        if self._change_log.history.recording:
            self._change_log.record(_Heartbeats(self, rows.copy(), before, column[rows]))
        self._seen_anew(rows)

    def put_seen(self, rows: Rows, seen: Times) -> None:
        """Restore heartbeats of another version, unrecorded. O(rows)."""
        self._change_log.store.host[COLUMN["last_seen_up"], rows] = seen
        self._seen_anew(rows)

    def last_seen_is_read(self) -> None:
        """Note that a rule reads when services were last seen, not only whether they are up. If its results are cached,
        heartbeats are logged from now on. O(1)."""
        self._logs_all = self._logs_all or self.caching

    def log_heartbeats(self) -> None:
        """Log heartbeats from now on: a rule that was compiled reads their times. O(1)."""
        self._logs_all = True

    def _seen_anew(self, rows: Rows) -> None:
        self.beats += 1
        self.judge(rows)
        if self._logs_all:
            self._change_log.changed(rows)

    # states

    @property
    def holds(self) -> tuple[float, float]:
        """The closed interval of times for which all states are those of now unless a service reports or is changed;
        NaN, which no time is between, while there is no time. O(1)."""
        if self.now is None:
            return math.nan, math.nan
        return min(self._since, self.now), max(self._until, self.now)

    def is_alive(self, row: int) -> bool:
        """Nova's ``service_is_up``: not forced down, and seen in time or not monitored; disabled or not. O(1)."""
        change_log = self._change_log
        value = change_log.classes.values[int(change_log.store.row["class_of"][row])]
        seen = float(change_log.store.host[COLUMN["last_seen_up"], row])
        silent = self.now is not None and not math.isnan(seen) and abs(self.now - seen) > self.down_time
        return bool(value.is_host) and not value.forced_down and not silent

    def advance(self, now: float | None, down_time: float) -> None:
        """Set the time, and the seconds without a heartbeat after which a service is down. None: no time.

        O(1) while no state changes, else O(states that may change), with a scan of the rows about once per down time;
        O(rows) for a new ``down_time``, or when going back to a time at which some state differed.
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
        """Evaluate the services of ``rows`` for the current time, after their heartbeats or classes changed.
        O(rows)."""
        self._judge(rows)
        since, until = self._holds(rows)
        self._note(since, until)

    def judge_all(self) -> None:
        """Evaluate all services for the current time. O(rows), plus a sort of those that change soon."""
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
        """Evaluate the rows whose states were valid until some time before now."""
        assert self.now is not None
        times = self._queue_times
        end = int(np.searchsorted(times, self.now, side="left"))
        rows = self._queue_rows[self._head : end]
        if len(rows):
            self._judge(rows)
            since, until = self._holds(rows)
            unsure = until == self.now
            self._note(since, until[~unsure])
            # The queue is ordered by time, so rows that are still uncertain are at the end of those taken; they are
            # evaluated again.
            self._head += int(np.argmax(unsure)) if unsure.any() else len(rows)
        head = float(times[self._head]) if self._head < len(times) else math.inf
        self._until = min(head, self._queued_until)

    def _note(self, since: Times, until: Times) -> None:
        """Note until when the states of rows that are not queued are valid."""
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
        """Since when and until when the state of each row is the current one; both are now if that is uncertain."""
        seen = self._change_log.store.host[COLUMN["last_seen_up"], rows]
        never = np.isnan(seen)
        if self.now is None or never.all():
            return np.full(len(rows), -math.inf), np.full(len(rows), math.inf)
        now, margin = self.now, np.maximum(_UNSURE * (np.abs(seen) + self.down_time), _LEAST)
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
