"""A sample of recorded answers of Nova 33 and Cinder 29 that ships with the tests: a plain clone can prove parity.

tests/data/README.md says how the answers were recorded.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hostler import Engine, Fleet, Host, Policy, Request, add_hosts
from hostler.placement.decide.scan import Ranked
from hostler.placement.filters import BUILTIN_FILTERS
from hostler.placement.request.placement_query import placement_query
from hostler.placement.request.prefilters import NoImage
from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.groups import group_order
from hostler.placement.storage.pools.capacity import capacity_factors, over_subscription_ratio
from hostler.placement.storage.pools.expression import Expression, ExpressionError, evaluate, expression
from hostler.placement.storage.pools.extra_specs_ops import match
from hostler.placement.storage.pools.policy import VolumePolicy
from hostler.placement.storage.pools.reports import BackendReport, VolumeService
from hostler.placement.storage.pools.request import Retry, VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType
from hostler.placement.storage.pools.volumes import Volume
from hostler.placement.storage.scan import rank
from hostler.placement.types.errors import InvalidValue, MetricNotFound, NoValidHost
from hostler.placement.types.from_builtins import from_plain
from hostler.placement.types.host import Aggregate
from hostler.placement.weighers import BUILTIN_WEIGHERS

DATA = Path(__file__).resolve().parents[1] / "data"
REPORTED_AT = 1_000.0

pytestmark = pytest.mark.parity

Sample = Mapping[str, Any]


@cache
def samples(name: str) -> tuple[Sample, ...]:
    lines = gzip.decompress((DATA / name).read_bytes()).decode().splitlines()
    return tuple(map(json.loads, lines))


def of_kind(name: str, key: str, kind: str) -> pytest.MarkDecorator:
    found = [sample for sample in samples(name) if sample[key] == kind]
    ids = [sample.get("tag", str(number)) for number, sample in enumerate(found)]
    return pytest.mark.parametrize("sample", found, ids=ids)


def close(a: float, b: float | str) -> bool:
    return math.isclose(a, float(b), rel_tol=1e-9, abs_tol=1e-9) or repr(a) == repr(float(b))


# Nova


def engine_of(sample: Sample) -> Engine:
    fleet = Fleet()
    fleet._aggregate_ids(from_plain(sample["aggregates"], list[Aggregate], "sample"))
    add_hosts(fleet, from_plain(sample["hosts"], list[Host], "sample"))
    return Engine(fleet, Policy.from_mapping(sample["options"]))


def candidates(engine: Engine, sample: Sample) -> dict[str, list[str]]:
    uuids = [engine.fleet.uuid(row) for row in range(engine.fleet.rows)]
    return {uuid: [] if uuid in sample["without_candidates"] else ["candidate"] for uuid in uuids}


def removed(engine: Engine, ranked: Ranked) -> dict[str, list[str]]:
    """Nodes that each filter refused."""
    stages, found = ranked.signature.stages, dict[str, list[str]]()
    for row, number in zip(ranked.considered.tolist(), ranked.refusing_stages.tolist(), strict=True):
        if 0 < number < len(stages):
            found.setdefault(stages[number].name, []).append(engine.fleet.name(row))
    return {name: sorted(nodes) for name, nodes in found.items()}


@of_kind("nova.jsonl.gz", "kind", "sorted")
def test_hosts_are_filtered_and_ordered_as_nova_does(sample: Sample) -> None:
    engine, expected = engine_of(sample), sample["expected"]
    request = from_plain(sample["request"], Request, "sample")
    if expected["error"] is not None:
        with pytest.raises((InvalidValue, MetricNotFound)):
            engine.rank(request, candidates=candidates(engine, sample))
        return
    ranked = engine.rank(request, candidates=candidates(engine, sample))
    assert removed(engine, ranked) == expected["removed"]
    assert [engine.fleet.name(row) for row in ranked.rows.tolist()] == [node for node, _ in expected["order"]]
    assert all(close(got, weight) for got, (_, weight) in zip(ranked.weights.tolist(), expected["order"], strict=True))


@of_kind("nova.jsonl.gz", "kind", "schedule")
def test_instances_are_placed_and_claimed_as_nova_does(sample: Sample) -> None:
    engine, expected = engine_of(sample), sample["expected"]
    decision = engine.place(
        from_plain(sample["request"], Request, "sample"),
        candidates=candidates(engine, sample),
        claim=lambda instance, provider, allocations: provider not in sample["failing_claims"],
    )
    got = [[each.node, *(alternate.node for alternate in each.alternates)] for each in decision.selections]
    assert (got or None) == expected["selections"]
    assert [list(each) for each in decision.claims] == expected["claims"]


@pytest.mark.parametrize("sample", samples("nova.jsonl.gz"), ids=lambda sample: sample["tag"])
def test_placement_is_queried_as_nova_does(sample: Sample) -> None:
    engine = engine_of(sample)
    fleet = engine.fleet

    def nodes(host: str | None, node: str | None, cell_uuid: str | None) -> list[str]:
        rows = fleet._rows_of_service_host(host) if host is not None else range(fleet.rows)
        named = [row for row in rows if node is None or fleet.name(row) == node]
        return [fleet.uuid(row) for row in named if cell_uuid in (None, fleet._host_class(row).cell_uuid)]

    request = from_plain(sample["request"], Request, "sample")
    if sample["queries"] is None:
        with pytest.raises((NoValidHost, NoImage)):
            placement_query(request, fleet.aggregates, nodes, engine.policy.options)
    else:
        query = placement_query(request, fleet.aggregates, nodes, engine.policy.options)
        assert query.to_querystrings() == sample["queries"]


# Cinder


def storage_of(sample: Sample, **options: Any) -> VolumeEngine:
    policy = VolumePolicy.from_mapping({"storage": options})
    engine = VolumeEngine(policy=policy, instance_host=sample["instances"].get)
    engine.pools.add_services(
        VolumeService(host=host, cluster_name=cluster, availability_zone=zone, up=up)
        for host, cluster, zone, up, _ in sample["backends"]
    )
    for host, cluster, _, _, capabilities in sample["backends"]:
        if capabilities is not None:
            engine.pools.report(
                BackendReport(host=host, cluster_name=cluster, capabilities=capabilities, at=REPORTED_AT)
            )
    engine.pools.add_volumes(
        Volume(volume_id=volume, host=host, cluster_name=cluster, size_gb=size, project_id=project)
        for volume, host, cluster, size, project in sample["volumes"]
    )
    return engine


def properties_of(sample: Sample, engine: VolumeEngine) -> Any:
    request = VolumeRequest(
        spec=from_plain(sample["spec"], VolumeSpec, "sample"), project_id=sample["project_id"], user_id="user"
    )
    return engine._context.filter_properties(
        request,
        requested_gb=sample["requested_gb"],
        operation=sample["operation"],
        exists_on=sample["exists_on"],
        retry=sample["retry"] and from_plain(sample["retry"], Retry, "sample"),
    )


@of_kind("cinder.jsonl.gz", "suite", "filters")
def test_each_filter_passes_the_pools_that_cinder_passes(sample: Sample) -> None:
    for name, passed in sample["passed"].items():
        engine = storage_of(sample, scheduler_default_filters=[name])
        unweighed = VolumePolicy(options=engine.policy.options, filters=engine.policy.filters, weighers=())
        rows = rank(engine.pools, unweighed, properties_of(sample, engine), lambda: 0.0).rows
        assert sorted(engine.pools.fact(row).backend_id for row in rows.tolist()) == passed, name


@of_kind("cinder.jsonl.gz", "suite", "weighers")
def test_pools_are_ordered_as_cinder_orders_them(sample: Sample) -> None:
    engine = storage_of(sample, scheduler_default_filters=[], **sample["options"])
    ranking = engine._context.ranking(properties_of(sample, engine))
    assert [engine.pools.fact(row).backend_id for row in ranking.rows.tolist()] == [name for name, _ in sample["order"]]
    assert all(close(got, weight) for got, (_, weight) in zip(ranking.weights.tolist(), sample["order"], strict=True))


@of_kind("cinder.jsonl.gz", "suite", "pipeline")
def test_operations_in_a_row_choose_and_charge_as_cinder_does(sample: Sample) -> None:
    engine = storage_of(sample, **sample["options"])
    for number, step in enumerate(sample["steps"]):
        request = VolumeRequest(
            spec=from_plain(step["spec"], VolumeSpec, "sample"),
            project_id=sample["project_id"],
            user_id="user",
            retry=step["retry"] and from_plain(step["retry"], Retry, "sample"),
            now=REPORTED_AT + 1 + number,
        )
        if step["operation"] == "retype":
            decision = engine.retype(request, step["backend"], migration_policy=step["migration_policy"])
        elif step["operation"] == "extend":
            decision = engine.extend(request, step["new_size_gb"], step["backend"])
        elif step["operation"] == "passes":
            decision = engine.passes(request, step["backend"])
        else:
            decision = engine.place(request)
            if decision.selection is not None:
                engine.forget(decision.selection.volume_id)
        assert (decision.selection and decision.selection.backend_id) == step["chosen"], number
        for name, (_, allocated, provisioned) in step["after"].items():
            row = engine.pools.row(name)
            assert close(engine.pools.columns["allocated"][row], allocated), (number, name)
            assert close(engine.pools.columns["provisioned"][row], provisioned), (number, name)


@of_kind("cinder.jsonl.gz", "suite", "groups")
def test_volume_groups_are_ordered_as_cinder_orders_them(sample: Sample) -> None:
    engine = storage_of(sample)
    request = VolumeGroupRequest(
        volumes=tuple(
            VolumeRequest(spec=from_plain(spec, VolumeSpec, "sample"), user_id="user") for spec in sample["specs"]
        ),
        group_type=None if sample["group_type"] is None else from_plain(sample["group_type"], VolumeType, "sample"),
    )
    order, _ = group_order(engine._context, request)
    assert [name for name, _ in order] == [name for name, _ in sample["order"]]


def problem_of(known: Expression, variables: Mapping[str, Any]) -> str | None:
    """The kind of error that an expression has, or raises when it is evaluated."""
    if known.tree is None:
        return known.problem.kind if known.problem is not None else None
    try:
        evaluate(known.tree, variables)
    except ExpressionError as error:
        return error.kind
    return None


@of_kind("cinder.jsonl.gz", "suite", "evaluator")
def test_expressions_are_evaluated_as_cinder_does(sample: Sample) -> None:
    known = expression(sample["expression"])
    if "error" in sample:
        assert problem_of(known, sample["vars"]) == sample["error"]
    else:
        assert known.tree is not None
        value = evaluate(known.tree, sample["vars"])
        assert type(value).__name__ == sample["type"]
        if isinstance(value, complex):
            assert value == complex(*sample["result"]["complex"])
        else:
            assert close(value, sample["result"]) if isinstance(value, int | float) else value == sample["result"]


@of_kind("cinder.jsonl.gz", "suite", "extra_specs_match")
def test_extra_specs_match_as_in_cinder(sample: Sample) -> None:
    try:
        got: Any = match(sample["value"], sample["req"])
    except (TypeError, LookupError, AttributeError) as error:
        got = type(error).__name__
    assert got == sample.get("error", sample.get("result"))


@of_kind("cinder.jsonl.gz", "suite", "capacity_factors")
def test_capacity_factors_are_those_of_cinder(sample: Sample) -> None:
    factors = capacity_factors(**sample["args"])
    for name, expected in sample["factors"].items():
        got = getattr(factors, name)
        assert close(got, expected) if isinstance(expected, int | float) else got == expected or repr(got) == expected


@of_kind("cinder.jsonl.gz", "suite", "over_subscription_ratio")
def test_over_subscription_ratios_are_those_of_cinder(sample: Sample) -> None:
    assert close(over_subscription_ratio(sample["capability"], sample["global"]), sample["ratio"])


def test_the_samples_are_wide() -> None:
    """Every filter of Nova occurs in a sample, and every kind of case of both."""
    tags = " ".join(sample["tag"] for sample in samples("nova.jsonl.gz"))
    missing = [name for name in (*BUILTIN_FILTERS, *BUILTIN_WEIGHERS) if name not in tags]
    assert not missing
    assert len(samples("nova.jsonl.gz")) >= 40
    assert len({sample["suite"] for sample in samples("cinder.jsonl.gz")}) == 8
