"""docs/inside-openstack.md names every option, metric and reason that there is, and the public modules."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
from oslo_config import cfg

import hostler_cinder
import hostler_nova
from hostler.drivers.openstack.agreement import Result
from hostler.drivers.openstack.metrics import Metrics
from hostler.drivers.openstack.nova.scheduler_service import MANAGER
from hostler.drivers.openstack.options import register

PAGE = (Path(__file__).parents[2] / "docs" / "inside-openstack.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"^\| (`[^|]+) \|", PAGE, re.MULTILINE))
WORDS = {word for cell in NAMED for word in re.findall(r"`([^`]+)`", cell)}


def test_every_option_is_in_its_table() -> None:
    conf = cfg.ConfigOpts()
    register(conf)
    assert set(conf.hostler) <= WORDS


def test_every_result_of_a_comparison_is_in_its_table() -> None:
    assert set(get_args(Result)) <= WORDS


def test_every_metric_is_in_its_table() -> None:
    families = Metrics().registry.collect()
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    assert names <= WORDS


def test_every_reason_is_in_its_table() -> None:
    source = Path(__file__).parents[2] / "drivers" / "openstack"
    found = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r"NotModelled\([^)]*field=\"(\w+)\"", path.read_text(encoding="utf-8"))
    }
    assert "chance" in found
    assert found <= WORDS


def test_the_classes_are_named_as_the_modules_have_them() -> None:
    assert MANAGER == "hostler_nova.SchedulerManager"
    assert "scheduler_driver = hostler_cinder.Scheduler" in PAGE
    assert hostler_nova.__all__ == ["SchedulerManager"]
    assert hostler_cinder.__all__ == ["Scheduler"]


@pytest.mark.skipif(find_spec("nova") is not None or find_spec("cinder") is not None, reason="Nova or Cinder is here")
def test_without_nova_and_cinder_the_classes_say_what_is_missing() -> None:
    for module, name, missing in ((hostler_nova, "SchedulerManager", "nova"), (hostler_cinder, "Scheduler", "cinder")):
        with pytest.raises(ModuleNotFoundError, match=f"No module named '{missing}'"):
            getattr(module, name)
        with pytest.raises(AttributeError, match="Managers"):
            getattr(module, "Managers")  # noqa: B009  # not an attribute that a type checker knows
    assert "nova" not in sys.modules
