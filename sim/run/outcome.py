"""What comes of a run, as plain values."""

from __future__ import annotations

import msgspec

from .evacuation import Disruption


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """How things stand ``hours`` into the run: percent of each resource that is given, by zone (``all``: of the
    fleet), what the hosts that run can give (``capacity``: vCPUs, MiB, GiB, GPUs), and the percent of idle vCPUs that
    are stranded: no memory is left beside them."""

    hours: float
    guests: int
    waiting: int
    refused: int
    used_percent: dict[str, dict[str, float]]
    stranded_percent: float
    hosts_down: int = 0
    capacity: dict[str, float] = {}


class OutageRefusals(msgspec.Struct, frozen=True, kw_only=True):
    """An outage of the plan, in hours of the run, and how many requests were refused while it lasted."""

    what: str
    begins_hours: float
    ends_hours: float
    refused: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. ``cpu_ratio``: the fleet's over-commit of CPUs. Waits in hours; ``guest_hours`` of the guests
    that were placed, within the run; ``burst``: guests beyond the plan's threshold, which were not tried here. Costs in
    the currency of the plan's prices, ``burst_cost`` of these and of the refused. ``unserved``: guests that were
    refused, lost with a host, still waiting at the end, or run elsewhere (``burst``). ``preempted``: guests that gave
    way to others. ``contention``: threshold in percent of a host's cores -> percent of the host-hours in which its
    guests want more; None where the trace does not tell what they use. ``begins``: date and time of its beginning,
    where the trace has dates. ``currency`` of all costs."""

    fleet: str
    workload: str
    policy: str
    cpu_ratio: float
    seed: int
    hosts: int
    hosts_at_end: int
    hours: float
    requests: int
    placed: int
    refused: int
    waiting: int
    refused_percent: float
    refusals: dict[str, int]
    burst: int
    unserved: int
    waited: int
    mean_wait_hours: float
    longest_wait_hours: float
    first_refusal_hours: float | None
    peak_percent: dict[str, float]
    mean_percent: dict[str, float]
    peak_guests: int
    guests_per_host_at_peak: float
    guest_hours: float
    cost: float
    cost_per_guest_hour: float | None
    burst_cost: float
    requests_by_day: list[int]
    refused_by_day: list[int]
    interrupted: bool
    samples: list[Sample]
    disruption: Disruption | None = None
    outages: list[OutageRefusals] = []
    currency: str = ""
    begins: str | None = None
    preempted: int = 0
    contention: dict[str, float] | None = None


def exhausted_day(outcome: Outcome, target_percent: float) -> int | None:
    """The first day, from 1, on which more than ``target_percent`` of the requests were refused."""
    pairs = zip(outcome.requests_by_day, outcome.refused_by_day, strict=True)
    return next((day for day, (n, refused) in enumerate(pairs, 1) if 100 * refused > target_percent * max(n, 1)), None)
