"""The class that cinder-scheduler runs: Cinder's own FilterScheduler, whose pools are filtered and weighed, or the
result checked, by Hostler. All else stays Cinder's: its database, messages, quotas and backups. Runs inside Cinder."""

from __future__ import annotations

import logging
import random
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from cinder import exception
from cinder.scheduler import filter_scheduler
from cinder.scheduler.weights import WeighedHost
from oslo_config import cfg

from ....placement.storage.pools.options import StorageOptions
from ....placement.types.errors import HostlerError
from ..agreement import Compared, compare
from ..failures import Failures
from ..metrics import Metrics
from ..options import GROUP, register
from .kept_pools import Judged, KeptPools, NotModelled

LOG = logging.getLogger(__name__)
CONF = cfg.CONF
register(CONF)


class Scheduler(filter_scheduler.FilterScheduler):  # type: ignore[misc]  # Cinder is not typed
    """Cinder's scheduler, whose pools are judged as ``[hostler] mode`` says, for all that it schedules."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.metrics = Metrics()
        self._judge = Judge(self.metrics)
        super().__init__(*args, **kwargs)
        if CONF[GROUP].metrics_port:
            self.metrics.serve(CONF[GROUP].metrics_host, CONF[GROUP].metrics_port)

    @property
    def host_manager(self) -> Any:
        """Cinder's host manager, with filtering and weighing judged."""
        return self._judged

    @host_manager.setter
    def host_manager(self, manager: Any) -> None:
        self._judged = JudgedHostManager(manager, self._judge)


class Judge:
    """The kept pools, what is counted, and the pools that passed for the request at hand in each thread."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics, self.failures = metrics, Failures(metrics)
        self.kept = KeptPools()
        self.lock = threading.RLock()
        self.at_hand = threading.local()
        self.choices = random.Random()

    def decides(self, properties: Mapping[str, Any]) -> bool:
        """Whether Hostler decides this request. A request with an id is decided by one of both throughout, also where
        it filters pools several times (a group and each of its volumes)."""
        own = CONF[GROUP]
        if own.mode != "canary":
            return bool(own.mode == "live")
        context = properties.get("context")
        if getattr(context, "project_id", None) in own.canary_projects:
            return True
        request_id = getattr(context, "request_id", None)
        if not isinstance(request_id, str):
            return bool(self.choices.uniform(0.0, 100.0) < own.canary_percent)
        return bool(zlib.crc32(request_id.encode()) * 100.0 < own.canary_percent * 2**32)

    def judge(self, states: Sequence[Any], properties: Mapping[str, Any]) -> Judged:
        """Judge pools. NotModelled, and HostlerError."""
        with self.lock:
            begun, before = time.thread_time(), self.kept.changes
            self.kept.use({name: CONF[name] for name in StorageOptions.option_names() if name in CONF})
            judged = self.kept.judge(states, properties)
            self.metrics.cpu.labels("hostler").inc(time.thread_time() - begun)
            self.metrics.changes.inc(self.kept.changes - before)
            self.metrics.hosts.set(len(self.kept))
            return judged

    def compare(self, judged: Judged, chosen: str | None) -> None:
        """Compare stock's best pool with Hostler's, count it, and log a difference. What fails here is counted, and
        does not fail the request, which Cinder decides."""
        try:
            compared = compare(judged.weights, chosen)
            if not compared.agrees and CONF[GROUP].log_differences:
                self._log(judged, compared, chosen)
            self.metrics.compared.labels(compared.result).inc()
        except Exception as error:
            self.metrics.compared.labels("error").inc()
            self.failures.note(error, "comparing an answer")

    def _log(self, judged: Judged, compared: Compared, chosen: str | None) -> None:
        said = [f"the answers differ ({compared.result})"]
        with self.lock:
            for who, name in (("stock", chosen), ("Hostler", compared.best)):
                reason = "" if name is None else f": {self.kept.reason(judged, name)}"
                said.append(f"{who} chose {name or 'no pool'}{reason}")
        LOG.warning("%s", "; ".join(said))


class JudgedHostManager:
    """A host manager of Cinder's with two methods replaced; all else is passed on."""

    def __init__(self, manager: Any, judge: Judge) -> None:
        object.__setattr__(self, "_manager", manager)
        object.__setattr__(self, "_judge", judge)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._manager, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._manager, name)

    def get_filtered_backends(self, backends: Any, filter_properties: Any, *args: Any, **kwargs: Any) -> Any:
        """The pools that pass, by Hostler's rules or by Cinder's."""
        judge: Judge = self._judge
        states = list(backends)
        judge.at_hand.judged = None
        named = bool(args or kwargs)
        live = not named and judge.decides(filter_properties)
        judged = None if named else self._judged(states, filter_properties, live=live)
        if judged is not None and live:
            judge.at_hand.judged = judged
            found = {state.backend_id: state for state in states}
            judge.metrics.requests.labels("hostler", "placed" if judged.weights else "no_valid_host").inc()
            return [found[name] for name in judged.weights]
        begun = time.thread_time()
        passed = self._manager.get_filtered_backends(states, filter_properties, *args, **kwargs)
        judge.metrics.cpu.labels("cinder").inc(time.thread_time() - begun)
        judge.metrics.requests.labels("cinder", "placed" if passed else "no_valid_host").inc()
        if judged is not None and CONF[GROUP].mode == "shadow":
            if passed:
                judge.at_hand.judged = judged
            else:
                judge.compare(judged, None)
        return passed

    def _judged(self, states: Sequence[Any], properties: Mapping[str, Any], *, live: bool) -> Judged | None:
        judge: Judge = self._judge
        if not live and CONF[GROUP].mode != "shadow":
            return None
        try:
            return judge.judge(states, properties)
        except NotModelled as error:
            LOG.debug("the request is not modelled: %s", error)
            self._fall_back(error.field or "request", "unsupported", live=live)
        except Exception as error:  # the door of the fallback: whatever fails in Hostler, Cinder can still decide
            judge.failures.note(error, "judging pools")
            if not live:
                judge.metrics.compared.labels("error").inc()
                return None
            self._fall_back("error" if isinstance(error, HostlerError) else "exception", "error", live=live)
        return None

    def _fall_back(self, reason: str, kind: str, *, live: bool) -> None:
        metrics: Metrics = self._judge.metrics
        metrics.fallbacks.labels(reason).inc()
        fallback = CONF[GROUP].fallback
        if live and not (fallback == "always" or (fallback == "unsupported" and kind == "unsupported")):
            metrics.requests.labels("hostler", "failed").inc()
            raise exception.NoValidBackend(reason=f"Hostler could not decide ({reason})")

    def get_weighed_backends(self, backends: Any, weight_properties: Any, *args: Any, **kwargs: Any) -> Any:
        """The pools that passed, best first, by Hostler's weights or by Cinder's."""
        judge: Judge = self._judge
        judged: Judged | None = getattr(judge.at_hand, "judged", None)
        judge.at_hand.judged = None
        states = list(backends)
        shadow = CONF[GROUP].mode == "shadow"
        if judged is not None and not shadow and [state.backend_id for state in states] == list(judged.weights):
            return [WeighedHost(state, judged.weights[state.backend_id]) for state in states]
        weighed = self._manager.get_weighed_backends(states, weight_properties, *args, **kwargs)
        if judged is not None and shadow:
            judge.compare(judged, weighed[0].obj.backend_id if weighed else None)
        return weighed
