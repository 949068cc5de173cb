"""What would change an answer: another winner without some weigher, and what alone keeps hosts out."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...fleet.host_view import HostView
from ...request.host_selection import names_hosts, selected
from ...types.decision import Counterfactual, CounterfactualCode
from ..scan import Ranked, Scan
from ..signature import AGGREGATES, CANDIDATES, CELL, COMPUTE_STATUS, SELECTION, TRAITS, Stage
from .empty import suits_units
from .reasons import COMPUTE_FILTER, UNITS, Reasons

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]

_ROOM, _UNITS, _RULE, _SIZE, _NAMES = range(5)
"""What is to change, the easiest first."""
_WITHOUT: Final = {
    CELL: "in any cell",
    COMPUTE_STATUS: "with their compute services enabled",
    TRAITS: "without the traits asked for",
    AGGREGATES: "without the aggregates asked for",
    CANDIDATES: "with an allocation candidate in their provider trees",
    SELECTION: "if the request named no hosts",
}
_ENABLED: Final = Stage(-2, COMPUTE_STATUS)
"""Services that are enabled, as a stage among the others."""
_NAMED: Final = Stage(-1, SELECTION)
"""The hosts that the request names, as a stage among the others."""


def without_weighers(scan: Scan, ranked: Ranked) -> list[Counterfactual]:
    """For each weigher the host that would win without it, if it is another: the sum is recomputed, ties by row.
    O(weighers^2 * hosts that pass)."""
    rows = ranked.rows
    if len(rows) < 2:
        return []
    columns = ranked.signature.ranking.parts(rows, scan.members(rows))
    said = []
    names = ranked.signature.weigher_names
    for left_out in dict.fromkeys(names):
        total = np.zeros(len(rows))
        for name, (_, normalised, multiplier) in zip(names, columns, strict=True):
            if name != left_out:
                total += multiplier * normalised
        winner = int(rows[total == total.max()].min())
        if winner != rows[0]:
            host = scan.fleet.name(winner)
            text = f"without {left_out} host {host} wins"
            said.append(Counterfactual(code="weigher", text=text, hosts=1, host=host, weigher=left_out))
    return said


def near_misses(scan: Scan, ranked: Ranked) -> list[Counterfactual]:
    """Stages that alone keep hosts out, with how much is lacking: what is easiest to change first, and of that what
    most hosts lack. Where no host passes and no stage stands alone, the host that fewest refuse. O(stages * hosts)."""
    rows = ranked.considered
    failing = _failing(scan, ranked)
    if not failing or not len(rows):
        return []
    count = np.sum(list(failing.values()), axis=0)
    disabled, more = _disabled(scan, rows, failing)
    count += more
    said: list[tuple[int, int, Counterfactual]] = []
    for stage, fails in failing.items():
        alone = rows[fails & (count == 1)]
        if stage is _NAMED and ranked.filters_skipped:
            # Without the names the filters are not skipped.
            refused = [*_filters_fail(scan, alone).values(), np.zeros(len(alone), bool)]
            alone = alone[~np.any(refused, axis=0)]
        if stage.name == COMPUTE_FILTER:
            # Without the filter a disabled service is refused by Placement's side of the request.
            to_enable = alone[np.isin(alone, rows[disabled])]
            said += [(ease, -change.hosts, change) for ease, change in _missing(scan, _ENABLED, to_enable)]
            alone = alone[~np.isin(alone, to_enable)]
        said += [(ease, -change.hosts, change) for ease, change in _missing(scan, stage, alone)]
    if not said and count.min() > 1:
        at = int(np.argmin(count))
        return [_nearest(scan, int(rows[at]), [stage for stage, fails in failing.items() if fails[at]])]
    return [change for _, _, change in sorted(said, key=lambda each: (each[0], each[1], each[2].text))]


def _disabled(scan: Scan, rows: Rows, failing: dict[Stage, Mask]) -> tuple[Mask, NDArray[np.int64]]:
    """Which rows ComputeFilter refuses for a disabled service, and 1 for each of them that would not be up if it were
    enabled: two things keep it out."""
    disabled, more = np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
    for stage, fails in failing.items():
        if stage.name == COMPUTE_FILTER:
            for at in np.flatnonzero(fails).tolist():
                if scan.fleet._host_class(int(rows[at])).disabled:
                    disabled[at] = True
                    more[at] = not _is_up_if_enabled(scan, int(rows[at]))
    return disabled, more


def _is_up_if_enabled(scan: Scan, row: int) -> bool:
    """Whether a disabled compute service would be up if it were enabled (Nova 33, servicegroup db driver)."""
    service, now = HostView(scan.fleet, row).service, scan.fleet.now
    if service.forced_down or now is None or service.last_seen_up is None:
        return not service.forced_down
    return abs(now - service.last_seen_up) <= scan.fleet.service_down_time


# what each stage says by itself


def _failing(scan: Scan, ranked: Ranked) -> dict[Stage, Mask]:
    """Whether each stage refuses each considered row, independently of the others."""
    rows, spec = ranked.considered, scan.request.spec
    failing = _candidates_fail(scan, rows)
    if names_hosts(spec):
        failing[_NAMED] = ~selected(scan.fleet, spec, rows)
    return failing if ranked.filters_skipped else failing | _filters_fail(scan, rows)


def _candidates_fail(scan: Scan, rows: Rows) -> dict[Stage, Mask]:
    """Of Placement's side of the request: cell, traits, aggregates, resource classes or allocation candidates."""
    fleet, signature = scan.fleet, scan.signature
    failing = {stage: mask for stage, mask in _judged(scan, rows) if stage.filter is None}
    inventory = fleet._store.inventory
    for index, amount, number, units in signature.needs:
        fits = inventory["avail"][index, rows] >= amount
        if units:
            fits &= suits_units(scan, index, rows)
        failing[signature.stages[number]] = ~fits
    return dict(sorted(failing.items(), key=_number))


def _filters_fail(scan: Scan, rows: Rows) -> dict[Stage, Mask]:
    fleet, signature = scan.fleet, scan.signature
    failing = {stage: mask for stage, mask in _judged(scan, rows) if stage.filter is not None}
    for column, low, high, number in signature.bounds:
        values, stage = fleet._store.host[column, rows], signature.stages[number]
        failing[stage] = failing.get(stage, np.zeros(len(rows), bool)) | (values < low) | (values > high)
    for stage in scan.selections:
        failing[stage] = ~scan.selection_passes(stage, rows)
    return dict(sorted(failing.items(), key=_number))


def _judged(scan: Scan, rows: Rows) -> list[tuple[Stage, Mask]]:
    """Stages with results by host class or by row, and the rows they refuse."""
    signature = scan.signature
    class_of = scan.fleet._store.row["class_of"][rows]
    by_class = [(signature.stages[number], ~passes[class_of]) for number, passes in signature.class_results().items()]
    return by_class + [(stage, cache.array[rows] == 0) for stage, cache in signature.row_judges]


def _number(item: tuple[Stage, Mask]) -> int:
    return item[0].number


# in words


def _missing(scan: Scan, stage: Stage, rows: Rows) -> list[tuple[int, Counterfactual]]:
    """What keeps the hosts at ``rows`` out, as only ``stage`` does: hosts that lack the same in one change. The least
    number is easiest to change."""
    if not len(rows):
        return []
    index = scan.signature.resource_of(stage)
    if index is None:
        named = stage is _NAMED
        text = f"{_hosts(rows)} would pass {_WITHOUT.get(stage.name, f'without {stage.name}')}"
        host = scan.fleet.name(int(rows[0]))
        code: CounterfactualCode = "names" if named else "stage"
        ease = _NAMES if named else _RULE
        return [(ease, Counterfactual(code=code, text=text, stage=stage.name, hosts=len(rows), host=host))]
    fleet, amount = scan.fleet, scan.signature.resources[index]
    inventory, name = fleet._store.inventory, fleet.resource_classes[index]
    unit, suits = UNITS.get(name, ""), suits_units(scan, index, rows)
    left = inventory["limit"][index, rows] - inventory["used"][index, rows]
    lack = amount - left

    def change(code: CounterfactualCode, of: Rows, text: str, host: int, nearest: int) -> Counterfactual:
        node, cut = fleet.name(host), amount - nearest
        return Counterfactual(
            code=code, text=text, stage=stage.name, hosts=len(of), host=node, resource=name, asked=amount,
            nearest=nearest, cut=cut,
        )  # fmt: skip

    said = []
    if suits.any():
        short, at = rows[suits], int(np.argmin(lack[suits]))
        verb = "lacks" if len(short) == 1 else "lack"
        text = f"{_hosts(short)} {verb} only {name}, the nearest {int(lack[suits].min())}{unit}"
        said.append((_ROOM, change("room", short, text, int(short[at]), int(left[suits][at]))))
    odd, both = rows[~suits & (lack <= 0)], rows[~suits & (lack > 0)]
    if len(odd):
        text = f"{_hosts(odd)} would pass but for the unit rules of {name}"
        nearest = [_allowed(scan, index, int(row)) for row in odd.tolist()]
        at = int(np.argmax(nearest))
        said.append((_UNITS, change("unit_rules", odd, text, int(odd[at]), nearest[at])))
    if len(both):
        verb, most = "is" if len(both) == 1 else "are", inventory["max_unit"][index, both]
        at = int(np.argmax(most))
        text = (
            f"{_hosts(both)} {verb} too small in {name} alone: {amount}{unit} asked for, "
            f"at most {int(most[at])}{unit} a guest"
        )
        said.append((_SIZE, change("size", both, text, int(both[at]), int(most[at]))))
    return said


def _allowed(scan: Scan, index: int, row: int) -> int:
    """The greatest amount up to the one asked for that a row's unit rules allow; its least one where there is none."""
    inventory, amount = scan.fleet._store.inventory, scan.signature.resources[index]
    step, least = max(int(inventory["step_size"][index, row]), 1), int(inventory["min_unit"][index, row])
    most = min(amount, int(inventory["max_unit"][index, row])) // step * step
    return most if most >= least else -(-least // step) * step


def _nearest(scan: Scan, row: int, stages: list[Stage]) -> Counterfactual:
    """The host that fewest stages refuse, and all that would have to change."""
    reasons, host = Reasons(scan), scan.fleet.name(row)
    found = [reasons.of_selection(row) if stage is _NAMED else reasons.of_stage(stage, row) for stage in stages]
    text = f"no host lacks one thing only; the nearest is {host}: {'; '.join(each.text for each in found)}"
    return Counterfactual(code="nearest", text=text, stage=stages[0].name, hosts=1, host=host)


def _hosts(rows: Rows) -> str:
    return "1 host" if len(rows) == 1 else f"{len(rows)} hosts"
