"""What would change an answer: another winner without some weigher, and what alone keeps hosts out."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ....ext.near_misses import Rules
from ...fleet.columns import COLUMN
from ...request.host_selection import names_hosts, selected, skips_filters
from ...types.decision import Counterfactual, CounterfactualCode
from ..scan import Ranked, Scan
from ..signature import AGGREGATES, CANDIDATES, CELL, COMPUTE_STATUS, SELECTION, TRAITS, Stage
from .empty import among, by_row, suits_units
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
_NAMED: Final = Stage(300, SELECTION)
"""The hosts that the request names, as a stage behind the others."""
_ENABLED: Final = Stage(301, COMPUTE_STATUS)
"""Services that are enabled, as a stage behind the others."""


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


def near_misses(scan: Scan, considered: Rows | None = None) -> list[Counterfactual]:
    """Stages that alone keep hosts out, with how much is lacking: what is easiest to change first, and of that what
    most hosts lack. Where no host passes and no stage stands alone, the host that fewest refuse. ``considered``:
    ascending rows; None: all hosts. The caches of the scan's signature are fresh. O(stages * hosts) in the kernel."""
    spec = scan.request.spec
    skipped, named = skips_filters(spec), names_hosts(spec)
    found = _rules(scan, considered, skipped=skipped, named=named).find()
    _, _, least, nearest, alone, shorts = found
    if named and skipped and _NAMED.number in alone:
        # Without the names the filters are not skipped.
        others = _not_named(scan, considered)
        passing, first, *_ = _rules(scan, others, skipped=False, named=False).find()
        alone[_NAMED.number] = passing, first
    stages = (*scan.signature.stages[1:], _NAMED, _ENABLED)
    said: list[tuple[int, int, Counterfactual]] = []
    for stage in stages:
        hosts, first = alone.get(stage.number, (0, -1))
        if hosts:
            changes = _missing(scan, stage, hosts, first, shorts.get(stage.number))
            said += [(ease, -change.hosts, change) for ease, change in changes]
    if not said and least > 1:
        row = np.array([nearest], np.int32)
        refusing = [stage for stage, fails in _failing(scan, row, skipped=skipped).items() if fails[0]]
        return [_nearest(scan, nearest, refusing)]
    return [change for _, _, change in sorted(said, key=lambda each: (each[0], each[1], each[2].text))]


def _rules(scan: Scan, considered: Rows | None, *, skipped: bool, named: bool) -> Rules:
    """The stages of a request as rules of the kernel, which are kept if they judge all hosts by what is compiled alone.
    ``skipped``: without its filters; ``named``: with its names."""
    signature = scan.signature
    selecting = [] if skipped else [stage for stage in scan.selections if scan.selects(stage)]
    words, kinds = signature.class_words(skipped=skipped), signature.disabled_kinds()
    if considered is not None or named or selecting:
        return _made_rules(scan, words, kinds, considered, selecting, skipped=skipped, named=named)
    rules = scan.context.compiled.kept_rules.find(
        signature,
        "candidates" if skipped else "all",
        words,
        kinds,
        lambda: _made_rules(scan, words, kinds, None, [], skipped=skipped, named=False),
    )
    rules.set_time(*_clock(scan), scan.fleet._services.beats)
    return rules


def _made_rules(
    scan: Scan,
    words: NDArray[np.int64],
    kinds: NDArray[np.uint8] | None,
    considered: Rows | None,
    selecting: list[Stage],
    *,
    skipped: bool,
    named: bool,
) -> Rules:
    fleet, signature = scan.fleet, scan.signature
    last = signature.last_candidate_stage if skipped else len(signature.stages)
    masks = [(cache.array, stage.number) for stage, cache in signature.row_judges if stage.number <= last]
    every = np.arange(fleet.rows if named or selecting else 0, dtype=np.int32)
    if named:
        masks.append((by_row(fleet, selected(fleet, scan.request.spec, every)), _NAMED.number))
    masks += [(by_row(fleet, scan.selection_passes(stage, every)), stage.number) for stage in selecting]
    split = None
    compute = next((stage for stage in signature.stages[1 : last + 1] if stage.name == COMPUTE_FILTER), None)
    if compute is not None and kinds is not None:
        # Without the filter a disabled service is refused by Placement's side of the request. One that would not be up
        # if it were enabled is kept out by two things (Nova 33, servicegroup db driver).
        split = compute.number, kinds, _ENABLED.number, COLUMN["last_seen_up"], *_clock(scan)
    return Rules(
        fleet._kernel,
        words,
        signature.needs,
        [bound for bound in signature.bounds if bound[3] <= last],
        masks,
        None if considered is None else among(fleet, considered),
        split,
    )


def _clock(scan: Scan) -> tuple[float, float]:
    """The time, NaN if none was given, and after how many seconds without a heartbeat a service counts as down."""
    now = scan.fleet.now
    return np.nan if now is None else now, scan.fleet.service_down_time


def _not_named(scan: Scan, considered: Rows | None) -> Rows:
    """The rows that the request's names leave out."""
    rows = np.arange(scan.fleet.rows, dtype=np.int32) if considered is None else considered
    left_out: Rows = rows[~selected(scan.fleet, scan.request.spec, rows)]
    return left_out


# what each stage says by itself


def _failing(scan: Scan, rows: Rows, *, skipped: bool) -> dict[Stage, Mask]:
    """Whether each stage refuses each of ``rows``, independently of the others."""
    spec = scan.request.spec
    failing = _candidates_fail(scan, rows)
    if names_hosts(spec):
        failing[_NAMED] = ~selected(scan.fleet, spec, rows)
    return failing if skipped else failing | _filters_fail(scan, rows)


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
        within = (low <= values) & (values <= high)  # NaN is not
        failing[stage] = failing.get(stage, np.zeros(len(rows), bool)) | ~within
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


def _missing(
    scan: Scan, stage: Stage, hosts: int, first: int, shorts: tuple[tuple[int, int, int], ...] | None
) -> list[tuple[int, Counterfactual]]:
    """What keeps ``hosts`` hosts out, as only ``stage`` does: those that lack the same in one change. The least number
    is easiest to change. ``first``: row of one of them; ``shorts``: of a resource class, as the kernel has them."""
    fleet = scan.fleet
    index = scan.signature.resource_of(stage)
    if index is None or shorts is None:
        named = stage is _NAMED
        text = f"{_hosts(hosts)} would pass {_WITHOUT.get(stage.name, f'without {stage.name}')}"
        code: CounterfactualCode = "names" if named else "stage"
        ease = _NAMES if named else _RULE
        host = fleet.name(first)
        return [(ease, Counterfactual(code=code, text=text, stage=stage.name, hosts=hosts, host=host))]
    amount, name = scan.signature.resources[index], fleet.resource_classes[index]
    unit = UNITS.get(name, "")

    def change(code: CounterfactualCode, text: str, short: tuple[int, int, int]) -> Counterfactual:
        count, row, nearest = short
        return Counterfactual(
            code=code, text=text, stage=stage.name, hosts=count, host=fleet.name(row), resource=name, asked=amount,
            nearest=nearest, cut=amount - nearest,
        )  # fmt: skip

    room, units, size = shorts
    said = []
    if room[0]:
        verb = "lacks" if room[0] == 1 else "lack"
        text = f"{_hosts(room[0])} {verb} only {name}, the nearest {amount - room[2]}{unit}"
        said.append((_ROOM, change("room", text, room)))
    if units[0]:
        text = f"{_hosts(units[0])} would pass but for the unit rules of {name}"
        said.append((_UNITS, change("unit_rules", text, units)))
    if size[0]:
        verb = "is" if size[0] == 1 else "are"
        text = (
            f"{_hosts(size[0])} {verb} too small in {name} alone: {amount}{unit} asked for, "
            f"at most {size[2]}{unit} a guest"
        )
        said.append((_SIZE, change("size", text, size)))
    return said


def _nearest(scan: Scan, row: int, stages: list[Stage]) -> Counterfactual:
    """The host that fewest stages refuse, and all that would have to change."""
    reasons, host = Reasons(scan), scan.fleet.name(row)
    found = [reasons.of_selection(row) if stage is _NAMED else reasons.of_stage(stage, row) for stage in stages]
    text = f"no host lacks one thing only; the nearest is {host}: {'; '.join(each.text for each in found)}"
    return Counterfactual(code="nearest", text=text, stage=stages[0].name, hosts=1, host=host)


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"
