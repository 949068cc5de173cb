"""Recorded answers of Cinder 29 against the storage engine's public API: a function for each suite of cases.

``cinder(suite, case, file)`` answers one case in the form in which it was recorded. Where Cinder crashes, the engine
refuses the one pool; ``known`` then names the difference (docs/cinder-differences.md).
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..placement.storage.engine import VolumeEngine
from ..placement.storage.groups import group_order
from ..placement.storage.pools.capacity import capacity_factors, over_subscription_ratio
from ..placement.storage.pools.expression import ExpressionError, evaluate, expression
from ..placement.storage.pools.extra_specs_ops import match
from ..placement.storage.pools.filter_properties import FilterProperties
from ..placement.storage.pools.options import STORAGE
from ..placement.storage.pools.policy import VolumePolicy
from ..placement.storage.pools.pools import Pools
from ..placement.storage.pools.reports import BackendReport, VolumeService
from ..placement.storage.pools.request import Retry, VolumeGroupRequest, VolumeRequest, VolumeSpec, VolumeType
from ..placement.storage.pools.view import attribute
from ..placement.storage.pools.volumes import Volume
from ..placement.storage.scan import rank
from ..placement.types.errors import InvalidValue
from .parity_tally import Tally

Case = dict[str, Any]
Found = tuple[str | None, str | None]
"""(difference, known difference) of one case; (None, None) if it is equal."""

START: Final = 1_000.0
"""When the reports were made, seconds since the epoch; the requests come later."""
CRASHED: Final = "Cinder's exception %s kills the request; here the pool is refused and the request lives"


# cases as values


def read_suites(path: Path) -> Iterator[dict[str, Any]]:
    """The suites of cases in a folder, or in one file. InvalidValue for a file that holds none."""
    for name in sorted(path.glob("*.json.gz")) if path.is_dir() else [path]:
        try:
            content = name.read_bytes()
            suite = json.loads(gzip.decompress(content) if name.suffix == ".gz" else content)
        except (OSError, ValueError, EOFError) as error:
            raise InvalidValue(f"{name} cannot be read: {error}", field="paths") from error
        if not isinstance(suite, dict) or suite.get("suite") not in SUITES or "cases" not in suite:
            raise InvalidValue(f"{name} holds no suite of Cinder's cases", field="paths", hint=", ".join(SUITES))
        yield suite


def volume_type(value: Mapping[str, Any] | None) -> VolumeType | None:
    """A recorded volume type."""
    if not value:
        return None
    return VolumeType(name=value.get("name", ""), id=value.get("id"), extra_specs=value.get("extra_specs") or {})


def spec(value: Mapping[str, Any]) -> VolumeSpec:
    """The spec of a recorded request."""
    return VolumeSpec(
        size_gb=value["size"],
        volume_type=volume_type(value["volume_type"]),
        qos_specs=value["qos_specs"],
        availability_zone=value["availability_zone"],
        availability_zones=tuple(value.get("availability_zones") or ()),
        scheduler_hints=value["scheduler_hints"] or {},
        attach_status=value.get("attach_status", "detached"),
        resource_backend=value.get("resource_backend"),
    )


def retry(value: Mapping[str, Any] | None) -> Retry | None:
    """Recorded earlier attempts."""
    if not value:
        return None
    backends = tuple(value["backends"]) if "backends" in value else None
    return Retry(num_attempts=value["num_attempts"], backends=backends, hosts=tuple(value.get("hosts", ())))


def engine_of(case: Case, project_id: str = "", **options: Any) -> VolumeEngine:
    """An engine that knows the case's services, reports, volumes and instances."""
    world = case.get("world") or {}
    hosts = world.get("instances") or {}
    policy = VolumePolicy.from_mapping({STORAGE: options})
    engine = VolumeEngine(policy=policy, instance_host=hosts.get)
    services = [
        VolumeService(
            host=each["host"],
            cluster_name=each["cluster_name"],
            availability_zone=each["availability_zone"],
            up=each["is_up"],
        )
        for each in case["reports"]
    ]
    engine.pools.add_services(services)
    for each in case["reports"]:
        if each["capabilities"] is not None:
            engine.pools.report(
                BackendReport(
                    host=each["host"],
                    cluster_name=each["cluster_name"],
                    capabilities=each["capabilities"],
                    at=START,
                )
            )
    engine.pools.add_volumes(
        Volume(
            volume_id=each["id"],
            host=each["host"],
            cluster_name=each["cluster_name"],
            size_gb=each["size"],
            project_id=each["project_id"],
        )
        for each in world.get("volumes", ())
        if not each["deleted"]
    )
    return engine


# comparing


def close(a: Any, b: Any) -> bool:
    """Equal, numbers within 1e-9; infinities as the cases write them."""
    if isinstance(b, str) and isinstance(a, float) and b in ("Infinity", "-Infinity", "NaN"):
        return repr(a) == repr(float(b))
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return bool(a == b)


def same_order(got: list[tuple[str, float]], wanted: list[Any]) -> bool:
    """The same names in the same order, with weights within 1e-9."""
    return len(got) == len(wanted) and all(
        name == other[0] and close(weight, other[1]) for (name, weight), other in zip(got, wanted, strict=True)
    )


def _expression(case: Case, file: Mapping[str, Any]) -> Found:
    known = expression(case["expression"])
    try:
        if known.tree is None:
            raise known.problem or AssertionError
        value = evaluate(known.tree, file["vars"])
    except ExpressionError as error:
        return (None, None) if error.kind == case.get("error") else (f"error {error.kind} != {case}", None)
    if "error" in case:
        return f"{value!r} != error {case['error']}", None
    expected = case["result"]
    if isinstance(expected, dict):
        expected = complex(*expected["complex"])
    same = type(value).__name__ == case["type"] and close(value, expected)
    return (None, None) if same else (f"{value!r} != {case['type']} {expected!r}", None)


def _match(case: Case, file: Mapping[str, Any]) -> Found:
    try:
        got: Any = match(case["value"], case["req"])
    except (TypeError, LookupError, AttributeError) as error:
        got = type(error).__name__
    expected = case.get("error", case.get("result"))
    return (None, None) if got == expected else (f"{got} != {expected}", None)


def _factors(case: Case, file: Mapping[str, Any]) -> Found:
    factors = capacity_factors(**case["args"])
    for name, expected in case["factors"].items():
        if not close(getattr(factors, name), expected):
            return f"{name} {getattr(factors, name)!r} != {expected!r}", None
    return None, None


def _ratio(case: Case, file: Mapping[str, Any]) -> Found:
    got = over_subscription_ratio(case["capability"], case["global"])
    return (None, None) if close(got, case["ratio"]) else (f"{got!r} != {case['ratio']!r}", None)


def _pools_difference(pools: Pools, recorded: list[Mapping[str, Any]]) -> str | None:
    rows = pools.live_rows().tolist()
    names = [pools.fact(row).backend_id for row in rows]
    if names != [each["backend_id"] for each in recorded]:
        return f"pools {names} != {[each['backend_id'] for each in recorded]}"
    for row, expected in zip(rows, recorded, strict=True):
        for name, value in expected.items():
            if not close(attribute(pools, row, name), value):
                return f"{name} of {expected['backend_id']} {attribute(pools, row, name)!r} != {value!r}"
    return None


def _filter_properties(case: Case, engine: VolumeEngine, project_id: str) -> FilterProperties:
    request = case["request"]
    growth = request["new_size"] - request["size"] if request.get("new_size") else None
    return FilterProperties.of(
        spec(request),
        project_id=project_id,
        user_id="user",
        requested_gb=growth,
        operation=case.get("operation", "create_volume"),
        exists_on=request.get("vol_exists_on"),
        retry=retry(request.get("retry")),
        instance_host=engine._context.instance_host,
    )


def _filters(case: Case, file: Mapping[str, Any]) -> Found:
    crash: str | None = None
    for name, expected in case["filters"].items():
        engine = engine_of(case, scheduler_default_filters=[name])
        difference = _pools_difference(engine.pools, case["pools"])
        if difference is not None:
            return difference, None
        passed = _passed(engine, _filter_properties(case, engine, file["project_id"]))
        if sorted(passed) != sorted(expected["passed"]):
            return f"{name} passed {sorted(passed)} != {sorted(expected['passed'])}", None
        crash = next(iter((expected.get("errors") or {}).values()), crash)
    chain = case["chain"]
    engine = engine_of(case, scheduler_default_filters=chain["filters"])
    passed = _passed(engine, _filter_properties(case, engine, file["project_id"]))
    if "error" in chain:
        return None, CRASHED % chain["error"]
    if passed != chain["passed"]:
        return f"{'+'.join(chain['filters'])} passed {passed} != {chain['passed']}", None
    return None, None


def _passed(engine: VolumeEngine, filter_properties: FilterProperties) -> list[str]:
    """Pools that the filters pass, in candidate order."""
    policy = VolumePolicy(options=engine.policy.options, filters=engine.policy.filters, weighers=())
    rows = rank(engine.pools, policy, filter_properties, lambda: 0.0).rows
    return [engine.pools.fact(row).backend_id for row in sorted(rows.tolist())]


def _weighers(case: Case, file: Mapping[str, Any]) -> Found:
    multipliers = case["multipliers"]
    options = {
        "scheduler_default_filters": [],
        "scheduler_default_weighers": case["weighers"],
        "capacity_weight_multiplier": multipliers["capacity"],
        "allocated_capacity_weight_multiplier": multipliers["allocated"],
        "volume_number_multiplier": multipliers["volume_number"],
    }
    engine = engine_of(case, **options)
    difference = _pools_difference(engine.pools, case["pools"])
    if difference is not None:
        return difference, None
    filter_properties = _filter_properties(case, engine, file.get("project_id", ""))
    ranking = engine._context.ranking(filter_properties)
    names = [engine.pools.fact(row).backend_id for row in ranking.rows.tolist()]
    if isinstance(case["order"], dict):
        return None, CRASHED % case["order"]["error"]
    if not same_order(list(zip(names, ranking.weights.tolist(), strict=True)), case["order"]):
        return f"order {names} != {case['order']}", None
    for term in ranking.weigher_scores:
        recorded = case["raw"][term.name]["weights"]
        for name, raw in zip(names, term.raw.tolist(), strict=True):
            if not close(raw, recorded[name]):
                return f"{term.name} of {name} {raw!r} != {recorded[name]!r}", None
    return _stochastic(case, filter_properties, options), None


def _stochastic(case: Case, filter_properties: FilterProperties, options: Mapping[str, Any]) -> str | None:
    expected = case.get("stochastic")
    if not expected or isinstance(expected["order"], dict):
        return None
    engine = engine_of(case, **options, scheduler_weight_handler="StochasticHostWeightHandler")
    ranking = rank(engine.pools, engine.policy, filter_properties, lambda: expected["draw"])
    got = [
        (engine.pools.fact(row).backend_id, weight) for row, weight in zip(ranking.rows, ranking.weights, strict=True)
    ]
    return None if same_order(got, expected["order"]) else f"stochastic {got} != {expected['order']}"


def _pipeline(case: Case, file: Mapping[str, Any]) -> Found:
    multipliers = case["multipliers"]
    engine = engine_of(
        case,
        scheduler_default_filters=case["filters"],
        scheduler_default_weighers=case["weighers"],
        capacity_weight_multiplier=multipliers["capacity"],
        allocated_capacity_weight_multiplier=multipliers["allocated"],
        volume_number_multiplier=multipliers["volume_number"],
    )
    for index, step in enumerate(case["steps"]):
        error = step.get("error")
        if error not in (None, "NoValidBackend"):
            return None, CRASHED % error
        got, ranked = _step(engine, step, file["project_id"], START + 1 + index)
        difference = _step_difference(engine, step, got, ranked)
        if difference is not None:
            return f"step {index} ({step['op']}): {difference}", None
    return None, None


def _step(engine: VolumeEngine, step: Case, project_id: str, now: float) -> tuple[str | None, list[tuple[str, float]]]:
    """(chosen pool, pools in order) of one step; what is recorded of volumes stays as it was."""
    given = step["request"]
    request = VolumeRequest(
        spec=spec(given), project_id=project_id, user_id="user", retry=retry(given.get("retry")), now=now
    )
    others: dict[str, Any] = {}
    if step["op"] == "retype":
        others = {"exists_on": step["from"], "operation": "retype"}
    elif step["op"] == "extend":
        others = {"requested_gb": given["new_size"] - given["size"], "operation": "extend_volume"}
    ranked = _ranked(engine.what_if(), request, others)
    if step["op"] == "retype":
        decision = engine.retype(request, step["from"], migration_policy=step["migration_policy"])
    elif step["op"] == "extend":
        decision = engine.extend(request, given["new_size"], step["backend"])
    elif step["op"] == "passes":
        decision = engine.passes(request, step["backend"])
    else:
        decision = engine.place(request)
        if decision.selection is not None:
            engine.forget(decision.selection.volume_id)
    return None if decision.selection is None else decision.selection.backend_id, ranked


def _ranked(trial: VolumeEngine, request: VolumeRequest, others: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The order that Cinder sees: with what the last attempt was charged given back."""
    if request.retry is not None and request.retry.backends and not others:
        row = trial.pools.row_of.get(request.retry.backends[-1])
        if row is not None:
            trial.pools.consume(row, -request.spec.size_gb)
    ranking = trial._context.ranking(trial._context.filter_properties(request, **others))
    names = (trial.pools.fact(row).backend_id for row in ranking.rows.tolist())
    return list(zip(names, ranking.weights.tolist(), strict=True))


def _step_difference(engine: VolumeEngine, step: Case, got: str | None, ranked: list[tuple[str, float]]) -> str | None:
    if got != step.get("chosen"):
        return f"chose {got} != {step.get('chosen')}"
    if not same_order(ranked, step["ranked"]):
        return f"order {ranked} != {step['ranked']}"
    columns, pools = engine.pools.columns, engine.pools
    for name, figures in step["after"].items():
        row = pools.row(name)
        free = attribute(pools, row, "free_capacity_gb")
        state = [free, columns["allocated"][row].item(), columns["provisioned"][row].item()]
        if not all(map(close, state, figures)):
            return f"{name} afterwards {state} != {figures}"
    return None


def _groups(case: Case, file: Mapping[str, Any]) -> Found:
    engine = engine_of(case)
    request = VolumeGroupRequest(
        volumes=tuple(VolumeRequest(spec=spec(each), user_id="user") for each in case["volumes"]),
        group_type=volume_type(case["group_type"]),
    )
    order, why = group_order(engine._context, request)
    if not same_order(order, case["order"]):
        return f"order {order} != {case['order']} ({why})", None
    chosen = order[0][0] if order else None
    return (None, None) if chosen == case["chosen"] else (f"chose {chosen} != {case['chosen']}", None)


SUITES: Final[Mapping[str, Callable[[Case, Mapping[str, Any]], Found]]] = {
    "evaluator": _expression,
    "extra_specs_match": _match,
    "capacity_factors": _factors,
    "over_subscription_ratio": _ratio,
    "filters": _filters,
    "weighers": _weighers,
    "weigher_edges": _weighers,
    "pipeline": _pipeline,
    "groups": _groups,
}


def compare_cinder(suites: Iterator[Mapping[str, Any]]) -> Tally:
    """Answer every case of every suite and compare all that was recorded of it."""
    tally = Tally()
    for suite in suites:
        for case in suite["cases"]:
            tally.cases += 1
            difference, known = SUITES[suite["suite"]](case, suite)
            if difference is not None:
                tally.differences.append((case["id"], difference))
            elif known is not None:
                tally.known.append((case["id"], known))
            else:
                tally.equal += 1
    return tally
