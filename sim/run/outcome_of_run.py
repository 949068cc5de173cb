"""Sums a run up as an Outcome."""

from __future__ import annotations

from ..trace.workload import dated
from .outcome import Outcome
from .played import Played


def outcome_of(run: Played, *, interrupted: bool) -> Outcome:
    """What came of a run as far as it was played. O(hosts)."""
    hours, mean = (run.reached_s - run.workload.start_s) / 3600, run._sums / max(1, run._measured)
    refused, guest_hours = run.refusals.total(), run._guest_s / 3600
    cost = round(run._host_hours_cost, 2)
    return Outcome(
        fleet=run.plan.name,
        workload=run.workload.name,
        policy=run.engine.policy.name,
        cpu_ratio=run.plan.cpu_ratio,
        seed=run.seed,
        hosts=run.plan.hosts,
        hosts_at_end=len(run.site.places),
        hours=round(hours, 4),
        requests=run.offered,
        placed=run.placed,
        refused=refused,
        waiting=len(run._queue.number),
        refused_percent=round(100.0 * refused / max(1, run.offered), 4),
        refusals=dict(sorted(run.refusals.items(), key=lambda item: (-item[1], item[0]))),
        burst=run.burst,
        unserved=run.unserved + len(run._queue.number) + len(run.evacuation.off),
        waited=run.waited,
        mean_wait_hours=round(run.waited_s / 3600 / max(1, run.waited), 4),
        longest_wait_hours=round(run.longest_wait_s / 3600, 4),
        first_refusal_hours=run.first_refusal,
        peak_percent=dict(zip(run.resources, run._peaks.round(3).tolist(), strict=True)),
        mean_percent=dict(zip(run.resources, mean.round(3).tolist(), strict=True)),
        peak_guests=run.peak_guests,
        guests_per_host_at_peak=round(run.peak_guests / max(1, len(run.site.places)), 3),
        guest_hours=round(guest_hours, 3),
        cost=cost,
        cost_per_guest_hour=round(cost / guest_hours, 6) if guest_hours and cost else None,
        burst_cost=round(run._burst_vcpu_s / 3600 * run.plan.burst_price_per_vcpu_hour, 2),
        requests_by_day=run.requests_by_day,
        refused_by_day=run.refused_by_day,
        interrupted=interrupted,
        samples=[*run.samples, run._busiest] if run._busiest is not None else run.samples,
        disruption=run.evacuation.outcome(run.reached_s),
        outages=run.outages.told(),
        currency=run.plan.currency,
        begins=dated(run.workload),
        preempted=run.evacuation.preempted,
        contention=run.contention.percent() if run.contention is not None else None,
    )
