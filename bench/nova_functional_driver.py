"""Runs tests of Nova's own with Hostler's class in nova-scheduler's place, for bench/nova_functional.py.

Run by the Python of an environment that holds nova and its test requirements, with Hostler on its path:

    python nova_functional_driver.py MODE FALLBACK TEST...

MODE is ``stock`` or a mode of ``[hostler]``; a TEST is the dotted name of a module, class or method.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")  # dnspython would import trio into the patched process

from nova import conf

from hostler.bench.upstream_tests import run
from hostler.drivers.openstack.nova import scheduler, scheduler_service

REGISTRIES: list[Any] = []


def install(mode: str, fallback: str) -> None:
    """Have every nova-scheduler that a test starts run Hostler's class in this mode."""
    scheduler_service.install()
    begin = scheduler.SchedulerManager.__init__

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        conf.CONF.set_override("mode", mode, group="hostler")  # the tests reset all options
        conf.CONF.set_override("fallback", fallback, group="hostler")
        begin(self, *args, **kwargs)
        REGISTRIES.append(self.metrics.registry)

    scheduler.SchedulerManager.__init__ = start  # type: ignore[method-assign]  # the options come with the class


if __name__ == "__main__":
    if sys.argv[1] != "stock":
        install(*sys.argv[1:3])
    run(sys.argv[3:], REGISTRIES)
