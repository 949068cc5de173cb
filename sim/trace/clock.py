"""Times of a trace in seconds: as they are, or as dates, Unix times or Excel's days, known by how they look.

What looks like a point in time of the years 2000 to 2040 is taken for one: ISO 8601, day.month.year, Unix times in
seconds, milliseconds, microseconds or nanoseconds, and days of Excel with a fraction. All else counts seconds from the
trace's own zero. Dates without an offset are of the time zone that is given, or UTC."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from ...placement.types.errors import InvalidValue, UnknownName
from .csv_columns import Wrong

UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "hours": 3_600.0, "days": 86_400.0}
WORDS: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_COARSE: Final = ("hours", "days")
"""Units of which exports write few decimals (46082.02083 for half past midnight): whole seconds are meant."""
EXCEL: Final = datetime(1899, 12, 30)
"""Day 0 of Excel's days."""
_YEARS: Final = (946_684_800.0, 2_208_988_800.0)
"""Unix times of 2000 and 2040."""
_GREATEST: Final = 2**53
_DOTTED: Final = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T,]+(\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?))?")
"""day.month.year, as it is written in German and other languages; with a time."""
_ROUND: Final = 1_000
"""What milliseconds from a trace's own zero are multiples of, where it counts in whole seconds."""
_LONG: Final = 10**6
"""Seconds from which a trace of such times is said to be one."""
_SHORT: Final = 3_600
"""Seconds below which a trace of times with fractions may count in hours or days."""
Real = NDArray[np.float64]


_DURATION: Final = re.compile(r"(?:(\d+) days?,? +)?(\d+):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?")
"""H:MM, H:MM:SS, or 1 day, H:MM:SS."""


def duration_s(text: str) -> float | None:
    """Seconds of a duration that is written with colons; None for another text."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = found.groups()
    return int(days or 0) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + float(seconds or 0)


class Clock(NamedTuple):
    """How a trace's times are written: ``unit`` of UNITS, or ``iso``; ``dated``: they are points in time. ``note`` says
    so in words."""

    unit: str = "s"
    dated: bool = False
    zone: tzinfo = UTC
    note: str = ""

    def seconds(self, texts: Sequence[str], name: str) -> Real:
        """Times in seconds, NaN if missing; from 1970 if dated. Wrong for one that cannot be."""
        if self.unit == "iso" and name != "lifetime_s":
            return np.array([self._iso(text, name) if text else math.nan for text in texts], np.float64)
        if name == "lifetime_s" and any(duration_s(text) is not None for text in texts if ":" in text):
            return self._lifetimes(texts)
        told = [text or "nan" for text in texts]
        try:
            found = np.fromiter(map(float, told), np.float64, len(told))
        except ValueError:
            found = np.full(len(told), np.inf)
        if np.any(np.abs(found) > _GREATEST * 1e3) or np.count_nonzero(np.isnan(found)) > list(texts).count(""):
            raise Wrong(name, f"is {texts[0][:40]!r}", hint=_hint(texts[0]))
        if name == "lifetime_s" and np.any(found < 0):
            raise Wrong(name, f"is {texts[0][:40]!r}")
        found = found * UNITS.get(self.unit, 1.0)
        if self.unit in _COARSE:
            found = np.round(found)
        if self.unit == "days" and self.dated and name != "lifetime_s":
            found = self._unix(found)
        return found

    def _lifetimes(self, texts: Sequence[str]) -> Real:
        """Lifetimes some of which are written with colons, and are in no unit."""
        found = [duration_s(text) for text in texts]
        plain = self.seconds(
            [text if told is None else "" for text, told in zip(texts, found, strict=True)], "lifetime_s"
        )
        return np.where([told is None for told in found], plain, np.array(found, np.float64))

    def _iso(self, text: str, name: str) -> float:
        try:
            found = _date(text)
        except ValueError:
            raise Wrong(name, f"is {text[:40]!r}", hint=_ISO) from None
        return (found if found.tzinfo is not None else found.replace(tzinfo=self.zone)).timestamp()

    def _unix(self, found: Real) -> Real:
        """Unix times of days of Excel, in seconds: each by the offset that the time zone has in its own hour."""
        naive = found + (EXCEL - datetime(1970, 1, 1)).total_seconds()
        told = ~np.isnan(naive)
        hours, which = np.unique(np.floor(naive[told] / 3600), return_inverse=True)
        offsets = np.array([self._offset_s(hour * 3600) for hour in hours.tolist()], np.float64)
        naive[told] -= offsets[which]
        return naive

    def _offset_s(self, naive_s: float) -> float:
        """What local time is ahead of UTC, at a local time."""
        try:
            offset = datetime.fromtimestamp(naive_s, UTC).replace(tzinfo=self.zone).utcoffset()
        except (ValueError, OverflowError, OSError):
            return 0.0
        return offset.total_seconds() if offset is not None else 0.0


_ISO: Final = "a date of ISO 8601: 2026-03-01T12:00:00+01:00"


def _date(text: str) -> datetime:
    """A date of ISO 8601, also with slashes or UTC in words, or day.month.year. ValueError for another text."""
    dotted = _DOTTED.fullmatch(text.strip())
    if dotted is None:
        plain = re.sub(r"^(\d{4})/(\d{1,2})/(\d{1,2})\b", _slashed, text.strip())
        return datetime.fromisoformat(re.sub(r"\s*(?:UTC|GMT)$", "+00:00", plain))
    day, month, year, hour = dotted.groups()
    return datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}T{hour or '00:00':0>5}")


def _slashed(found: re.Match[str]) -> str:
    return f"{found[1]}-{found[2]:0>2}-{found[3]:0>2}"


def _hint(text: str) -> str | None:
    """What helps where a text is no number: of a date, how it is to be written."""
    if re.match(r"\s*\d{1,4}[/.-]\d{1,2}[/.-]\d{1,4}", text):
        return f"{_ISO}, or day.month.year; day/month and month/day cannot be told apart"
    return None


def zone_of(name: str) -> tzinfo:
    """The time zone. UnknownName for one that is not known."""
    try:
        return ZoneInfo(name) if name and name != "UTC" else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownName(f"unknown time zone {name!r}", field="tz", hint="such as Europe/Berlin or UTC") from None


def clock_of(arrivals: Sequence[str], unit: str = "", tz: str = "") -> Clock:
    """The clock of a trace by its first arrivals; ``unit`` of UNITS or ``iso`` if it is known. UnknownName or
    InvalidValue for what is none, and for a time zone where times are not dates."""
    found = _clock_of(arrivals, unit, tz, zone_of(tz))
    if tz and not found.dated and any(arrivals):
        hint = "--time-unit iso or days for dates"
        raise InvalidValue("times count from the trace's own zero, of which --tz says nothing", field="tz", hint=hint)
    return found


def _clock_of(arrivals: Sequence[str], unit: str, tz: str, zone: tzinfo) -> Clock:
    if unit and unit not in (*UNITS, "iso"):
        raise UnknownName.among("time unit", unit, [*UNITS, "iso"], field="time_unit")
    told = [text for text in arrivals if text]
    if unit == "iso":
        return Clock("iso", True, zone)
    try:
        values = [float(text) for text in told]
    except ValueError:
        if unit:
            raise InvalidValue(f"{told[0][:40]!r} is not a number of {unit}", field="time_unit") from None
        try:
            for text in told[:1]:
                _date(text)
        except ValueError:
            return Clock()
        how = "day.month.year" if _DOTTED.fullmatch(told[0].strip()) else "ISO 8601"
        return Clock(
            "iso", True, zone, f"times are taken for dates ({how}{'' if tz else ', UTC where they name none'})"
        )
    if not values:
        return Clock(unit or "s", False, zone)
    least, most = min(values), max(values)
    if unit:
        return Clock(unit, (unit == "days" and _excel(least, most)) or _dated(least, most, unit), zone)
    for name, words in WORDS.items():
        if _dated(least, most, name):
            return Clock(name, True, zone, f"times are taken for {words} since 1970 (--time-unit for others)")
    if _excel(least, most) and any(value % 1 for value in values):
        where = f", in {tz}" if tz else ", in UTC (--tz for another zone)"
        return Clock("days", True, zone, f"times are taken for days of Excel{where}, lifetimes for days")
    if _excel(least, most) and len(values) > 1:
        return Clock("s", False, zone, "times are taken for seconds (--time-unit days, if they are days of Excel)")
    if most >= _LONG and len(set(values)) > 2 and not any(value % _ROUND for value in values):
        note = "times are taken for seconds, all of which are whole thousands (--time-unit ms for milliseconds)"
        return Clock("s", False, zone, note)
    if most < _SHORT and len(set(values)) > 2 and any(value % 1 for value in values):
        note = f"times are taken for seconds, {least:g} to {most:g} with fractions (--time-unit hours or days)"
        return Clock("s", False, zone, note)
    return Clock("s", False, zone)


def _dated(least: float, most: float, unit: str) -> bool:
    if unit == "days":
        return False
    return _YEARS[0] <= least * UNITS[unit] and most * UNITS[unit] <= _YEARS[1]


def _excel(least: float, most: float) -> bool:
    return least >= 36_526 and most <= 51_501
