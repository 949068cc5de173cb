"""Runs unit tests of Cinder's scheduler with Hostler's class in the place of FilterScheduler, for bench/cinder_unit.py.

Run by the Python of an environment that holds cinder and its test requirements, with Hostler on its path:

    python cinder_unit_driver.py MODE FALLBACK TEST...

MODE is ``stock`` or a mode of ``[hostler]``; a TEST is the dotted name of a module, class or method.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")  # dnspython would import trio into the patched process

from cinder.tests.unit.scheduler import fakes, test_filter_scheduler
from oslo_config import cfg

from hostler.bench.upstream_tests import run
from hostler.drivers.openstack.cinder.scheduler import Scheduler

REGISTRIES: list[Any] = []


def install(mode: str, fallback: str) -> None:
    """Have the tests make Hostler's class in this mode."""
    begin = Scheduler.__init__

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        cfg.CONF.set_override("mode", mode, group="hostler")  # the tests reset all options
        cfg.CONF.set_override("fallback", fallback, group="hostler")
        begin(self, *args, **kwargs)
        REGISTRIES.append(self.metrics.registry)

    Scheduler.__init__ = start  # type: ignore[method-assign]  # the options come with the class
    fakes.FakeFilterScheduler.__bases__ = (Scheduler,)
    test_filter_scheduler.FilterSchedulerTestCase.driver_cls = Scheduler


if __name__ == "__main__":
    if sys.argv[1] != "stock":
        install(*sys.argv[1:3])
    run(sys.argv[3:], REGISTRIES)
