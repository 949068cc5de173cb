"""GET /allocation_candidates: the query is checked, candidates are taken as they come, providers summed up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ext.tables import format_uuid
from ..candidates.search import CandidateSearch
from ..candidates.slots import Prepared, prepare
from ..candidates.tree_search import Effort, Way
from ..fleet.fleet import Fleet
from ..request.placement_query import PlacementQuery, RequestGroup
from .answers import Candidates
from .errors import BadRequest
from .names import check_known_traits, check_resources, class_rank, in_order
from .providers import find

Amounts = tuple[tuple[int, int], ...]
"""(resource class index, amount) of one slot."""
NO_CANDIDATES = Candidates(allocation_requests=[], provider_summaries={})


def candidates(
    fleet: Fleet,
    query: PlacementQuery,
    *,
    nested: bool,
    breadth_first: bool,
    preferred: Iterable[str] | None,
    seed: int | tuple[int, ...] | None,
    steps: int | None,
    patience: int | None,
) -> Candidates:
    """See `PlacementModel.allocation_candidates`."""
    effort = Effort(steps, patience=patience)
    if not _is_known(fleet, query, effort):
        return NO_CANDIDATES
    prepared = prepare(fleet, query, lambda name: class_rank(fleet, name))
    preferring = _preferred(fleet, preferred, seed)
    search = CandidateSearch(fleet, prepared, nested=nested, preferred=preferring, effort=effort)
    ways = list(islice(search.ways(breadth_first=breadth_first, expected=query.limit), query.limit))
    if not ways:
        _check_spent(effort)
        return NO_CANDIDATES
    used = _distinct(ways)
    shown = _with_trees(fleet, used) if nested else used
    uuids = _uuids(fleet, shown)
    return Candidates(
        allocation_requests=_requests(fleet, prepared, ways, uuids),
        provider_summaries=_summaries(fleet, shown, uuids),
    )


def _preferred(fleet: Fleet, preferred: Iterable[str] | None, seed: int | tuple[int, ...] | None) -> list[int]:
    """Trees to search first: those of ``preferred`` providers, in order; with a seed the others follow in random
    order."""
    layout = fleet._index.layout()
    trees = [int(layout.tree_of[row]) for row in (find(fleet, uuid) for uuid in preferred or ()) if row >= 0]
    if seed is not None:
        trees += np.random.default_rng(seed).permutation(layout.trees).tolist()
    return trees


def _check_spent(effort: Effort) -> None:
    """BadRequest if the search ended without a result: reporting no candidates could be wrong."""
    if effort.spent:
        raise BadRequest(
            "The search for allocation candidates was given up: too many combinations of providers were tried and none "
            "was found to meet the request.",
            field="query",
            hint="ask for fewer groups at once, or raise the limit candidate_steps",
        )


def _is_known(fleet: Fleet, query: PlacementQuery, effort: Effort) -> bool:
    """False if an earlier group without candidates ends the request before an unknown name is met; BadRequest for an
    unknown name otherwise (Placement looks at one group after the other)."""
    check_known_traits(fleet, query.root_required | query.root_forbidden)
    for number, group in enumerate(query.groups):
        try:
            _check_names(fleet, group)
        except BadRequest:
            if all(_has_some(fleet, query, earlier, effort) for earlier in query.groups[:number]):
                raise
            return False
    return True


def _check_names(fleet: Fleet, group: RequestGroup) -> None:
    check_resources(fleet, group.resources)
    check_known_traits(fleet, group.required.union(group.forbidden, *group.any_of))


def _has_some(fleet: Fleet, query: PlacementQuery, group: RequestGroup, effort: Effort) -> bool:
    alone = prepare(fleet, replace(query, groups=(group,), group_policy=None, same_subtree=()))
    found = next(CandidateSearch(fleet, alone, effort=effort).ways(expected=1), None) is not None
    if not found:
        _check_spent(effort)
    return found


def _distinct(ways: Iterable[Way]) -> NDArray[np.int32]:
    rows = dict.fromkeys(row for way in ways for row in way)
    return np.fromiter(rows, np.int32, len(rows))


def _with_trees(fleet: Fleet, used: NDArray[np.int32]) -> NDArray[np.int32]:
    """All rows of the trees that the rows are in, tree after tree."""
    layout = fleet._index.layout()
    if layout.plain:
        return used
    trees = np.array(list(dict.fromkeys(layout.tree_of[used].tolist())), np.int64)
    starts, lengths = layout.starts[trees], layout.starts[trees + 1] - layout.starts[trees]
    offsets = np.repeat(starts - np.append(0, np.cumsum(lengths)[:-1]), lengths)
    rows: NDArray[np.int32] = layout.rows[offsets + np.arange(len(offsets))]
    return rows


def _uuids(fleet: Fleet, rows: NDArray[np.int32]) -> dict[int, str]:
    columns = fleet._store.row
    words = zip(columns["uuid_hi"][rows].tolist(), columns["uuid_lo"][rows].tolist(), strict=True)
    return dict(zip(rows.tolist(), (format_uuid(high, low) for high, low in words), strict=True))


def _requests(fleet: Fleet, prepared: Prepared, ways: Sequence[Way], uuids: dict[int, str]) -> list[dict[str, Any]]:
    """The allocation requests. What equal slots take of one provider is one value, shared by all of them."""
    slots, names = prepared.slots, fleet.resource_classes
    rank = {index: class_rank(fleet, names[index]) for slot in slots for index, _ in slot.amounts}
    order = sorted(rank, key=lambda index: rank[index])
    everything = {"resources": _summed(order, names, tuple(slot.amounts for slot in slots))}
    suffixes = list(dict.fromkeys(slot.suffix for slot in slots))
    one_each = len(suffixes) == len(slots)
    known: dict[tuple[Amounts, ...], dict[str, dict[str, int]]] = {}
    requests: list[dict[str, Any]] = []
    for way in ways:
        first = way[0]
        if way.count(first) == len(way):
            uuid = uuids[first]
            requests.append({"allocations": {uuid: everything}, "mappings": {suffix: [uuid] for suffix in suffixes}})
            continue
        parts: dict[str, tuple[Amounts, ...]] = {}
        providers = [uuids[row] for row in way]
        for uuid, slot in zip(providers, slots, strict=True):
            if slot.amounts:
                parts[uuid] = (*parts[uuid], slot.amounts) if uuid in parts else (slot.amounts,)
        allocations = {}
        for uuid, amounts in parts.items():
            shared = known.get(amounts)
            if shared is None:
                shared = known[amounts] = {"resources": _summed(order, names, amounts)}
            allocations[uuid] = shared
        if one_each:
            mappings = {suffix: [uuid] for suffix, uuid in zip(suffixes, providers, strict=True)}
        else:
            mapped: dict[str, dict[str, None]] = {suffix: {} for suffix in suffixes}
            for uuid, slot in zip(providers, slots, strict=True):
                mapped[slot.suffix][uuid] = None
            mappings = {suffix: list(found) for suffix, found in mapped.items()}
        requests.append({"allocations": allocations, "mappings": mappings})
    return requests


def _summed(order: list[int], names: list[str], parts: tuple[Amounts, ...]) -> dict[str, int]:
    sums: dict[int, int] = {}
    for amounts in parts:
        for index, amount in amounts:
            sums[index] = sums.get(index, 0) + amount
    return {names[index]: sums[index] for index in order if index in sums}


def _summaries(fleet: Fleet, rows: NDArray[np.int32], uuids: dict[int, str]) -> dict[str, dict[str, Any]]:
    resources = _resources(fleet, rows)
    columns = fleet._store.row
    numbers = columns["class_of"][rows].tolist()
    known = {number: in_order(fleet, fleet._classes[number].traits) for number in dict.fromkeys(numbers)}
    traits = [known[number] for number in numbers]
    texts = uuids.values()
    parents, roots = columns["parent"][rows].tolist(), columns["root"][rows].tolist()
    named = {**uuids, -1: None}
    for row in {*parents, *roots} - named.keys():
        named[row] = fleet.uuid(row)
    return {
        uuid: {
            "resources": resource,
            "traits": trait,
            "parent_provider_uuid": named[parent],
            "root_provider_uuid": named[root],
        }
        for uuid, resource, trait, parent, root in zip(texts, resources, traits, parents, roots, strict=True)
    }


def _resources(fleet: Fleet, rows: NDArray[np.int32]) -> list[dict[str, dict[str, int]]]:
    """By row: {resource class: capacity and what is used}, classes in Placement's order."""
    blocks, ratio = fleet._store.inventory, fleet._store.ratio
    resources: list[dict[str, dict[str, int]]] = [{} for _ in range(len(rows))]
    names = fleet.resource_classes
    for index in sorted(range(len(names)), key=lambda index: class_rank(fleet, names[index])):
        total = blocks["total"][index, rows]
        held = np.flatnonzero(total)
        if len(held) == 0:
            continue
        name, there = names[index], rows[held]
        capacity = ((total[held] - blocks["reserved"][index, there]) * ratio[index, there]).astype(np.int64)
        figures = zip(capacity.tolist(), blocks["used"][index, there].tolist(), strict=True)
        if len(held) == len(rows):
            for resource, (room, used) in zip(resources, figures, strict=True):
                resource[name] = {"capacity": room, "used": used}
        else:
            for place, (room, used) in zip(held.tolist(), figures, strict=True):
                resources[place][name] = {"capacity": room, "used": used}
    return resources
