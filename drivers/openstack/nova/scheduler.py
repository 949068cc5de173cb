"""The class that nova-scheduler runs: Nova's own, with the choice of hosts made or checked by Hostler. Prefilters,
allocation candidates, claims and notifications stay Nova's. Runs inside Nova."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nova.conf
from nova import exception, version
from nova.scheduler import manager
from nova.scheduler import utils as scheduler_utils
from oslo_utils import timeutils

from ....placement.types.decision import Decision
from ....placement.types.errors import HostlerError
from ....placement.types.request import Request
from ..failures import Failures
from ..metrics import Metrics
from ..options import GROUP, register
from .answers import selection_of
from .hosts import seconds
from .policy_values import policy_values
from .requests import NotModelled, request_of
from .shadow import Case, Shadow
from .state import NovaState

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)
register(CONF)


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of one ``_schedule``. ``requests``: allocation requests by provider; None: none were asked for."""

    context: Any
    spec: Any
    uuids: Sequence[str] | None
    requests: Mapping[str, Sequence[Any]] | None
    summaries: Mapping[str, Any] | None
    version: str | None
    alternates: bool

    def arguments(self) -> tuple[Any, ...]:
        """As Nova's method takes them."""
        return (
            *(self.context, self.spec, self.uuids, self.requests, self.summaries, self.version),
            self.alternates,
        )


class SchedulerManager(manager.SchedulerManager):  # type: ignore[misc]  # Nova is not typed
    """Nova's scheduler manager, whose hosts are chosen by Hostler as ``[hostler] mode`` says.

    ``shadow``: Nova chooses, Hostler's answers are compared with its. ``canary``: Hostler chooses for a share of the
    requests. ``live``: Hostler chooses. Where it cannot, or fails, ``[hostler] fallback`` says whether Nova does.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metrics = Metrics()
        self._lock = threading.RLock()
        self._state = NovaState(self.host_manager)
        self._failures = Failures(self.metrics)
        self._shadow = Shadow(self._lock, self.metrics, self._failures, log_differences=CONF[GROUP].log_differences)
        self._choices = random.Random()
        self._served_by = -1
        self._observing = threading.local()
        self._release = version.version_string().partition(".")[0]
        self._weighers = tuple(type(each).__name__ for each in self.host_manager.weighers)

    # what Nova tells of

    def init_host(self, *args: Any, **kwargs: Any) -> None:
        """As Nova's; the process of the worker serves its metrics from here on."""
        super().init_host(*args, **kwargs)
        self._serve_metrics()

    def reset(self) -> None:
        """SIGHUP: as Nova's, and all state is read again."""
        super().reset()
        with self._lock:
            self._state = NovaState(self.host_manager)

    def update_aggregates(self, ctxt: Any, aggregates: Any) -> None:
        """As Nova's."""
        super().update_aggregates(ctxt, aggregates)
        self._state.stale_aggregates = True

    def delete_aggregate(self, ctxt: Any, aggregate: Any) -> None:
        """As Nova's."""
        super().delete_aggregate(ctxt, aggregate)
        self._state.stale_aggregates = True

    def update_instance_info(self, context: Any, host_name: str, instance_info: Any) -> None:
        """As Nova's."""
        super().update_instance_info(context, host_name, instance_info)
        self._stale(host_name)

    def delete_instance_info(self, context: Any, host_name: str, instance_uuid: str) -> None:
        """As Nova's."""
        super().delete_instance_info(context, host_name, instance_uuid)
        self._stale(host_name)

    def sync_instance_info(self, context: Any, host_name: str, instance_uuids: Sequence[str]) -> None:
        """As Nova's."""
        super().sync_instance_info(context, host_name, instance_uuids)
        self._stale(host_name)

    def _stale(self, host_name: str) -> None:
        with self._lock:
            self._state.stale_instances.add(host_name)

    def _serve_metrics(self) -> None:
        port = CONF[GROUP].metrics_port
        if port and self._served_by != os.getpid():
            self._served_by = os.getpid()
            self.metrics.serve(CONF[GROUP].metrics_host, port)

    # choosing

    def _schedule(
        self,
        context: Any,
        spec_obj: Any,
        instance_uuids: Any,
        alloc_reqs_by_rp_uuid: Any,
        provider_summaries: Any,
        allocation_request_version: Any = None,
        return_alternates: bool = False,
    ) -> Any:
        asked = Asked(
            *(context, spec_obj, instance_uuids, alloc_reqs_by_rp_uuid, provider_summaries),
            *(allocation_request_version, return_alternates),
        )
        mode = CONF[GROUP].mode
        if mode == "shadow":
            return self._shadowed(asked)
        if mode == "canary" and not self._is_canary(spec_obj):
            return self._stock(asked)
        try:
            return self._live(asked)
        except exception.NoValidHost:
            raise
        except NotModelled as error:
            LOG.info("the request is not modelled: %s", error)
            return self._fall_back(asked, error.field or "request", "unsupported")
        except Exception as error:  # the door of the fallback: whatever fails in Hostler, Nova can still decide
            self._failures.note(error, "choosing a host")
            return self._fall_back(asked, "error" if isinstance(error, HostlerError) else "exception", "error")

    def _is_canary(self, spec: Any) -> bool:
        own = CONF[GROUP]
        return spec.project_id in own.canary_projects or self._choices.uniform(0.0, 100.0) < own.canary_percent

    def _fall_back(self, asked: Asked, reason: str, kind: str) -> Any:
        self.metrics.fallbacks.labels(reason).inc()
        fallback = CONF[GROUP].fallback
        if fallback == "always" or (fallback == "unsupported" and kind == "unsupported"):
            return self._stock(asked)
        self.metrics.requests.labels("hostler", "failed").inc()
        raise exception.NoValidHost(reason=f"Hostler could not decide ({reason})")

    def _stock(self, asked: Asked) -> Any:
        begun, outcome = time.thread_time(), "failed"
        try:
            answer = super()._schedule(*asked.arguments())
            outcome = "placed"
            return answer
        except exception.NoValidHost:
            outcome = "no_valid_host"
            raise
        finally:
            ours = getattr(self._observing, "cpu", 0.0)
            self.metrics.cpu.labels("nova").inc(max(0.0, time.thread_time() - begun - ours))
            self.metrics.requests.labels("nova", outcome).inc()

    # live

    def _live(self, asked: Asked) -> Any:
        taken: list[str] = []
        try:
            request = self._request(asked)
            mappings = self._mappings(asked.spec)
            alone = asked.requests is not None and len(request.instance_uuids) == 1
            with self._ready():
                request, candidates = self._candidates(asked, request, mappings)
                claim = None if alone or asked.requests is None else self._claims(asked, taken)
                decision = self._choose(request, candidates, claim)
            if alone:
                decision = self._claimed(asked, request, candidates, decision, taken)
            answer = self._selections(asked, decision)
        except BaseException:
            self._cleanup_allocations(asked.context, taken)
            raise
        if answer is None:
            self.metrics.requests.labels("hostler", "no_valid_host").inc()
            wanted = len(asked.uuids or ()) or 1
            self._ensure_sufficient_hosts(asked.context, [], wanted, taken)  # gives back, and raises NoValidHost
        self.metrics.requests.labels("hostler", "placed").inc()
        return answer

    def _request(self, asked: Asked) -> Request:
        if not asked.uuids:
            raise NotModelled("the conductor names no instances", field="old_conductor")
        if CONF.servicegroup_driver != "db":
            raise NotModelled("services are not watched through the database", field="servicegroup_driver")
        if CONF.filter_scheduler.image_props_weight_multiplier and CONF[GROUP].mode != "shadow":
            raise NotModelled("images of instances are not read", field="image_props_weight_multiplier")
        alternates = CONF.scheduler.max_attempts - 1 if asked.alternates else 0
        now = seconds(timeutils.utcnow())
        assert now is not None
        return request_of(asked.spec, asked.uuids, alternates=alternates, now=now)

    def _mappings(self, spec: Any) -> list[Any]:
        """The cells to look at, as Nova's host manager chooses them."""
        wanted = spec.requested_destination if "requested_destination" in spec else None
        if wanted and "cell" in wanted and wanted.cell and not wanted.allow_cross_cell_move:
            return [wanted.cell]
        return list(self.host_manager.enabled_cells)

    def _candidates(
        self, asked: Asked, request: Request, mappings: Sequence[Any]
    ) -> tuple[Request, dict[str, list[Mapping[str, Any]]]]:
        state, elevated = self._state, asked.context.elevated()
        state.refresh(elevated, mappings, max_age=CONF[GROUP].state_max_age)
        state.read_instances(elevated, mappings, request)
        usable = state.usable(mappings, asked.summaries)
        return state.kept.shared(request), state.kept.candidates(usable, asked.requests)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        """The kept fleet, for this thread alone, under the options as they are now."""
        with self._lock:
            self._serve_metrics()
            state = self._state
            before = state.kept.changes
            state.read_images = bool(CONF.filter_scheduler.image_props_weight_multiplier)
            state.kept.use(policy_values(CONF, self._weighers, self._release))
            yield
            self.metrics.changes.inc(state.kept.changes - before)
            self.metrics.hosts.set(len(state.kept.hosts))

    def _choose(self, request: Request, candidates: Mapping[str, Sequence[Any]], claim: Any = None) -> Decision:
        begun = time.thread_time()
        decision = self._state.kept.engine.choose(request, candidates=candidates, claim=claim)
        self.metrics.cpu.labels("hostler").inc(time.thread_time() - begun)
        return decision

    def _claims(self, asked: Asked, taken: list[str]) -> Any:
        """Claims in Placement, of one instance at a host at a time; ``taken``: instances that were claimed."""

        def claim(uuid: str, provider: str, candidate: Any) -> bool:
            done = scheduler_utils.claim_resources(
                asked.context.elevated(),
                self.placement_client,
                asked.spec,
                uuid,
                candidate,
                allocation_request_version=asked.version,
            )
            if done:
                taken.append(uuid)
            return bool(done)

        return claim

    def _claimed(
        self,
        asked: Asked,
        request: Request,
        candidates: dict[str, list[Mapping[str, Any]]],
        decision: Decision,
        taken: list[str],
    ) -> Decision:
        """Claim the one host of a decision, without keeping other requests waiting; where that fails, the next."""
        claim = self._claims(asked, taken)
        while decision.placed:
            selected = decision.selected
            if claim(request.instance_uuids[0], selected.provider_uuid, selected.allocation_request):
                break
            candidates[selected.provider_uuid] = []  # it is weighed as before, and not chosen
            with self._ready():
                decision = self._choose(request, candidates)
        return decision

    @staticmethod
    def _selections(asked: Asked, decision: Decision) -> list[list[Any]] | None:
        """The answer in Nova's objects; None if there is no host."""
        refusal = decision.refusal
        if refusal is not None:
            LOG.info("no host: %s %s", refusal.sentence, refusal.hint or "")
            return None
        claimed = asked.requests is not None
        return [
            [selection_of(selection, asked.version, claimed=claimed)]
            + [selection_of(each, asked.version, claimed=claimed) for each in selection.alternates]
            for selection in decision.selections
        ]

    # shadow

    def _shadowed(self, asked: Asked) -> Any:
        """Nova's answer; Hostler is asked the same of the same state."""
        local, chosen = self._observing, None
        local.asked, local.case, local.cpu = asked, None, 0.0
        failed = False
        try:
            answer = self._stock(asked)
            chosen = answer[0][0].compute_node_uuid if answer and answer[0] else None
            return answer
        except exception.NoValidHost:
            raise
        except BaseException:
            failed = True
            raise
        finally:
            case, local.asked, local.case, local.cpu = local.case, None, None, 0.0
            if case is not None and not failed:
                self._shadow.submit(dataclasses.replace(case, chosen=chosen))

    def _get_all_host_states(self, context: Any, spec_obj: Any, provider_summaries: Any) -> Any:
        states = super()._get_all_host_states(context, spec_obj, provider_summaries)
        asked = getattr(self._observing, "asked", None)
        if asked is None:
            return states
        states = list(states)
        begun = time.thread_time()
        try:
            self._observing.case = self._case(asked, states)
        except NotModelled as error:
            self.metrics.fallbacks.labels(error.field or "request").inc()
        except Exception as error:  # Nova decides: what fails in the comparison must not fail the request
            self.metrics.compared.labels("error").inc()
            self._failures.note(error, "preparing a comparison")
        self._observing.cpu = time.thread_time() - begun
        self.metrics.cpu.labels("hostler").inc(self._observing.cpu)
        return iter(states)

    def _case(self, asked: Asked, states: Sequence[Any]) -> Case:
        """What Nova is about to decide on, kept for comparison before it is changed by the decision."""
        request = self._request(asked)
        with self._ready():
            kept = self._state.kept
            candidates = kept.candidates(self._state.observe(states), asked.requests)
            among = CONF.filter_scheduler.host_subset_size
            return Case(kept.engine.fork(), kept.shared(request), candidates, None, among)
