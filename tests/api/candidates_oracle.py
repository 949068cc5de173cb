"""Allocation candidates by brute force, as the documents of Placement's API tell them: each group's partial answers
with the root they serve, then the full product, then every rule on each combination."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from hostler.placement.request.placement_query import PlacementQuery, RequestGroup

from .forests import SHARES, Node

Amounts = dict[tuple[str, str], int]
Answer = tuple[frozenset[tuple[tuple[str, str], int]], frozenset[tuple[str, frozenset[str]]]]
Partial = tuple[int, list[tuple[Node, str, int]], frozenset[int]]
"""The anchor's number, (provider, class, amount) of each part, and the providers of the group."""


class Forest:
    """Providers by number."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = {node.number: node for node in nodes}

    def root(self, node: Node) -> Node:
        while node.parent is not None:
            node = self.nodes[node.parent]
        return node

    def lineage(self, node: Node) -> set[int]:
        found = {node.number}
        while node.parent is not None:
            node = self.nodes[node.parent]
            found.add(node.number)
        return found

    def anchors(self, node: Node) -> set[int]:
        """Roots whose trees a provider can serve."""
        mine = {self.root(node).number}
        if SHARES in node.traits:
            mine |= {self.root(other).number for other in self.nodes.values() if other.aggregates & node.aggregates}
        return mine

    def by_uuid(self, uuid: str) -> Node | None:
        return next((node for node in self.nodes.values() if node.uuid == uuid), None)


def capacity(node: Node, name: str) -> int:
    inventory = node.inventories[name]
    return int((inventory.total - inventory.reserved) * inventory.allocation_ratio)


def gives(node: Node, name: str, amount: int) -> bool:
    inventory = node.inventories.get(name)
    return (
        inventory is not None
        and node.used.get(name, 0) + amount <= capacity(node, name)
        and inventory.min_unit <= amount <= inventory.max_unit
        and amount % inventory.step_size == 0
    )


def traits_fit(group: RequestGroup, traits: frozenset[str]) -> bool:
    return group.required <= traits and not group.forbidden & traits and all(some & traits for some in group.any_of)


def in_tree(forest: Forest, group: RequestGroup, node: Node) -> bool:
    if group.in_tree is None:
        return True
    target = forest.by_uuid(group.in_tree)
    return target is not None and forest.root(target) is forest.root(node)


def suffixed(forest: Forest, group: RequestGroup) -> Iterator[Partial]:
    for node in forest.nodes.values():
        if not traits_fit(group, node.traits) or group.forbidden_aggregates & node.aggregates:
            continue
        if not all(some & node.aggregates for some in group.member_of):
            continue
        if not group.resources:
            if not (group.required or group.any_of or group.member_of):
                continue
        elif not in_tree(forest, group, node):
            continue
        if all(gives(node, name, amount) for name, amount in group.resources):
            for anchor in forest.anchors(node):
                yield anchor, [(node, *pair) for pair in group.resources], frozenset({node.number})


def unsuffixed(forest: Forest, group: RequestGroup) -> Iterator[Partial]:
    roots = [node for node in forest.nodes.values() if node.parent is None]
    for root in roots:
        choices = []
        for name, amount in group.resources:
            able = []
            for node in forest.nodes.values():
                own = forest.root(node) is root
                serves = root.number in forest.anchors(node) and group.in_tree is None
                if not (own or serves) or not gives(node, name, amount) or not in_tree(forest, group, node):
                    continue
                member = all(some & node.aggregates for some in group.member_of)
                if own:
                    member |= all(some & root.aggregates for some in group.member_of)
                if member and not group.forbidden_aggregates & (node.aggregates | root.aggregates):
                    able.append((node, name, amount))
            choices.append(able)
        for parts in product(*choices):
            traits = frozenset[str]().union(*(node.traits for node, _, _ in parts))
            if traits_fit(group, traits):
                yield root.number, list(parts), frozenset(node.number for node, _, _ in parts)


def answers(nodes: list[Node], query: PlacementQuery, *, nested: bool = True) -> set[Answer]:
    forest = Forest(nodes)
    partials = [list(suffixed(forest, group) if group.suffix else unsuffixed(forest, group)) for group in query.groups]
    found = set()
    for anchor in forest.nodes.values():
        if anchor.parent is not None or not query.root_required <= anchor.traits:
            continue
        if query.root_forbidden & anchor.traits:
            continue
        for parts in product(*([part for part in mine if part[0] == anchor.number] for mine in partials)):
            answer = combined(forest, query, list(parts), nested)
            if answer is not None:
                found.add(answer)
    return found


def combined(forest: Forest, query: PlacementQuery, parts: list[Partial], nested: bool) -> Answer | None:
    by_suffix = {group.suffix: part[2] for group, part in zip(query.groups, parts, strict=True)}
    granular = [part[2] for group, part in zip(query.groups, parts, strict=True) if group.suffix]
    if query.group_policy == "isolate" and len(frozenset().union(*granular)) < len(granular):
        return None
    for suffixes in query.same_subtree:
        together = [forest.nodes[number] for suffix in suffixes for number in by_suffix[suffix]]
        if not any(all(top.number in forest.lineage(node) for node in together) for top in together):
            return None
    sums: Amounts = {}
    for _, pieces, _ in parts:
        for node, name, amount in pieces:
            sums[node.uuid, name] = sums.get((node.uuid, name), 0) + amount
    used = {number for part in parts for number in part[2]}
    for (uuid, name), amount in sums.items():
        giver = forest.by_uuid(uuid)
        assert giver is not None
        if giver.used.get(name, 0) + amount > capacity(giver, name) or amount > giver.inventories[name].max_unit:
            return None
    if not nested:
        roots = [forest.root(forest.nodes[number]).number for number in used]
        if len(set(roots)) < len(roots):
            return None
    mappings = {(suffix, frozenset(forest.nodes[n].uuid for n in numbers)) for suffix, numbers in by_suffix.items()}
    return frozenset(sums.items()), frozenset(mappings)
