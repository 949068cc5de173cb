"""The dashboard and the alert rules name metrics, labels and values that the service really has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from prometheus_client.parser import text_string_to_metric_families

from hostler.core.process.bus_metrics import BusMetrics

from .processes import Daemon, http_of

FOLDER: Final = Path(__file__).resolve().parents[2] / "packaging"
OTHERS: Final = {"up"}
"""Metrics that Prometheus itself makes."""


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return found


def expressions() -> dict[str, str]:
    """What is asked of Prometheus, by where."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:hostler|process)_[a-z_]+|\bup\b(?=\{)", expression))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of samples that a daemon has, histograms' parts included, with the labels that each may have."""
    folder = tmp_path_factory.mktemp("monitored")
    with Daemon(folder, "--http", "127.0.0.1:0") as daemon, daemon.client() as client:
        client.call("add_hosts", {"hosts": [{"host": "n", "vcpus_total": 2, "total_usable_ram_mb": 2_048}]})
        for vcpus in (1, 99):
            spec = {"flavor": {"name": "f", "vcpus": vcpus, "memory_mb": 64}}
            client.call("place", {"request": {"spec": spec}})
        text = httpx.get(f"{http_of(daemon)}/metrics").text
    # The message bus is not served here, so that it is asked by itself.
    bus = BusMetrics()
    bus.looked("cell1")
    families = [*text_string_to_metric_families(text), *bus.collect()]
    found: dict[str, set[str]] = {}
    for family in families:
        names = [f"{family.name}_total"] if family.type == "counter" else [family.name]
        for name in (*names, *(sample.name for sample in family.samples)):
            found.setdefault(name, set())
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


def test_every_metric_that_is_asked_for_is_measured(measured: dict[str, set[str]]) -> None:
    for where, expression in expressions().items():
        names = metrics_of(expression)
        assert names, where
        assert names - OTHERS <= set(measured), where


def test_every_label_that_is_asked_for_is_one_of_the_metric(measured: dict[str, set[str]]) -> None:
    for where, expression in expressions().items():
        for name, matchers in re.findall(r"\b(hostler_[a-z_]+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)=", matchers)) - {"instance"}
            assert labels <= measured[name], where
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            known = set().union(*(measured[name] for name in metrics_of(expression)))
            assert {label.strip() for label in grouped.split(",")} <= known | {"instance"}, where


def test_alerts_have_names_of_their_own_and_say_what_is_wrong() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert {"summary", "description"} <= set(rule["annotations"]), rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_metrics_that_say_that_something_is_wrong_have_an_alert() -> None:
    watched = set().union(*(metrics_of(rule["expr"]) for rule in rules()))
    assert {
        "hostler_writable",
        "hostler_recovery_damages",
        "hostler_audit_lines_lost_total",
        "hostler_connections_refused_total",
        "hostler_reloads_total",
        "hostler_queue_commands",
    } <= watched


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
