"""Allocation candidates of one provider tree: which providers can give what a query asks for, generated lazily in a
fixed order.

Order: classes in the query's order, providers of a class in row order with the tree before sharing providers; granular
groups in the query's order. Source: Placement allocation candidates (resources, traits, member_of, granular groups,
group_policy, sharing).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .demands import membership_passes, root_allows, traits_pass
from .fleet import Fleet
from .query import PlacementQuery, RequestGroup

Amounts = dict[int, dict[int, int]]
"""row -> resource class index -> amount."""


def candidates(fleet: Fleet, root: int, query: PlacementQuery) -> Iterator[Amounts]:
    """Ways to answer ``query`` in the tree of ``root``, best-first is not their concern. Each step costs one product
    step."""
    yield from _of_query(fleet, root, query)
    if query.fallback is not None:
        yield from _of_query(fleet, root, query.fallback)


def first_candidate(fleet: Fleet, root: int, query: PlacementQuery) -> Amounts | None:
    """The first of ``candidates``, None if there is none."""
    return next(candidates(fleet, root, query), None)


def _of_query(fleet: Fleet, root: int, query: PlacementQuery) -> Iterator[Amounts]:
    group, granular = query.unsuffixed, tuple(each for each in query.groups if each.suffix)
    if not root_allows(query, fleet.host_class(root).traits):
        return
    if group.in_tree is not None and not _in_tree(fleet, root, group.in_tree):
        return
    tree, sharing = fleet.tree(root), _sharing(fleet, root)
    choices = [list(_granular(fleet, tree, sharing, each)) for each in granular]
    if not all(choices):
        return
    wanted = [(_indices(fleet, each.resources), rows) for each, rows in zip(granular, choices, strict=True)]
    for plain in _unsuffixed(fleet, root, tree, sharing, group):
        yield from _assigned(fleet, wanted, plain, query.group_policy == "isolate", ())


def _in_tree(fleet: Fleet, root: int, uuid: str) -> bool:
    return any(fleet.uuid(row) == uuid for row in fleet.tree(root))


def _sharing(fleet: Fleet, root: int) -> list[int]:
    """Sharing providers outside the tree that are in an aggregate with some provider of it."""
    tree = fleet.tree(root)
    mine = {aggregate for row in tree for aggregate in fleet.host_class(row).aggregates}
    shared = [row for row in fleet.sharing_providers() if mine & set(fleet.host_class(row).aggregates)]
    return [row for row in shared if row not in tree]


def _aggregates(fleet: Fleet, row: int) -> frozenset[str]:
    return frozenset(fleet.aggregates[index].uuid for index in fleet.host_class(row).aggregates)


def _indices(fleet: Fleet, resources: tuple[tuple[str, int], ...]) -> dict[int, int]:
    return {fleet.resource_class(name, create=True): amount for name, amount in resources}


def _unsuffixed(fleet: Fleet, root: int, tree: list[int], sharing: list[int], group: RequestGroup) -> Iterator[Amounts]:
    """Each class from any provider of the tree or a sharing one; traits are collective, membership is the provider's
    or the root's, a sharing provider's its own."""
    anchor = _aggregates(fleet, root)
    wanted = _indices(fleet, group.resources)
    options = []
    for resource, amount in wanted.items():
        able = [row for row in tree if fleet.fits_row(row, {resource: amount})]
        able = [row for row in able if _is_member(fleet, row, anchor, group)]
        if group.in_tree is None:
            serving = [row for row in sharing if fleet.fits_row(row, {resource: amount})]
            able += [row for row in serving if all(term & _aggregates(fleet, row) for term in group.member_of)]
        options.append([row for row in able if _is_no_outcast(fleet, row, anchor, group)])
    for rows in itertools.product(*options):
        traits = (
            frozenset().union(*(fleet.host_class(row).traits for row in rows))
            if rows
            else fleet.host_class(root).traits
        )
        if not traits_pass(group, traits):
            continue
        amounts: Amounts = {}
        for row, (resource, amount) in zip(rows, wanted.items(), strict=True):
            amounts.setdefault(row, {})[resource] = amount
        yield amounts


def _is_member(fleet: Fleet, row: int, anchor: frozenset[str], group: RequestGroup) -> bool:
    """A provider of the tree is in the aggregates asked for if it is in all of them, or its root is."""
    own = _aggregates(fleet, row)
    return all(term & own for term in group.member_of) or all(term & anchor for term in group.member_of)


def _is_no_outcast(fleet: Fleet, row: int, anchor: frozenset[str], group: RequestGroup) -> bool:
    """Neither a provider nor the root that it serves may be in a forbidden aggregate."""
    return not group.forbidden_aggregates & (_aggregates(fleet, row) | anchor)


def _granular(fleet: Fleet, tree: list[int], sharing: list[int], group: RequestGroup) -> Iterator[int]:
    """One provider that gives everything of a suffixed group."""
    wanted = _indices(fleet, group.resources)
    for row in (*tree, *sharing):
        if not traits_pass(group, fleet.host_class(row).traits) or not membership_passes(
            group, _aggregates(fleet, row)
        ):
            continue
        if group.in_tree is not None and not _in_tree(fleet, int(fleet.store.row["root"][row]), group.in_tree):
            continue
        if fleet.fits_row(row, wanted):
            yield row


def _assigned(
    fleet: Fleet, wanted: list[tuple[dict[int, int], list[int]]], taken: Amounts, isolate: bool, rows: tuple[int, ...]
) -> Iterator[Amounts]:
    """Each way to serve the granular groups after the first ``len(rows)``, beside what is ``taken``. ``wanted`` holds
    the amounts and the possible providers of each group; ``isolate``: of different groups they differ."""
    if len(rows) == len(wanted):
        yield taken
        return
    amounts, able = wanted[len(rows)]
    first = 0
    if rows and wanted[len(rows) - 1] == (amounts, able):
        # Groups that ask the same are served in order: any other order is the same allocation.
        first = able.index(rows[-1])
    for row in able[first:]:
        if not (isolate and row in rows):
            merged = _with(fleet, taken, row, amounts)
            if merged is not None:
                yield from _assigned(fleet, wanted, merged, isolate, (*rows, row))


def _with(fleet: Fleet, taken: Amounts, row: int, amounts: dict[int, int]) -> Amounts | None:
    """``taken`` and ``amounts`` of ``row``; None if it can't give the sum."""
    avail, mine = fleet.store.inventory["avail"], dict(taken.get(row, {}))
    for resource, amount in amounts.items():
        mine[resource] = mine.get(resource, 0) + amount
        if avail[resource, row] < mine[resource]:
            return None
    return {**taken, row: mine}
