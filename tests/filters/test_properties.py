"""What holds of every filter: its fast forms agree with the rule, and it says truly what its verdict depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.filters import BUILTIN_FILTERS, Filter
from hostler.placement.filters.base import Bound, Selection
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Host
from hostler.placement.types.options import Options
from hostler.placement.types.request import Request, ServerGroup

from .values import hosts, options, request, request_parts, verdict

pytestmark = pytest.mark.property

ELSEWHERE = {"NUMATopologyFilter", "PciPassthroughFilter"}  # with tests of their own
FLEET_COLUMNS = {"service_up"}  # made by the fleet from several fields and its clock

requests = st.fixed_dictionaries(request_parts)
thorough = settings(max_examples=300, deadline=None)


def all_filters(values: Options) -> Iterator[Filter]:
    for name, builtin in BUILTIN_FILTERS.items():
        if name not in ELSEWHERE:
            yield builtin(values)


def concerned(values: Options, host: Host, asked: Request) -> Iterator[Filter]:
    """The filters that judge the request and find nothing invalid in it."""
    for judge in all_filters(values):
        if not isinstance(verdict(judge, host, asked), str) and judge.applies(asked):
            yield judge


def one_part_changed(parts: dict[str, Any], others: dict[str, Any]) -> Iterator[Request]:
    """The request of ``parts`` with one part from ``others``, for each part and for each field of the server group."""
    for part in request_parts:
        yield request(**(parts | {part: others[part]}))
    mine, theirs = parts["server_group"], others["server_group"]
    if isinstance(mine, ServerGroup) and isinstance(theirs, ServerGroup):
        for field in ("policy", "max_server_per_host", "members", "hosts"):
            yield request(**(parts | {"server_group": replace(mine, **{field: getattr(theirs, field)})}))


def within(bounds: tuple[Bound, ...], host: Host) -> bool:
    return all(bound.low <= getattr(host, bound.column) <= bound.high for bound in bounds)


def selected(selection: Selection, host: Host) -> bool:
    held = len(selection.instances & host.instances.keys())
    marked = host.host in selection.hosts or (bool(selection.instances) and held >= selection.at_least)
    return marked == selection.keep


@given(host=hosts, parts=requests, values=options)
@thorough
def test_a_filter_that_does_not_apply_passes_every_host(host: Host, parts: dict[str, Any], values: Options) -> None:
    asked = request(**parts)
    for judge in all_filters(values):
        try:
            applies = judge.applies(asked)
        except InvalidValue:
            continue
        if not applies:
            assert judge.host_passes(host, asked), judge.name


@given(host=hosts, parts=requests, values=options)
@thorough
def test_the_column_form_agrees_with_the_rule(host: Host, parts: dict[str, Any], values: Options) -> None:
    asked = request(**parts)
    for judge in concerned(values, host, asked):
        bounds = judge.bounds(asked)
        if bounds is not None and not any(bound.column in FLEET_COLUMNS for bound in bounds):
            assert within(bounds, host) == judge.host_passes(host, asked), judge.name


@given(host=hosts, parts=requests, values=options)
@thorough
def test_the_selection_form_agrees_with_the_rule(host: Host, parts: dict[str, Any], values: Options) -> None:
    asked = request(**parts)
    for judge in concerned(values, host, asked):
        selection = judge.selection(asked)
        if selection is not None:
            assert selected(selection, host) == judge.host_passes(host, asked), judge.name


@given(host=hosts, other=hosts, parts=requests, values=options)
@thorough
def test_no_field_but_the_named_ones_changes_the_verdict(
    host: Host, other: Host, parts: dict[str, Any], values: Options
) -> None:
    asked = request(**parts)
    for judge in all_filters(values):
        try:
            kept = {field: getattr(host, field) for field in judge.fields(asked)}
        except InvalidValue:  # found out before any host is looked at
            assert isinstance(verdict(judge, host, asked), str), judge.name
            continue
        assert verdict(judge, replace(other, **kept), asked) == verdict(judge, host, asked), judge.name


@given(host=hosts, parts=requests, others=requests, values=options)
@thorough
def test_requests_with_equal_keys_get_equal_verdicts(
    host: Host, parts: dict[str, Any], others: dict[str, Any], values: Options
) -> None:
    asked = request(**parts)
    for other in one_part_changed(parts, others):
        for judge in concerned(values, host, asked):
            if isinstance(verdict(judge, host, other), str) or not judge.applies(other):
                continue
            if judge.key(asked) == judge.key(other):
                assert judge.fields(asked) == judge.fields(other), judge.name
                assert judge.host_passes(host, asked) == judge.host_passes(host, other), judge.name


@given(host=hosts, parts=requests, values=options)
@thorough
def test_every_refusal_has_a_reason_of_one_line(host: Host, parts: dict[str, Any], values: Options) -> None:
    asked = request(**parts)
    for judge in concerned(values, host, asked):
        hash(judge.key(asked))
        if not judge.host_passes(host, asked):
            reason = judge.reason(host, asked)
            assert reason != f"refused by {judge.name}"
            assert reason.strip() == reason != ""
            assert len(reason.splitlines()) == 1
