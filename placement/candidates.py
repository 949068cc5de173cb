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
    if group.in_tree is not None and fleet.uuid(root) != group.in_tree and not _in_tree(fleet, root, group.in_tree):
        return
    tree, sharing = fleet.tree(root), _sharing(fleet, root)
    choices = [list(_granular(fleet, tree, sharing, each)) for each in granular]
    if not all(choices):
        return
    for plain in _unsuffixed(fleet, root, tree, sharing, group):
        for rows in itertools.product(*choices):
            if query.group_policy == "isolate" and len(set(rows)) < len(rows):
                continue
            merged = _merge(fleet, plain, rows, granular)
            if merged is not None:
                yield merged


def _in_tree(fleet: Fleet, root: int, uuid: str) -> bool:
    return any(fleet.uuid(row) == uuid for row in fleet.tree(root))


def _sharing(fleet: Fleet, root: int) -> list[int]:
    mine = set(fleet.host_class(root).aggregates)
    return [row for row in fleet.sharing_providers() if row != root and mine & set(fleet.host_class(row).aggregates)]


def _aggregates(fleet: Fleet, row: int) -> frozenset[str]:
    return frozenset(fleet.aggregates[index].uuid for index in fleet.host_class(row).aggregates)


def _indices(fleet: Fleet, resources: tuple[tuple[str, int], ...]) -> dict[int, int]:
    return {fleet.resource_class(name, create=True): amount for name, amount in resources}


def _unsuffixed(fleet: Fleet, root: int, tree: list[int], sharing: list[int], group: RequestGroup) -> Iterator[Amounts]:
    """Each class from any provider of the tree or a sharing one; traits are collective, membership is the provider's
    or the root's."""
    anchor = _aggregates(fleet, root)
    wanted = _indices(fleet, group.resources)
    options = []
    for resource, amount in wanted.items():
        able = [row for row in tree if fleet.fits_row(row, {resource: amount})]
        able = [row for row in able if _member(fleet, row, anchor, group)]
        if group.in_tree is None:
            able += [
                row
                for row in sharing
                if fleet.fits_row(row, {resource: amount}) and _member(fleet, row, frozenset(), group)
            ]
        options.append(able)
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


def _member(fleet: Fleet, row: int, anchor: frozenset[str], group: RequestGroup) -> bool:
    own = _aggregates(fleet, row)
    if group.forbidden_aggregates & (own | anchor):
        return False
    return all(term & own or term & anchor for term in group.member_of)


def _granular(fleet: Fleet, tree: list[int], sharing: list[int], group: RequestGroup) -> Iterator[int]:
    """One provider that gives everything of a suffixed group."""
    wanted = _indices(fleet, group.resources)
    for row in (*tree, *sharing):
        if not traits_pass(group, fleet.host_class(row).traits) or not membership_passes(
            group, _aggregates(fleet, row)
        ):
            continue
        if group.in_tree is not None and fleet.uuid(int(fleet.store.row["root"][row])) != group.in_tree:
            continue
        if fleet.fits_row(row, wanted):
            yield row


def _merge(fleet: Fleet, plain: Amounts, rows: tuple[int, ...], groups: tuple[RequestGroup, ...]) -> Amounts | None:
    """The sum of all groups, or None if some provider can't give the sum."""
    merged = {row: dict(amounts) for row, amounts in plain.items()}
    for row, group in zip(rows, groups, strict=True):
        mine = merged.setdefault(row, {})
        for resource, amount in _indices(fleet, group.resources).items():
            mine[resource] = mine.get(resource, 0) + amount
    avail = fleet.store.inventory["avail"]
    fits = all(
        avail[resource, row] >= amount for row, amounts in merged.items() for resource, amount in amounts.items()
    )
    return merged if fits else None
