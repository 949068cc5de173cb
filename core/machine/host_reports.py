"""Reports of many hosts on the service's state, taken in some at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Final

import msgspec

from ...placement.load.reports import FEW, expiring_in_steps
from ...placement.load.reports_in_steps import report_hosts_in_steps
from ...placement.types.errors import HostlerError
from ...placement.types.host_report import HostReport, Reported
from ...placement.types.steps import in_pieces
from ..engine_commands import ReportHosts
from . import arrivals
from .doubled import arrived
from .orders import REPORTS_BY_UUID
from .report_columns import reports_of
from .state import ServiceState

READ: Final = 500
"""Reports that are looked through in one step."""


def report_hosts(state: ServiceState, command: ReportHosts, now: float) -> Generator[None, None, Reported]:
    """Take in reports of hosts, in steps; claims that no report has had for too long are released, in the usage as
    well. Hosts stay in their resource pools."""
    reports = yield from _read(command, now)
    timeout, by_uuid = command.claim_timeout, state.rules >= REPORTS_BY_UUID
    late = yield from expiring_in_steps(state.fleet, reports, claim_timeout=timeout, by_uuid=by_uuid)
    held = [state.holding(uuid) for uuid in late]
    given: list[HostReport] = []
    come: list[str] = []
    for some in in_pieces(reports, READ):
        come += arrivals.unknown(state, [report.host for report in some])
        given += map(state.with_pools, some)
        yield
    taken_in = report_hosts_in_steps(state.fleet, given, claim_timeout=timeout)
    reported = yield from arrivals.charged(state, taken_in, come)
    for project, amounts in held:
        state.usage.add(state.tenants, project, amounts, -1)
    state.requests.forget(late)
    if state.holds:
        # A host that has a guest shows that the hold was taken up.
        state.holds.end((*late, *(uuid for report in reports for uuid in _included(report))))
    if state.requests.doubled:
        for report in reports:
            arrived(state.requests.doubled, report.host.nodename or report.host.host, report.host.instances)
    return reported


def _read(command: ReportHosts, now: float) -> Generator[None, None, Sequence[HostReport]]:
    """The reports of a command, read in steps. InvalidValue or UnknownName as from ``reports_of``."""
    lengths = {len(column) for column in command.each.values()}
    if len(lengths) != 1 or max(lengths) <= FEW:
        return reports_of(command, now)
    found: list[HostReport] = []
    for positions in in_pieces(range(max(lengths)), FEW):
        each = {name: column[positions[0] : positions[-1] + 1] for name, column in command.each.items()}
        try:
            found += reports_of(msgspec.structs.replace(command, each=each), now)
        except HostlerError:
            return reports_of(command, now)  # which says where
        yield
    return found


def _included(report: HostReport) -> Iterable[str]:
    """Uuids of the guests that a report counts."""
    return report.includes if report.includes is not None else report.host.instances
