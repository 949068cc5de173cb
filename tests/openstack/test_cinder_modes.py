"""Who decides in each mode of Hostler's class for Cinder, and what a failure leads to: on doubles of Cinder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from oslo_config import cfg

from .test_kept_pools import OPTIONS, A, B, asked, pool

pytestmark = pytest.mark.skipif(find_spec("cinder") is not None, reason="Cinder itself is here")
PACKAGE = "hostler.drivers.openstack.cinder"


class NoValidBackend(Exception):
    """Cinder's."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)


class WeighedHost:
    """Cinder's."""

    def __init__(self, obj: Any, weight: float) -> None:
        self.obj, self.weight = obj, weight


class StockHostManager:
    """Lets all pools pass, and weighs them in the order of their names: another order than Hostler's."""

    def __init__(self) -> None:
        self.service_states: dict[str, int] = {}

    def get_filtered_backends(self, backends: Sequence[Any], properties: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return list(backends)

    def get_weighed_backends(self, backends: Sequence[Any], properties: Any, *args: Any, **kwargs: Any) -> list[Any]:
        named = sorted(backends, key=lambda state: str(state.backend_id))
        return [WeighedHost(state, 0.0) for state in named]


class FilterScheduler:
    """As far as the modes go."""

    def __init__(self) -> None:
        self.host_manager = StockHostManager()


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hostler's class on a double of Cinder; ``scheduler.conf``: the options."""
    conf = cfg.CONF
    modules: dict[str, dict[str, Any]] = {
        "cinder": {},
        "cinder.exception": {"NoValidBackend": NoValidBackend},
        "cinder.scheduler": {},
        "cinder.scheduler.filter_scheduler": {"FilterScheduler": FilterScheduler},
        "cinder.scheduler.weights": {"WeighedHost": WeighedHost},
    }
    made = {name: ModuleType(name) for name in modules}
    for name, values in modules.items():
        vars(made[name]).update(values)
        monkeypatch.setitem(sys.modules, name, made[name])
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(made[parent], last, made[name])
    monkeypatch.delitem(sys.modules, f"{PACKAGE}.scheduler", raising=False)
    module = import_module(f"{PACKAGE}.scheduler")
    found = module.Scheduler()
    use = found._judge.kept.use
    monkeypatch.setattr(found._judge.kept, "use", lambda options: use(OPTIONS))
    found.conf = conf
    yield found
    sys.modules.pop(f"{PACKAGE}.scheduler", None)


def chosen(scheduler: Any, request_id: str | None = None, project: str = "project", **options: Any) -> str | None:
    """The best pool for a request; by free space Hostler's is B, and stock's is A."""
    for name, value in options.items():
        scheduler.conf.set_override(name, value, group="hostler")
    properties = asked() | {"context": SimpleNamespace(project_id=project, request_id=request_id)}
    manager = scheduler.host_manager
    passed = manager.get_filtered_backends([pool(A, 50), pool(B, 200)], properties)
    weighed = manager.get_weighed_backends(passed, properties)
    return weighed[0].obj.backend_id if weighed else None


@pytest.fixture(autouse=True)
def no_overrides() -> Iterator[None]:
    yield
    if "hostler" in cfg.CONF:
        for name in cfg.CONF.hostler:
            cfg.CONF.clear_override(name, group="hostler")


def test_stock_decides_in_shadow_mode_and_is_compared(scheduler: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(scheduler, mode="shadow") == A
    assert scheduler.metrics.value("hostler_shadow_comparisons_total", result="other") == 1
    assert f"stock chose {A}" in caplog.text
    assert f"Hostler chose {B}" in caplog.text


def test_hostler_decides_in_live_mode(scheduler: Any) -> None:
    assert chosen(scheduler, mode="live") == B
    assert scheduler.metrics.value("hostler_requests_total", decided_by="hostler", outcome="placed") == 1


def test_a_canary_takes_its_projects(scheduler: Any) -> None:
    assert chosen(scheduler, mode="canary") == A
    assert chosen(scheduler, canary_projects=["project"]) == B
    assert chosen(scheduler, canary_projects=["another"]) == A


def test_a_canary_takes_its_share_of_requests_and_each_of_them_throughout(scheduler: Any) -> None:
    scheduler.conf.set_override("mode", "canary", group="hostler")
    scheduler.conf.set_override("canary_percent", 30.0, group="hostler")
    ids = [f"req-{number}" for number in range(400)]
    first = [chosen(scheduler, request_id) for request_id in ids]
    assert 80 < first.count(B) < 160
    assert [chosen(scheduler, request_id) for request_id in ids[:50]] == first[:50]


@pytest.mark.parametrize(
    ("fallback", "kind", "best"),
    [
        ("always", "not_modelled", A),
        ("always", "failure", A),
        ("unsupported", "not_modelled", A),
        ("unsupported", "failure", None),
        ("never", "not_modelled", None),
        ("never", "failure", None),
    ],
)
def test_a_failure_leads_to_what_the_option_says_and_is_counted(
    scheduler: Any, monkeypatch: pytest.MonkeyPatch, fallback: str, kind: str, best: str | None
) -> None:
    from hostler.drivers.openstack.cinder.kept_pools import NotModelled

    def fail(states: Any, properties: Any) -> Any:
        raise RuntimeError("lost") if kind == "failure" else NotModelled("new", field="same_host")

    monkeypatch.setattr(scheduler._judge.kept, "judge", fail)
    if best is not None:
        assert chosen(scheduler, mode="live", fallback=fallback) == best
    else:
        with pytest.raises(NoValidBackend, match="could not decide"):
            chosen(scheduler, mode="live", fallback=fallback)
    value = scheduler.metrics.value
    assert value("hostler_fallbacks_total", reason="exception" if kind == "failure" else "same_host") == 1
    assert value("hostler_failures_total", error="RuntimeError") == (kind == "failure")
    assert value("hostler_requests_total", decided_by="hostler", outcome="failed") == (best is None)


def test_a_failed_comparison_leaves_the_answer_alone(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(states: Any, properties: Any) -> Any:
        raise RuntimeError("lost")

    monkeypatch.setattr(scheduler._judge.kept, "judge", fail)
    assert chosen(scheduler, mode="shadow", fallback="never") == A
    assert scheduler.metrics.value("hostler_shadow_comparisons_total", result="error") == 1


@pytest.mark.parametrize("sizes", [(50, 200), (1, 1)])
def test_an_explanation_that_fails_leaves_the_answer_alone(
    scheduler: Any, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int]
) -> None:
    def fail(judged: Any, name: str) -> Any:
        raise IndexError("another request has changed the pools")

    monkeypatch.setattr(scheduler._judge.kept, "reason", fail)
    manager, refuse = scheduler.host_manager, sizes[0] == 1
    states = [pool(A, 150), pool(B, 200)]
    if refuse:
        monkeypatch.setattr(manager._manager, "get_filtered_backends", lambda *arguments: [])
    passed = manager.get_filtered_backends(states, asked())
    weighed = manager.get_weighed_backends(passed, asked()) if passed else []
    assert [each.obj.backend_id for each in weighed] == ([] if refuse else [A, B])
    assert scheduler.metrics.value("hostler_shadow_comparisons_total", result="error") == 1


def test_no_pool_is_an_answer_and_no_failure(scheduler: Any) -> None:
    scheduler.conf.set_override("mode", "live", group="hostler")
    passed = scheduler.host_manager.get_filtered_backends([pool(A, 1)], asked())
    assert passed == []
    assert scheduler.metrics.value("hostler_requests_total", decided_by="hostler", outcome="no_valid_host") == 1


def test_all_else_is_the_host_managers_own(scheduler: Any) -> None:
    scheduler.host_manager.service_states = {"h": 1}
    assert scheduler.host_manager.service_states == {"h": 1}
    assert scheduler.host_manager._manager.service_states == {"h": 1}
