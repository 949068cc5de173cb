"""Reports of hosts as columns, the form in which the journal and the network carry thousands of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, get_type_hints

import msgspec

from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.from_builtins import from_msgspec, from_plain, refuse_unknown
from ...placement.types.host import Host
from ...placement.types.host_report import HostReport
from ..engine_commands import ReportHosts

_OF_REPORT: Final = ("at", "includes", "service", "inventories")
_FIELDS: Final[dict[str, Any]] = {
    **get_type_hints(Host),
    **{name: get_type_hints(HostReport)[name] for name in _OF_REPORT},
}
"""Columns of reports, with the types of their values."""
_NESTED: Final = frozenset({"aggregates", "service", "numa_topology", "pci_pools"})
"""Columns whose values have fields of their own."""


def reports_of(command: ReportHosts, now: float) -> tuple[HostReport, ...]:
    """Reports out of columns. InvalidValue or UnknownName for fields that a report does not have. O(hosts)."""
    each, same = command.each, command.same
    lengths = {len(column) for column in each.values()}
    if len(lengths) > 1:
        raise InvalidValue(f"columns are of different lengths: {sorted(lengths)}", field="each")
    twice = sorted(each.keys() & same.keys())
    if twice:
        raise InvalidValue(f"{twice[0]} is given for each and for all", field="same")
    for name in (*each, *same):
        if name not in _FIELDS:
            raise UnknownName.among("field", name, _FIELDS)
    for name in sorted(_NESTED & each.keys()):
        refuse_unknown(each[name], tuple[_FIELDS[name], ...], f"each.{name}")  # type: ignore[valid-type]  # a type made of a field's
    for name in sorted(_NESTED & same.keys()):
        refuse_unknown(same[name], _FIELDS[name], f"same.{name}")
    lines = []
    for values in zip(*each.values(), strict=True):
        own: Iterable[tuple[str, Any]] = zip(each, values, strict=True)
        lines.append(same | dict(own))
    try:
        return msgspec.convert(_nested(lines, now), tuple[HostReport, ...])
    except msgspec.ValidationError as error:
        raise from_msgspec(error, "reports") from None


def read_reports(lines: Iterable[Mapping[str, Any]], now: float) -> tuple[HostReport, ...]:
    """Reports out of plain values: the fields of a Host, and beside them those of the report. InvalidValue or
    UnknownName for what no report has. O(hosts)."""
    return from_plain(_nested(lines, now), tuple[HostReport, ...], "reports")


def _nested(lines: Iterable[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
    """Fields of reports, with those of their hosts within."""
    found: list[dict[str, Any]] = []
    for line in lines:
        host = dict[str, Any](line)
        report: dict[str, Any] = {"at": now}
        for name in _OF_REPORT:
            if name in host:
                report[name] = host.pop(name)
        report["host"] = host
        found.append(report)
    return found


def columns_of(reports: Iterable[HostReport]) -> ReportHosts:
    """Reports as they are sent: columns, and what all have alike once; defaults are left out. O(hosts)."""
    given = list(reports)
    columns = {
        **_columns([report.host for report in given], _HOST_FIELDS, _HOST),
        **_columns(given, _OF_REPORT, _REPORT),
    }
    same = {name: column[0] for name, column in columns.items() if column.count(column[0]) == len(column)}
    if len(given) < 2 or len(same) == len(columns):
        same = {}
    return ReportHosts(each={name: column for name, column in columns.items() if name not in same}, same=same)


def _columns(values: Sequence[Host | HostReport], names: Iterable[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by name, but for those that are the default in all."""
    found: dict[str, list[Any]] = {}
    for name in names:
        column = list(map(attrgetter(name), values))
        if name not in defaults or column.count(defaults[name]) < len(column):
            found[name] = column
    return found


def _defaults(kind: type[Host | HostReport]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


_HOST_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Host))
_HOST: Final = _defaults(Host)
_REPORT: Final = _defaults(HostReport)
