"""Makes the small samples of recorded answers in tests/data: cases of Nova and Cinder in Hostler's own values.

``python -m hostler.bench.parity_sample nova CASES FILE`` and ``... cinder FOLDER FILE`` select cases from full
recordings and write them as gzipped JSON lines. Only cases whose answers are equal are selected, so that a sample
contains no known difference.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cyclopts
import msgspec

from . import nova_cases, parity, parity_cinder

Sample = dict[str, Any]

app = cyclopts.App(name="parity_sample", help=__doc__)

PER_TAG: Final = 1
"""Cases of Nova per tag; a tag stands for one filter, weigher or combination."""
PER_SUITE: Final = {
    "evaluator": 40,
    "extra_specs_match": 60,
    "capacity_factors": 24,
    "over_subscription_ratio": 20,
    "filters": 16,
    "weighers": 16,
    "pipeline": 12,
    "groups": 8,
}
"""Cases of Cinder per suite."""


def plain(value: Any) -> Any:
    """A dataclass value as plain data without fields that have their default. O(size)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: plain(each) for field, each in fields if not _is_default(field, each)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, frozenset | set):
        return sorted(plain(each) for each in value)
    return msgspec.to_builtins(value)


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and type(field.default) is type(value) and field.default == value


# Nova


def nova_sample(case: parity.Case) -> Sample | None:
    """A recorded case of Nova as a sample; None if the engine's answer is not simply equal."""
    expected = case["expected"]
    tally = parity.compare_nova(iter([dict(case)]))
    if not tally.equal:
        return None
    options = {group: dict(values) for group, values in nova_cases.option_values(case).items()}
    return {
        "tag": case["tag"],
        "kind": case["kind"],
        "options": {**options, "hostler": {"weigher_order": list(case.get("weigher_order", ()))}},
        "aggregates": plain(nova_cases.aggregates(case)),
        "hosts": plain(nova_cases.hosts(case)),
        "request": plain(nova_cases.request(case)),
        "failing_claims": list(case.get("claim_fails_on") or ()),
        "without_candidates": list(case.get("no_candidates_for") or ()),
        "queries": expected["placement_query"]["queries"],
        "expected": _EXPECTED[case["kind"]](expected),
    }


def _ordered(expected: Mapping[str, Any]) -> Sample:
    return {
        "error": expected["error"]["type"] if expected["error"] else None,
        "order": [[each["node"], each["weight"]] for each in expected["ordered"] or ()],
        "removed": {
            trace["filter"]: sorted(node for _, node in trace["eliminated"])
            for trace in expected["filter_trace"] or ()
            if trace.get("eliminated")
        },
    }


def _scheduled(expected: Mapping[str, Any]) -> Sample:
    answer = expected["schedule"]
    selections = answer["selections"]
    return {
        "error": answer["error"]["type"] if answer["error"] else None,
        "selections": selections and [[each["node"] for each in row] for row in selections],
        "claims": answer["claims"],
    }


_EXPECTED: Final[Mapping[str, Callable[[Mapping[str, Any]], Sample]]] = {
    "sorted": _ordered,
    "schedule": _scheduled,
    "query": lambda expected: {"error": (expected["placement_query"]["error"] or {}).get("type")},
}


def nova_samples(cases: Iterable[parity.Case]) -> Iterator[Sample]:
    """Up to ``PER_TAG`` samples of each tag, those with the most distinct answers of a few tried."""
    by_tag: dict[str, list[Sample]] = defaultdict(list)
    for case in cases:
        tag = case["tag"]
        if len(by_tag[tag]) < 4 and (sample := nova_sample(case)) is not None:
            by_tag[tag].append(sample)
    for samples in by_tag.values():
        yield from sorted(samples, key=_variety, reverse=True)[:PER_TAG]


def _variety(sample: Sample) -> tuple[bool, int]:
    """A sample in which hosts both pass and are refused tells most."""
    expected = sample["expected"]
    removed = sum(map(len, expected.get("removed", {}).values()))
    passed = len(expected.get("order") or expected.get("selections") or ())
    return bool(removed and passed), min(removed, passed)


# Cinder


def cinder_sample(suite: str, case: parity.Case, file: Mapping[str, Any]) -> Sample | None:
    """A recorded case of Cinder as a sample; None if the engine's answer is not simply equal."""
    if parity_cinder.SUITES[suite](case, file) != (None, None):
        return None
    if suite in ("filters", "weighers", "pipeline", "groups"):
        return {"suite": suite, **_world(case), **_STORAGE[suite](case, file)}
    return {"suite": suite, **{key: value for key, value in case.items() if key != "id"}, "vars": file.get("vars")}


def _world(case: parity.Case) -> Sample:
    world = case.get("world") or {}
    return {
        "backends": [
            [each["host"], each["cluster_name"], each["availability_zone"], each["is_up"], each["capabilities"]]
            for each in case["reports"]
        ],
        "volumes": [
            [each["id"], each["host"], each["cluster_name"], each["size"], each["project_id"]]
            for each in world.get("volumes", ())
            if not each["deleted"]
        ],
        "instances": world.get("instances") or {},
    }


def _asked(case: parity.Case, file: Mapping[str, Any]) -> Sample:
    request = case["request"]
    return {
        "spec": plain(parity_cinder.spec(request)),
        "project_id": file.get("project_id", ""),
        "requested_gb": request["new_size"] - request["size"] if request.get("new_size") else None,
        "operation": case.get("operation", "create_volume"),
        "exists_on": request.get("vol_exists_on"),
        "retry": plain(parity_cinder.retry(request.get("retry"))),
    }


def _multipliers(case: parity.Case) -> Sample:
    given = case["multipliers"]
    return {
        "capacity_weight_multiplier": given["capacity"],
        "allocated_capacity_weight_multiplier": given["allocated"],
        "volume_number_multiplier": given["volume_number"],
    }


def _filtered(case: parity.Case, file: Mapping[str, Any]) -> Sample:
    return {**_asked(case, file), "passed": {name: sorted(each["passed"]) for name, each in case["filters"].items()}}


def _weighed(case: parity.Case, file: Mapping[str, Any]) -> Sample:
    options = {"scheduler_default_weighers": case["weighers"], **_multipliers(case)}
    return {**_asked(case, file), "options": options, "order": case["order"]}


def _steps(case: parity.Case, file: Mapping[str, Any]) -> Sample:
    options = {
        "scheduler_default_filters": case["filters"],
        "scheduler_default_weighers": case["weighers"],
        **_multipliers(case),
    }
    steps = [
        {
            "operation": step["op"],
            "spec": plain(parity_cinder.spec(step["request"])),
            "retry": plain(parity_cinder.retry(step["request"].get("retry"))),
            "new_size_gb": step["request"].get("new_size"),
            "backend": step.get("from") or step.get("backend"),
            "migration_policy": step.get("migration_policy"),
            "chosen": step.get("chosen"),
            "after": step["after"],
        }
        for step in case["steps"]
    ]
    return {"options": options, "project_id": file["project_id"], "steps": steps}


def _grouped(case: parity.Case, file: Mapping[str, Any]) -> Sample:
    return {
        "group_type": plain(parity_cinder.volume_type(case["group_type"])),
        "specs": [plain(parity_cinder.spec(each)) for each in case["volumes"]],
        "order": case["order"],
    }


_STORAGE: Final[Mapping[str, Callable[[parity.Case, Mapping[str, Any]], Sample]]] = {
    "filters": _filtered,
    "weighers": _weighed,
    "pipeline": _steps,
    "groups": _grouped,
}


def cinder_samples(suites: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
    """``PER_SUITE`` samples of each suite, spread evenly over its cases."""
    for suite in suites:
        most, cases = PER_SUITE.get(suite["suite"], 0), suite["cases"]
        samples = (cinder_sample(suite["suite"], case, suite) for case in cases[:: max(1, len(cases) // max(most, 1))])
        yield from (sample for sample in samples if sample is not None and most)


# command


@app.command(name="nova")
def nova_command(cases: Path, file: Path) -> None:
    """Sample recorded cases of Nova."""
    _write(file, nova_samples(nova_cases.read_cases(cases)))


@app.command(name="cinder")
def cinder_command(cases: Path, file: Path) -> None:
    """Sample recorded suites of Cinder."""
    _write(file, cinder_samples(parity_cinder.read_suites(cases)))


def _write(file: Path, samples: Iterable[Sample]) -> None:
    """JSON lines, gzipped without a time, so that equal samples are equal files."""
    lines = [json.dumps(_numbers(sample), sort_keys=True, separators=(",", ":")) for sample in samples]
    file.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode(), mtime=0))
    print(f"{len(lines)} samples, {file.stat().st_size} bytes")


def _numbers(value: Any) -> Any:
    """Infinities as strings, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    app()
