"""Recorded answers of real schedulers against the engine's public API: the functions that answer, and the command that
compares.

``nova(case)`` answers one recorded case of Nova 33. Where Nova crashes, the engine answers sensibly; ``nova`` then
says both: Nova's exception in ``error``, the engine's answer beside it, and ``known_difference`` names the kind
(docs/nova-differences.md).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cyclopts
import msgspec

from ..placement.decide.engine import Engine
from ..placement.decide.scan import Ranked
from ..placement.fleet.fleet import Fleet
from ..placement.fleet.host_view import HostView
from ..placement.load.bulk import add_hosts
from ..placement.policy.policy import Policy
from ..placement.request.placement_query import placement_query
from ..placement.request.prefilters import NoImage
from ..placement.types.decision import Decision
from ..placement.types.errors import HostlerError, InvalidValue, MetricNotFound, NoValidHost
from ..placement.types.request import Request, ServerGroup
from . import nova_cases
from .parity_cinder import compare_cinder, read_suites
from .parity_tally import Tally

Case = dict[str, Any]
Answer = dict[str, Any]

app = cyclopts.App(name="parity", help="Compare the engine with recorded answers of other schedulers.")

STATE_FIELDS: Final = ("free_ram_mb", "free_disk_mb", "vcpus_used", "num_instances", "num_io_ops")


# answering


def nova(case: Case) -> Answer:
    """Answer a recorded case (without its ``expected``), as tools/check_parity.py documents it for the three kinds."""
    answers: dict[str, Callable[[Case], Answer]] = {"sorted": _sorted, "schedule": _schedule, "query": _query}
    return answers[case["kind"]](case)


def _engine(case: Case, nova_bugs: bool = False) -> Engine:
    values = nova_cases.option_values(case)
    own = {"weigher_order": list(case.get("weigher_order", ())), "nova_bugs": nova_bugs, "prepare": False}
    values = {**values, "hostler": own | {"nova_release": case.get("nova_version", "33").partition(".")[0]}}
    fleet = Fleet()
    hosts = nova_cases.hosts(case)
    fleet._aggregate_ids(nova_cases.aggregates(case))
    add_hosts(fleet, hosts)
    return Engine(fleet, Policy.from_mapping(values))


def _candidates(case: Case) -> dict[str, list[str]]:
    without = set(case.get("no_candidates_for") or ())
    return {host["uuid"]: [] if host["uuid"] in without else ["candidate"] for host in case["hosts"]}


def _sorted(case: Case) -> Answer:
    engine, request = _engine(case), nova_cases.request(case)
    try:
        ranked = engine.rank(request, candidates=_candidates(case))
    except InvalidValue as error:
        return {"error": "ValueError", "message": str(error)}
    except MetricNotFound as error:
        return {"error": "ComputeHostMetricNotFound", "message": str(error)}
    fleet = engine.fleet
    answer: Answer = {
        "error": None,
        "eliminated": _eliminated(fleet, ranked),
        "ordered": [
            [*_name(fleet, row), weight]
            for row, weight in zip(ranked.rows.tolist(), ranked.weights.tolist(), strict=True)
        ],
        "weighers": _weighers(engine, ranked, request),
    }
    crash = None if ranked.filters_skipped else _crash(engine, ranked, request)
    if crash is not None:
        answer.update(error=crash, known_difference=f"Nova raises {crash}")
    return answer


def _name(fleet: Fleet, row: int) -> list[str]:
    return [fleet._service_host(row), fleet.name(row)]


def _eliminated(fleet: Fleet, ranked: Ranked) -> dict[str, list[list[str]]]:
    eliminated: dict[str, list[list[str]]] = {}
    for row, verdict in zip(ranked.considered.tolist(), ranked.refusing_stages.tolist(), strict=True):
        if 0 < verdict < len(ranked.signature.stages):
            eliminated.setdefault(ranked.signature.stages[verdict].name, []).append(_name(fleet, row))
    return eliminated


def _weighers(engine: Engine, ranked: Ranked, request: Request) -> dict[str, Any] | None:
    """Raw, normalised and multiplier lists by weigher that counts for this request, over the hosts in order."""
    if len(ranked.rows) <= 1:
        return None
    assert ranked.scan is not None
    columns = ranked.signature.ranking.parts(ranked.rows, ranked.scan.members(ranked.rows))
    return {
        weigher.name: {"raw": raw.tolist(), "normalized": normalised.tolist(), "multiplier": multiplier.tolist()}
        for weigher, (raw, normalised, multiplier) in zip(ranked.signature.weighers, columns, strict=True)
    }


def _crash(engine: Engine, ranked: Ranked, request: Request) -> str | None:
    """The exception that Nova raises while its filters look at these hosts, if it does."""
    for stage in ranked.signature.stages:
        if stage.filter is None or not stage.filter.applies(request):
            continue
        for row, verdict in zip(ranked.considered.tolist(), ranked.refusing_stages.tolist(), strict=True):
            if verdict == 0 or stage.number <= verdict < len(ranked.signature.stages):
                crash = stage.filter.nova_error(HostView(engine.fleet, row), request)
                if crash is not None:
                    return crash
    return None


def _schedule(case: Case) -> Answer:
    answer, engine = _scheduled(case, nova_bugs=False)
    crash = _crash_of_schedule(case)
    if crash is not None:
        nothing: Answer = {"selections": None, "claims": [], "host_state_after": []}
        return {"error": crash, **nothing, "hostler": answer, "known_difference": f"Nova raises {crash}"}
    if answer["error"] is not None:
        # What was consumed for the instances before the one that was refused is gone from the state: tried anyway.
        answer["as_nova"], _ = _scheduled(case, nova_bugs=True)
    if any(extras.numa is not None and not extras.numa.nova_charges for extras in engine.fleet._extras.values()):
        as_nova, _ = _scheduled(case, nova_bugs=True)
        as_nova["hostler"] = answer
        as_nova["known_difference"] = "Nova forgets to charge the NUMA cells"
        return as_nova
    return answer


def _crash_of_schedule(case: Case) -> str | None:
    """The exception that Nova raises while its filters look at the hosts for the first instance, if it does."""
    engine, request = _engine(case), nova_cases.request(case)
    try:
        ranked = engine.rank(request, candidates=_candidates(case))
    except MetricNotFound:
        return "ComputeHostMetricNotFound"
    return None if ranked.filters_skipped else _crash(engine, ranked, request)


def _scheduled(case: Case, *, nova_bugs: bool) -> tuple[Answer, Engine]:
    engine, request = _engine(case, nova_bugs), nova_cases.request(case)
    failing = set(case.get("claim_fails_on") or ())

    def claim(instance: str, provider: str, allocations: Mapping[str, Any]) -> bool:
        return provider not in failing

    decision = engine.place(request, candidates=_candidates(case), claim=claim)
    rows = [[[s.host, s.node], *([a.host, a.node] for a in s.alternates)] for s in decision.selections]
    answer = {
        "error": None if decision.placed else "NoValidHost",
        "selections": rows if decision.placed else None,
        "claims": [list(each) for each in decision.claims],
        "group_hosts": _group_hosts(request, decision) if decision.placed else None,
        # A refusal leaves our state as it was; Nova's host states keep what they had consumed until they are next
        # refreshed.
        "host_state_after": [_state(engine.fleet, host) for host in case["hosts"]] if decision.placed else [],
    }
    return answer, engine


def _group_hosts(request: Request, decision: Decision) -> list[str] | None:
    """Service hosts of a supplied server group after a placement."""
    group = request.server_group
    if not isinstance(group, ServerGroup):
        return None
    return sorted(group.hosts | {each.host for each in decision.selections})


def _state(fleet: Fleet, host: Mapping[str, Any]) -> dict[str, Any]:
    view = HostView(fleet, fleet.row_of_uuid(host["uuid"]))
    figures = {name: getattr(view, name) for name in STATE_FIELDS}
    cells = None if view.numa_topology is None else [msgspec.to_builtins(each) for each in view.numa_topology.cells]
    pools = [{**pool.tags, "numa_node": pool.numa_node, "count": pool.count} for pool in view.pci_pools]
    return {"host": view.host, **figures, **_parts({"cells": cells, "pools": pools})}


def _parts(state: Mapping[str, Any]) -> dict[str, Any]:
    """NUMA cells and PCI pools of a host in comparable form. Which thread of a core is pinned is undefined: threads are
    counted by core. (The instances that Nova's host state lists are those before the claims.)"""
    cells = []
    for cell in state["cells"] or ():
        pinned, cores = set(cell["pinned_cpus"]), [set(core) for core in cell["siblings"]]
        alone = pinned.difference(*cores)
        used = sorted((pages["size_kb"], pages["used"]) for pages in cell["mempages"])
        by_core = sorted((min(core), len(core & pinned)) for core in cores)
        cells.append([cell["id"], cell["cpu_usage"], cell["memory_usage"], used, by_core, sorted(alone)])
    pools = sorted(
        sorted((name, str(value)) for name, value in pool.items()) for pool in state["pools"] or () if pool["count"]
    )
    return {"cells": cells, "pools": pools}


def _query(case: Case) -> Answer:
    engine, request = _engine(case), nova_cases.request(case)
    fleet = engine.fleet

    def lookup(host: str | None, node: str | None, cell_uuid: str | None) -> list[str]:
        rows = fleet._rows_of_service_host(host) if host is not None else range(fleet.rows)
        rows = [row for row in rows if node is None or fleet.name(row) == node]
        return [fleet.uuid(row) for row in rows if cell_uuid is None or fleet._host_class(row).cell_uuid == cell_uuid]

    try:
        query = placement_query(request, fleet.aggregates, lookup, engine.policy.options)
    except NoValidHost:
        return {"error": "NoValidHost", "queries": None}
    except NoImage:
        return {"error": "AttributeError", "queries": None}
    return {"error": None, "queries": query.to_querystrings()}


# comparing


def compare_nova(cases: Iterator[Case]) -> Tally:
    """Answer every case and compare all that was recorded of it. A known difference counts as one only if Nova's own
    behaviour, asked for by ``nova_bugs``, gives what was recorded."""
    tally = Tally()
    for case in cases:
        expected = case.pop("expected")
        tally.cases += 1
        try:
            answer = nova(case)
            difference = next(_differences(case, expected, answer), None)
            as_nova = answer.get("as_nova")
            if difference is not None and as_nova and next(_differences(case, expected, as_nova), None) is None:
                difference, answer["known_difference"] = None, "Nova forgets to charge the NUMA cells"
        except HostlerError as error:
            answer, difference = {}, f"refused: {error}"
        except Exception as error:  # a case that breaks the engine, or that is malformed, must not hide the others
            answer, difference = {}, f"failed: {type(error).__name__}: {error}"
        if answer.get("known_difference") and difference is None:
            tally.known.append((case["id"], answer["known_difference"]))
        elif difference is None:
            tally.equal += 1
        else:
            tally.differences.append((case["id"], difference))
    return tally


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(b))


def _differences(case: Case, expected: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    if case["kind"] == "query":
        yield from _query_differences(expected["placement_query"], answer)
        return
    yield from _query_differences(expected["placement_query"], _query(case))
    if case["kind"] == "schedule":
        yield from _schedule_differences(expected["schedule"], answer)
        return
    error = expected["error"]["type"] if expected["error"] else None
    if answer["error"] != error:
        yield f"error {answer['error']} != {error}"
    if error is None:
        yield from _sorted_differences(expected, answer)


def _query_differences(expected: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    error = expected["error"]["type"] if expected["error"] else None
    if answer["error"] != error:
        yield f"query error {answer['error']} != {error}"
    elif error is None and answer["queries"] != expected["queries"]:
        yield f"queries {answer['queries']} != {expected['queries']}"


def _schedule_differences(expected: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    error = expected["error"]["type"] if expected["error"] else None
    if answer["error"] != error:
        yield f"error {answer['error']} != {error}"
    wanted = expected["selections"]
    if wanted is not None:
        wanted = [[[each["host"], each["node"]] for each in row] for row in wanted]
    if answer["selections"] != wanted:
        yield f"selections {answer['selections']} != {wanted}"
    if answer["claims"] != expected["claims"]:
        yield f"claims {answer['claims']} != {expected['claims']}"
    for got, want in zip(answer["host_state_after"], expected["host_state_after"], strict=False):
        for name in STATE_FIELDS:
            if got[name] != want[name]:
                yield f"{name} of {want['host']} afterwards: {got[name]} != {want[name]}"
        topology = want["numa_topology"]
        cells = None if topology is None else topology["cells"]
        parts = _parts({"cells": cells, "pools": want["pci_pools"]})
        for name, part in parts.items():
            if got[name] != part:
                yield f"{name} of {want['host']} afterwards: {got[name]} != {part}"
    hosts = expected.get("group_hosts_after")
    got_hosts = answer.get("group_hosts")
    if error is None and hosts is not None and got_hosts is not None and sorted(set(hosts)) != got_hosts:
        yield f"hosts of the group afterwards: {got_hosts} != {sorted(set(hosts))}"


def _sorted_differences(expected: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    for trace in expected["filter_trace"]:
        got = sorted(answer["eliminated"].get(trace["filter"], []))
        if got != sorted(trace["eliminated"]):
            yield f"{trace['filter']} eliminated {got} != {sorted(trace['eliminated'])}"
    got = [each[:2] for each in answer["ordered"]]
    wanted = [[each["host"], each["node"]] for each in expected["ordered"]]
    weights = {(each["host"], each["node"]): each["weight"] for each in expected["ordered"]}
    for host, node, weight in answer["ordered"]:
        if (host, node) in weights and not _close(weight, weights[host, node]):
            yield f"weight of {host} {weight!r} != {weights[host, node]!r}"
    if got != wanted:
        yield f"order {got} != {wanted}"
    yield from _weigher_differences(expected, answer)


def _weigher_differences(expected: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    if expected["weighers"] is None or answer["weighers"] is None:
        if (expected["weighers"] is None) != (answer["weighers"] is None):
            yield "weighers ran on one side only"
        return
    order = {tuple(each[:2]): position for position, each in enumerate(answer["ordered"])}
    places = [order[tuple(name)] for name in map(tuple, expected["filtered"])]
    for name, wanted in _by_name(expected["weighers"]):
        got = answer["weighers"].get(name)
        if got is None:
            # Left out by the engine because it adds nothing: all alike, or multiplied by 0.
            if any(n * m for n, m in zip(wanted["normalized"], _each(wanted["multiplier"], places), strict=True)):
                yield f"{name} was left out"
            continue
        for figure in ("raw", "normalized", "multiplier"):
            for place, value in zip(places, _each(wanted[figure], places), strict=True):
                if not _close(got[figure][place], value):
                    yield f"{name} {figure} of {answer['ordered'][place][0]}: {got[figure][place]!r} != {value!r}"


def _each(value: Any, places: list[int]) -> list[float]:
    return list(value) if isinstance(value, list) else [value] * len(places)


def _by_name(weighers: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(weighers, Mapping):
        yield from weighers.items()
    else:
        for each in weighers:
            yield each.get("weigher") or each["name"], each


@app.command(name="nova")
def nova_command(*paths: Path) -> int:
    """Compare with recorded answers of Nova 33: folders of .json cases, .json, .jsonl or .jsonl.gz files.

    Prints every difference and, last, "nova parity: N of M cases equal". Exit code 1 if any case differs that is no
    known difference.
    """
    _check_paths(paths)
    tally = compare_nova(itertools.chain.from_iterable(nova_cases.read_cases(path) for path in paths))
    return _report("nova", tally)


@app.command(name="cinder")
def cinder_command(*paths: Path) -> int:
    """Compare with recorded answers of Cinder 29: folders of .json.gz suites, or single files.

    Prints every difference and, last, "cinder parity: N of M cases equal". Exit code 1 if any case differs that is no
    known difference.
    """
    _check_paths(paths)
    tally = compare_cinder(itertools.chain.from_iterable(map(read_suites, paths)))
    return _report("cinder", tally)


def _check_paths(paths: Sequence[Path]) -> None:
    if not paths:
        raise InvalidValue("name at least one folder or file of recorded cases", field="paths")
    for path in paths:
        if not path.exists():
            raise InvalidValue(f"{path} does not exist", field="paths")


def _report(name: str, tally: Tally) -> int:
    """Print how a comparison went; the command's exit code."""
    for case, difference in tally.differences:
        print(f"DIFFERS {case}: {difference}")
    for case, difference in tally.known:
        print(f"known difference {case}: {difference}", file=sys.stderr)
    print(f"{len(tally.known)} known differences (docs/{name}-differences.md)")
    print(f"{name} parity: {tally.equal} of {tally.cases} cases equal")
    return 0 if tally.equal + len(tally.known) == tally.cases else 1
