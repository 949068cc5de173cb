"""The query string of ``GET /allocation_candidates`` as the value that the engine understands."""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from ...placement.request.placement_query import PlacementQuery, RequestGroup
from . import schemas
from .errors import bad_request
from .messages import Request
from .query_values import MOST_DIGITS, memberships, required_traits, resources, traits, tree
from .validation import check_query

BAD_VALUE: Final = "placement.query.bad_value"
MISSING_VALUE: Final = "placement.query.missing_value"
DUPLICATE_KEY: Final = "placement.query.duplicate_key"
GRANULAR_SINCE: Final = 25
SUBTREE_SINCE: Final = 36
QUERIES_KEPT: Final = 1_024

_KINDS: Final = "resources|required|member_of|in_tree"
_KEY: Final = re.compile(f"({_KINDS})({schemas.SUFFIX})?")
_KEY_33: Final = re.compile(f"({_KINDS})({schemas.SUFFIX_33})?")


class Queries:
    """Maximum number of parsed queries in the cache: schedulers repeat queries."""

    def __init__(self, most: int = QUERIES_KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, str], PlacementQuery] = OrderedDict()

    def of(self, request: Request) -> PlacementQuery:
        """The query of a request. HttpError 400."""
        key = request.minor, request.raw_query
        query = self._kept.get(key)
        if query is None:
            self._kept[key] = query = candidate_query(request)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return query


@dataclass(slots=True)
class _Groups:
    """The request groups while the query is parsed, in order, and parameters across groups."""

    by_suffix: dict[str, RequestGroup] = field(default_factory=dict)
    same_subtree: list[tuple[str, ...]] = field(default_factory=list)


def candidate_query(request: Request) -> PlacementQuery:
    """Parse a query. Raises HttpError 400 for a query that is invalid at its microversion."""
    check_query(request, schemas.at(schemas.CANDIDATES, request.minor))
    limits = request.query.all("limit")
    root_required, root_forbidden = _root_traits(request)
    groups = _Groups(same_subtree=_subtrees(request))
    _read_groups(request, groups)
    if request.minor >= SUBTREE_SINCE:
        _check_subtrees(groups)
    else:
        _check_orphans(groups)
    _check_conflicts(groups)
    suffixed = [suffix for suffix in groups.by_suffix if suffix]
    policy = next(iter(request.query.all("group_policy")), None)
    if policy is None and len(suffixed) > 1:
        raise bad_request(
            'The "group_policy" parameter is required when specifying more than one "resources{N}" parameter.'
        )
    return PlacementQuery(
        groups=tuple(groups.by_suffix.values()),
        root_required=root_required,
        root_forbidden=root_forbidden,
        group_policy=policy,
        same_subtree=tuple(groups.same_subtree),
        limit=_limit(limits[0]) if limits else None,
    )


def _limit(text: str) -> int:
    """The number of ways that are wanted; the schema allows any number of digits."""
    return int(text) if len(text) <= MOST_DIGITS else sys.maxsize


def _read_groups(request: Request, groups: _Groups) -> None:
    """Gather what belongs to each suffix; a repeated class or amount counts as given last."""
    key = _KEY_33 if request.minor >= 33 else _KEY
    for name, value in request.query.pairs:
        match = key.fullmatch(name)
        if match is None:
            continue
        kind, suffix = match[1], match[2] or ""
        group = groups.by_suffix.get(suffix) or RequestGroup(suffix=suffix)
        if kind == "resources":
            group = replace(group, resources=tuple(sorted(resources(value).items())))
        elif kind == "required":
            required, forbidden, any_of = traits(request, suffix)
            group = replace(group, required=required, forbidden=forbidden, any_of=any_of)
        elif kind == "member_of":
            member_of, forbidden_aggregates = memberships(request, suffix)
            group = replace(group, member_of=member_of, forbidden_aggregates=forbidden_aggregates)
        else:
            group = replace(group, in_tree=tree(value))
        groups.by_suffix[suffix] = group


def _root_traits(request: Request) -> tuple[frozenset[str], frozenset[str]]:
    values = request.query.all("root_required")
    if not values:
        return frozenset(), frozenset()
    if len(values) > 1:
        raise bad_request("Query parameter 'root_required' may be specified only once.", DUPLICATE_KEY)
    if values[0].startswith("in:"):
        raise bad_request(
            "Invalid query string parameters: The format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' is not supported by "
            f"root_required. Got: {values[0]}"
        )
    required, forbidden = required_traits(values[0], may_forbid=True)
    if required & forbidden:
        clash = ", ".join(sorted(required & forbidden))
        raise bad_request(f"Conflicting required and forbidden traits found in root_required: {clash}", BAD_VALUE)
    return frozenset(required), frozenset(forbidden)


def _subtrees(request: Request) -> list[tuple[str, ...]]:
    found = []
    for value in request.query.all("same_subtree"):
        suffixes = tuple(dict.fromkeys(suffix.strip() for suffix in value.split(",")))
        if "" in suffixes:
            raise bad_request("Empty string (unsuffixed group) can not be specified in `same_subtree` ", BAD_VALUE)
        found.append(suffixes)
    return found


def _check_subtrees(groups: _Groups) -> None:
    """From 1.36 a group may be without resources if ``same_subtree`` names it and not all are so."""
    empty = [suffix for suffix, group in groups.by_suffix.items() if not group.resources]
    named = {suffix for suffixes in groups.same_subtree for suffix in suffixes}
    if len(empty) == len(groups.by_suffix):
        raise bad_request("There must be at least one resources or resources[$S] parameter.", MISSING_VALUE)
    stray = [suffix for suffix in empty if suffix not in named]
    if stray:
        raise bad_request(
            "Resourceless suffixed group request should be specified in `same_subtree` query param: bad group(s) - "
            f"{stray}.",
            BAD_VALUE,
        )
    unknown = sorted(named - groups.by_suffix.keys())
    if unknown:
        raise bad_request(
            f"Real suffixes should be specified in `same_subtree`: {unknown} not found in {list(groups.by_suffix)}.",
            BAD_VALUE,
        )


def _check_orphans(groups: _Groups) -> None:
    """Below 1.36 every group has resources."""
    empty = [(suffix, group) for suffix, group in groups.by_suffix.items() if not group.resources]
    orphans = [f"required{suffix}" for suffix, group in empty if group.required or group.any_of]
    if orphans:
        raise bad_request(
            "All traits parameters must be associated with resources.  Found the following orphaned traits keys: "
            + ", ".join(orphans)
        )
    orphans = [f"member_of{suffix}" for suffix, group in empty if group.member_of or group.forbidden_aggregates]
    if orphans:
        raise bad_request(
            "All member_of parameters must be associated with resources. Found the following orphaned member_of keys: "
            + ", ".join(orphans)
        )
    if empty:
        raise bad_request("All request groups must specify resources.")
    if not groups.by_suffix:
        raise bad_request("At least one request group (`resources` or `resources{$S}`) is required.")


def _check_conflicts(groups: _Groups) -> None:
    """No set of which one trait is required may be forbidden as a whole."""
    clashes = []
    for suffix, group in groups.by_suffix.items():
        wanted = [frozenset({trait}) for trait in group.required] + list(group.any_of)
        clashes += [
            f"required{suffix}: ({', '.join(sorted(traits))})" for traits in wanted if traits <= group.forbidden
        ]
    if clashes:
        raise bad_request(
            "Conflicting required and forbidden traits found in the following traits keys: "
            + ", ".join(sorted(clashes))
        )
