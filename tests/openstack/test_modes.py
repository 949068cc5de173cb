"""Who decides in each mode, and what a failure of Hostler's leads to: the class on doubles of Nova's modules."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from oslo_config import cfg

from .nova_objects import request_spec

pytestmark = pytest.mark.skipif(find_spec("nova") is not None, reason="Nova itself is here")
PACKAGE = "hostler.drivers.openstack.nova"


class NoValidHost(Exception):
    """Nova's."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)


class StockManager:
    """What Nova's manager does, as far as the modes go."""

    def __init__(self) -> None:
        self.host_manager = SimpleNamespace(weighers=[], enabled_cells=[])

    def init_host(self) -> None:
        """The process of a worker begins."""

    def _schedule(self, *arguments: Any) -> Any:
        return [[SimpleNamespace(compute_node_uuid="stock")]]


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hostler's class on a double of Nova; ``manager.conf``: its options."""
    conf = cfg.ConfigOpts()
    modules: dict[str, dict[str, Any]] = {
        "sqlalchemy": {"or_": None},
        "nova": {},
        "nova.conf": {"CONF": conf},
        "nova.context": {},
        "nova.exception": {"NoValidHost": NoValidHost},
        "nova.objects": {},
        "nova.version": {"version_string": lambda: "33.0.2"},
        "nova.db": {},
        "nova.db.main": {},
        "nova.db.main.api": {"pick_context_manager_reader": lambda function: function},
        "nova.db.main.models": {},
        "nova.scheduler": {},
        "nova.scheduler.manager": {"SchedulerManager": StockManager},
        "nova.scheduler.utils": {},
        "nova.scheduler.client": {},
        "nova.scheduler.client.report": {"PLACEMENTCLIENT": None},
    }
    made = {name: ModuleType(name) for name in modules}
    for name, values in modules.items():
        vars(made[name]).update(values)
        monkeypatch.setitem(sys.modules, name, made[name])
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, made[name])
    parts = ("answers", "database", "scheduler", "state")
    for part in parts:
        monkeypatch.delitem(sys.modules, f"{PACKAGE}.{part}", raising=False)
    found = import_module(f"{PACKAGE}.scheduler").SchedulerManager()
    found.conf = conf
    yield found
    for part in parts:
        sys.modules.pop(f"{PACKAGE}.{part}", None)


def schedule(manager: Any, **options: Any) -> str:
    """Who answered a request of the project ``project``."""
    for name, value in options.items():
        manager.conf.set_override(name, value, group="hostler")
    answer = manager._schedule(None, request_spec(), ["uuid"], {}, {}, "1.36", True)
    return str(answer[0][0].compute_node_uuid)


def live(manager: Any, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    def answer(asked: Any) -> Any:
        if error is not None:
            raise error
        return [[SimpleNamespace(compute_node_uuid="hostler")]]

    monkeypatch.setattr(manager, "_live", answer)


def test_stock_decides_in_shadow_mode(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live(manager, monkeypatch)
    assert schedule(manager) == "stock"
    assert manager.metrics.value("hostler_requests_total", decided_by="nova", outcome="placed") == 1


def test_hostler_decides_in_live_mode(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live(manager, monkeypatch)
    assert schedule(manager, mode="live") == "hostler"


def test_a_worker_has_connections_of_its_own_to_placement(
    manager: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = sys.modules["nova.scheduler.client.report"]
    monkeypatch.setattr(report, "PLACEMENTCLIENT", "of the process that made the manager")
    worker = os.fork()
    if not worker:
        manager.init_host()
        drawn = manager._choices.random()
        (tmp_path / "worker").write_text(f"{report.PLACEMENTCLIENT} {drawn}")
        os._exit(0)
    os.waitpid(worker, 0)
    assert (tmp_path / "worker").read_text().startswith("None ")
    assert float((tmp_path / "worker").read_text().split()[1]) != manager._choices.random()
    manager.init_host()
    assert report.PLACEMENTCLIENT == "of the process that made the manager"


def test_a_canary_takes_its_projects_and_its_share(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live(manager, monkeypatch)
    assert schedule(manager, mode="canary") == "stock"
    assert schedule(manager, canary_projects=["project"]) == "hostler"
    assert schedule(manager, canary_projects=["another"]) == "stock"
    manager._choices.seed(1)
    share = [schedule(manager, canary_percent=30.0) for _ in range(1000)].count("hostler")
    assert 250 < share < 350


@pytest.mark.parametrize(
    ("fallback", "kind", "who"),
    [
        ("always", "not_modelled", "stock"),
        ("always", "failure", "stock"),
        ("unsupported", "not_modelled", "stock"),
        ("unsupported", "failure", None),
        ("never", "not_modelled", None),
        ("never", "failure", None),
    ],
)
def test_a_failure_leads_to_what_the_option_says_and_is_counted(
    manager: Any, monkeypatch: pytest.MonkeyPatch, fallback: str, kind: str, who: str | None
) -> None:
    requests = import_module(f"{PACKAGE}.requests")
    failure = RuntimeError("lost") if kind == "failure" else requests.NotModelled("new", field="request_field")
    live(manager, monkeypatch, failure)
    if who is not None:
        assert schedule(manager, mode="live", fallback=fallback) == who
    else:
        with pytest.raises(NoValidHost, match="could not decide"):
            schedule(manager, mode="live", fallback=fallback)
    reason = "exception" if kind == "failure" else "request_field"
    assert manager.metrics.value("hostler_fallbacks_total", reason=reason) == 1
    assert manager.metrics.value("hostler_failures_total", error="RuntimeError") == (kind == "failure")


def test_a_request_without_a_host_is_an_answer_and_no_failure(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    live(manager, monkeypatch, NoValidHost("full"))
    with pytest.raises(NoValidHost, match="full"):
        schedule(manager, mode="live", fallback="always")
    assert not manager.metrics.value("hostler_fallbacks_total", reason="exception")
