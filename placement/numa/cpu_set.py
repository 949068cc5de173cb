"""CPU lists as Nova writes them: ``0-3,^2,8`` (Nova 33 hardware.py CPU set specification)."""

from __future__ import annotations

from ..types.errors import InvalidValue

_MOST = 1 << 16  # a longer range is a typing error, and would exhaust memory


def parse(text: str, *, field: str) -> frozenset[int]:
    """The CPUs listed in ``text``: single CPUs and ranges, without those after a ``^``. InvalidValue names
    ``field``."""
    named: set[int] = set()
    left_out: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        target = left_out if part.startswith("^") else named
        target.update(_range(part.removeprefix("^"), part, field))
    return frozenset(named - left_out)


def _range(text: str, part: str, field: str) -> range:
    first, dash, last = text.partition("-")
    try:
        start = int(first)
        end = int(last) if dash else start
    except ValueError:
        start, end = 0, -1
    if not 0 <= start <= end <= start + _MOST:
        raise InvalidValue(f"{part[:100]!r} names no CPUs", field=field, hint="write CPUs like 0-3,^2,8")
    return range(start, end + 1)
