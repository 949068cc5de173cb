"""Runs tests of Nova's own with Hostler's class in nova-scheduler's place, for bench/nova_functional.py.

Run by the Python of an environment that holds nova and its test requirements, with Hostler on its path:

    python nova_functional_driver.py MODE FALLBACK TEST...

MODE is ``stock`` or a mode of ``[hostler]``; a TEST is the dotted name of a module, class or method.
"""

from __future__ import annotations

import copy
import os
import sys
from typing import Any
from unittest import mock

os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")  # dnspython would import trio into the patched process

from nova import conf

from hostler.bench.upstream_tests import run
from hostler.drivers.openstack.nova import scheduler, scheduler_service

REGISTRIES: list[Any] = []


def install(mode: str, fallback: str) -> None:
    """Have every nova-scheduler that a test starts run Hostler's class in this mode."""
    scheduler_service.install()
    begin, decide = scheduler.SchedulerManager.__init__, scheduler.SchedulerManager._decided

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        conf.CONF.set_override("mode", mode, group="hostler")  # the tests reset all options
        conf.CONF.set_override("fallback", fallback, group="hostler")
        begin(self, *args, **kwargs)
        REGISTRIES.append(self.metrics.registry)

    def decided(self: Any, asked: scheduler.Asked, taken: list[str]) -> Any:
        answer = decide(self, asked, taken)
        ask_watched_filters(self, asked, answer)
        return answer

    scheduler.SchedulerManager.__init__ = start  # type: ignore[method-assign]  # the options come with the class
    scheduler.SchedulerManager._decided = decided  # type: ignore[method-assign]


def ask_watched_filters(manager: Any, asked: scheduler.Asked, answer: Any) -> None:
    """Ask the enabled filters of Nova's that a test watches by a mock, as it reads from it whether the filter was
    asked, and with what: for the host that Hostler chose, which the filter must pass, or for the first candidate of a
    request that was refused, if the filters before it pass that."""
    enabled: list[Any] = [each() if isinstance(each, type) else each for each in manager.host_manager.enabled_filters]
    watched = [each for each in enabled if isinstance(each.host_passes, mock.NonCallableMock)]
    if not watched:
        return
    states = list(manager._get_all_host_states(asked.context.elevated(), asked.spec, asked.summaries) or ())
    if asked.requests is not None:
        for state in states:
            state.allocation_candidates = copy.deepcopy(asked.requests.get(state.uuid) or [])
    chosen = {answer[0][0].nodename} if answer else set()
    for state in [each for each in states if each.nodename in chosen or not answer][:1]:
        for each in watched if answer else enabled:
            if each._filter_one(state, asked.spec):
                continue
            if answer:
                raise AssertionError(f"Nova's {each} refuses {state.nodename}, which Hostler has chosen")
            break  # as Nova does not ask those behind it


if __name__ == "__main__":
    if sys.argv[1] != "stock":
        install(*sys.argv[1:3])
    run(sys.argv[3:], REGISTRIES)
