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
from typing import Any, Final

import nova.conf
from nova import exception, version
from nova.scheduler import manager
from nova.scheduler import utils as scheduler_utils
from nova.scheduler.client import report
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
PATIENCE: Final = 0.05
"""Seconds for which a request of Nova's waits for the comparison of another."""


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


class ClaimFailed(Exception):
    """A claim in Placement ended with an exception of Nova's, which is the answer of the request."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


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
        self._made_by, self._served_by = os.getpid(), -1
        self._observing = threading.local()
        self._release = version.version_string().partition(".")[0]
        self._weighers = tuple(type(each).__name__ for each in self.host_manager.weighers)

    # what Nova tells of

    def init_host(self, *args: Any, **kwargs: Any) -> None:
        """As Nova's; the process of the worker serves its metrics from here on, and has connections of its own to
        Placement: workers that share those of their parent read each other's answers. Nor do they draw alike."""
        if self._made_by != os.getpid():
            report.PLACEMENTCLIENT = None
            self._choices = random.Random()
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
        self._state.tell_aggregates()

    def delete_aggregate(self, ctxt: Any, aggregate: Any) -> None:
        """As Nova's."""
        super().delete_aggregate(ctxt, aggregate)
        self._state.tell_aggregates()

    def update_instance_info(self, context: Any, host_name: str, instance_info: Any) -> None:
        """As Nova's."""
        super().update_instance_info(context, host_name, instance_info)
        self._state.tell(host_name)

    def delete_instance_info(self, context: Any, host_name: str, instance_uuid: str) -> None:
        """As Nova's."""
        super().delete_instance_info(context, host_name, instance_uuid)
        self._state.tell(host_name)

    def sync_instance_info(self, context: Any, host_name: str, instance_uuids: Sequence[str]) -> None:
        """As Nova's."""
        super().sync_instance_info(context, host_name, instance_uuids)
        self._state.tell(host_name)

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
        except ClaimFailed as failed:  # Nova's claim: the same with either scheduler, and never tried again
            self.metrics.requests.labels("hostler", "failed").inc()
            raise failed.error from None
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
            answer = self._decided(asked, taken)
        except BaseException as error:
            if not self._given_back(asked, taken) and isinstance(error, Exception):
                raise exception.NoValidHost(reason="claims of this request could not be given back") from error
            raise
        if answer is None:
            self.metrics.requests.labels("hostler", "no_valid_host").inc()
            self._given_back(asked, taken)
            self._ensure_sufficient_hosts(asked.context, [], len(asked.uuids or ()) or 1)  # raises NoValidHost
        self.metrics.requests.labels("hostler", "placed").inc()
        return answer

    def _decided(self, asked: Asked, taken: list[str]) -> list[list[Any]] | None:
        """The answer; None if there is no host. ``taken`` gets the instances that were claimed."""
        arrived = time.monotonic()
        request = self._request(asked)
        mappings = self._mappings(asked.spec)
        alone = asked.requests is not None and len(request.instance_uuids) == 1
        with self._ready() as state:
            request, candidates = self._candidates(state, asked, request, mappings, arrived)
            claim = None if alone or asked.requests is None else self._claims(asked, taken)
            decision = self._choose(state, request, candidates, claim)
        if alone:
            return self._claimed(state, asked, request, candidates, decision, taken)
        return self._selections(asked, decision)

    def _given_back(self, asked: Asked, taken: Sequence[str]) -> bool:
        """Remove the claims of these instances; False if Placement has not removed all. Nova must not choose for an
        instance then: its claim would be added to the one that is there."""
        done = True
        for uuid in taken:
            try:
                removed = self.placement_client.delete_allocation_for_instance(asked.context, uuid, force=True)
            except Exception as error:  # the claims of the others are removed all the same
                self._failures.note(error, f"giving back the claim of instance {uuid}")
                done = False
            else:
                if removed is None:  # Placement could not be reached
                    LOG.error("the claim of instance %s could not be given back", uuid)
                    done = False
        return done

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
        self, state: NovaState, asked: Asked, request: Request, mappings: Sequence[Any], arrived: float
    ) -> tuple[Request, dict[str, list[Mapping[str, Any]]]]:
        elevated = asked.context.elevated()
        state.refresh(elevated, mappings, since=arrived - self._max_age())
        if state.unreadable_of(mappings, asked.summaries) and CONF[GROUP].fallback != "never":
            raise NotModelled("a host that may be chosen cannot be read", field="unreadable_host")
        state.read_instances(elevated, mappings, request)
        usable = state.usable(mappings, asked.summaries)
        return state.kept.shared(request), state.kept.candidates(usable, asked.requests)

    @staticmethod
    def _max_age() -> float:
        """Seconds for which the state may be used again: less than services take to be taken for dead."""
        return float(min(CONF[GROUP].state_max_age, CONF.service_down_time / 2))

    @contextlib.contextmanager
    def _ready(self, state: NovaState | None = None) -> Iterator[NovaState]:
        """The kept fleet, for this thread alone, under the options as they are now. ``state``: that of the request, if
        it has one; it stays the same when SIGHUP replaces it."""
        with self._lock:
            self._serve_metrics()
            state = self._state if state is None else state
            before = state.kept.changes
            state.read_images = bool(CONF.filter_scheduler.image_props_weight_multiplier)
            try:
                state.kept.use(policy_values(CONF, self._weighers, self._release))
            except HostlerError as error:
                raise NotModelled(str(error), field="policy") from error
            yield state
            self.metrics.changes.inc(state.kept.changes - before)
            self.metrics.hosts.set(len(state.kept.hosts))
            self.metrics.unreadable.set(len(state.unreadable))

    def _choose(
        self, state: NovaState, request: Request, candidates: Mapping[str, Sequence[Any]], claim: Any = None
    ) -> Decision:
        begun = time.thread_time()
        decision = state.kept.engine.choose(request, candidates=candidates, claim=claim)
        self.metrics.cpu.labels("hostler").inc(time.thread_time() - begun)
        return decision

    def _claims(self, asked: Asked, taken: list[str]) -> Any:
        """Claims in Placement, of one instance at a host at a time; ``taken``: instances that were claimed."""

        def claim(uuid: str, provider: str, candidate: Any) -> bool:
            try:
                done = scheduler_utils.claim_resources(
                    asked.context.elevated(),
                    self.placement_client,
                    asked.spec,
                    uuid,
                    candidate,
                    allocation_request_version=asked.version,
                )
            except Exception as error:
                raise ClaimFailed(error) from error
            if done:
                taken.append(uuid)
            return bool(done)

        return claim

    def _claimed(
        self,
        state: NovaState,
        asked: Asked,
        request: Request,
        candidates: dict[str, list[Mapping[str, Any]]],
        decision: Decision,
        taken: list[str],
    ) -> list[list[Any]] | None:
        """Claim the one host of a decision, without keeping other requests waiting; where that fails, the next. The
        answer is ready before the claim, so that nothing can fail after it."""
        claim = self._claims(asked, taken)
        while (answer := self._selections(asked, decision)) is not None:
            selected = decision.selected
            if claim(request.instance_uuids[0], selected.provider_uuid, selected.allocation_request):
                break
            candidates[selected.provider_uuid] = []  # it is weighed as before, and not chosen
            with self._ready(state):
                decision = self._choose(state, request, candidates)
        return answer

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

    def _case(self, asked: Asked, states: Sequence[Any]) -> Case | None:
        """What Nova is about to decide on, kept for comparison before it is changed by the decision; None if Nova would
        have to wait for it, which it does not."""
        request = self._request(asked)
        if not self._lock.acquire(timeout=PATIENCE):
            self.metrics.compared.labels("dropped").inc()
            return None
        try:
            with self._ready() as state:
                kept, uuids = state.kept, state.observe(states)
                if any(uuid in state.unreadable for uuid in uuids):
                    raise NotModelled("a host that may be chosen cannot be read", field="unreadable_host")
                candidates = kept.candidates(uuids, asked.requests)
                among = CONF.filter_scheduler.host_subset_size
                return Case(kept.engine.fork(), kept.shared(request), candidates, None, among)
        finally:
            self._lock.release()
