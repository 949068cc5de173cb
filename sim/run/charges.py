"""What each guest of a run uses of which host from when to when, and what that costs, as rows with the names of FOCUS
(the FinOps Open Cost and Usage Specification), a row for each guest and day of UTC.

A guest's part of its host's price per hour is the mean of its shares of the host's vCPUs and memory, and of its GPUs
where it has some. What no guest takes is a row of the host, "Unused", so that the rows of a day sum up to what all
hosts cost. Guests in a public cloud have rows of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from ...placement.gpu.providers import gpu_wish
from ...placement.types.request import RequestSpec
from ..trace.workload import DAY_S, EPOCH_S, NEVER
from .hardware import Hardware
from .observer import Observer
from .run import Run

HOUR_S: Final = 3_600
COLUMNS: Final = (
    *("BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart"),
    *("CapacityReservationId", "CapacityReservationStatus", "ChargeCategory", "ChargeClass", "ChargeDescription"),
    *("ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost"),
    *("EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName"),
    *("PublisherName", "AvailabilityZone", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory"),
    *("ServiceName", "SkuId", "SubAccountId"),
)
"""Names of FOCUS 1.2, in the order of the rows."""


class Stay(NamedTuple):
    """A guest on a host ("": in a public cloud), in seconds of the workload."""

    uuid: str
    host: str
    begin_s: int
    end_s: int


class Charges(Observer):
    """The stays of a run's guests. Make it before the run is played; ``rows`` when it has been."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._stays: list[Stay] = []
        self._open: dict[str, tuple[str, int]] = {}
        run.observers.append(self)
        if run.standing is not None:
            for uuid in run.standing.uuids:
                self._begin(uuid, run.row_of(uuid))

    def _begin(self, uuid: str, row: int) -> None:
        self._open[uuid] = self.run.engine.fleet.name(row), max(self.run.now_s, self.run.workload.start_s)

    def came(self, uuid: str, row: int, spec: int) -> None:
        """A guest has been placed on a row."""
        self._begin(uuid, row)

    def stand(self, uuid: str, row: int, spec: RequestSpec) -> None:
        """A guest that the trace does not have is on a row."""
        self._begin(uuid, row)

    def left(self, uuids: Sequence[str]) -> None:
        """Guests have left their hosts."""
        for uuid in uuids:
            if uuid in self._open:
                host, begin_s = self._open.pop(uuid)
                self._stays.append(Stay(uuid, host, begin_s, self.run.now_s))

    def moved(self, uuid: str, row: int) -> None:
        """A guest is on another row now."""
        self.left([uuid])
        self._begin(uuid, row)

    def bought(self, uuids: Sequence[str], begin_s: int, ends_s: Sequence[int]) -> None:
        """Guests run in a public cloud from now on; no rows where the plan names none, by a price or a threshold."""
        plan = self.run.plan
        if plan.burst_price_per_vcpu_hour or plan.burst_above_percent is not None:
            self._stays += [Stay(uuid, "", begin_s, end_s) for uuid, end_s in zip(uuids, ends_s, strict=True)]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, day by day: guests by uuid, then hosts in their order. O(guests * days)."""
        run, end_s = self.run, self.run.reached_s
        epoch_s = run.workload.epoch_s if run.workload.epoch_s is not None else EPOCH_S
        still = [Stay(uuid, host, begin, end_s) for uuid, (host, begin) in self._open.items()]
        stays = sorted([*self._stays, *still], key=lambda stay: (stay.begin_s, stay.uuid))
        kinds = {kind.name: kind for kind in run.plan.hardware}
        places = {place.host: place for place in run.site.places}
        start_s = run.workload.start_s
        begins = {host: start_s + round(hours * HOUR_S) for host, hours in run.site.came_hours.items()}
        first = (start_s + epoch_s) // DAY_S
        # Guests in a public cloud may stay longer than the run that they were refused in.
        bursts = [stay.end_s for stay in stays if not stay.host and stay.end_s < NEVER]
        last = max(end_s, start_s + 1, *bursts) + epoch_s
        active: list[Stay] = []
        at = 0
        for day in range(first, -(-last // DAY_S)):
            begin_s, day_end = day * DAY_S - epoch_s, (day + 1) * DAY_S - epoch_s
            while at < len(stays) and stays[at].begin_s < day_end:
                active.append(stays[at])
                at += 1
            here, away = (_period(epoch_s, max(begin_s, start_s), min(day_end, end)) for end in (end_s, last - epoch_s))
            taken: defaultdict[str, float] = defaultdict(float)
            for stay in active:
                seconds = min(stay.end_s if stay.end_s < NEVER else end_s, day_end) - max(stay.begin_s, begin_s)
                if seconds > 0 and stay.host:
                    kind = kinds[places[stay.host].hardware]
                    cost = _share(run.spec_of(stay.uuid), kind) * kind.price_per_hour * seconds / HOUR_S
                    taken[stay.host] += cost
                    yield here | self._guest(stay, seconds, cost, places[stay.host].zone)
                elif seconds > 0:
                    vcpus = run.spec_of(stay.uuid).flavor.vcpus
                    cost = vcpus * run.plan.burst_price_per_vcpu_hour * seconds / HOUR_S
                    yield away | self._guest(stay, seconds, cost, "")
            active = [stay for stay in active if stay.end_s > day_end]
            for host, place in places.items():
                kind = kinds[place.hardware]
                seconds = min(day_end, end_s) - max(begin_s, begins.get(host, start_s))
                unused = max(0, seconds) / HOUR_S * kind.price_per_hour - taken[host]
                if unused > 1e-9:
                    yield here | self._unused(host, kind, place.zone, unused)

    def _guest(self, stay: Stay, seconds: int, cost: float, zone: str) -> dict[str, Any]:
        spec = self.run.spec_of(stay.uuid)
        elsewhere = not stay.host
        return _costs(cost) | {
            "BillingCurrency": self.run.plan.currency or None,
            "CapacityReservationId": stay.host or None,
            "CapacityReservationStatus": None if elsewhere else "Used",
            "ChargeDescription": f"{spec.flavor.name}{' in a public cloud' if elsewhere else ''}",
            "ConsumedQuantity": round(spec.flavor.vcpus * seconds / HOUR_S, 6),
            "ConsumedUnit": "vCPU-Hours",
            "PricingQuantity": round(seconds / HOUR_S, 6),
            "PricingUnit": "Hours",
            "ProviderName": "public cloud" if elsewhere else self.run.plan.name,
            "AvailabilityZone": zone or None,
            "ResourceId": stay.uuid,
            "ResourceName": stay.uuid,
            "ResourceType": "Instance",
            "SkuId": spec.flavor.name,
            "SubAccountId": self.run.project_of(stay.uuid) or None,
        }

    def _unused(self, host: str, kind: Hardware, zone: str, cost: float) -> dict[str, Any]:
        return _costs(cost) | {
            "BillingCurrency": self.run.plan.currency or None,
            "CapacityReservationId": host,
            "CapacityReservationStatus": "Unused",
            "ChargeDescription": f"what no guest takes of {host}",
            "ProviderName": self.run.plan.name,
            "AvailabilityZone": zone or None,
            "ResourceId": host,
            "ResourceName": host,
            "ResourceType": "Host",
            "SkuId": kind.name,
        }


def _share(spec: RequestSpec, kind: Hardware) -> float:
    """The part of a host that a guest takes: the mean of its shares."""
    flavor, (vcpus, memory_mb, _), wish = spec.flavor, kind.capacity, gpu_wish(spec.flavor.extra_specs)
    shares = [flavor.vcpus / vcpus if vcpus else 0.0, flavor.memory_mb / memory_mb if memory_mb else 0.0]
    if kind.gpus:
        shares.append(wish.milli * wish.count / 1000 / kind.gpus)
    return sum(shares) / len(shares)


def _period(epoch_s: int, begin_s: int, end_s: int) -> dict[str, Any]:
    begin, end = (datetime.fromtimestamp(epoch_s + each, UTC) for each in (begin_s, max(end_s, begin_s)))
    month = begin.replace(day=1, hour=0, minute=0, second=0)
    following = (month + timedelta(days=32)).replace(day=1)
    return dict.fromkeys(COLUMNS) | {
        "BillingPeriodStart": _text(month),
        "BillingPeriodEnd": _text(following),
        "ChargePeriodStart": _text(begin),
        "ChargePeriodEnd": _text(end),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "BillingAccountId": "simulation",
        "InvoiceIssuerName": "simulation",
        "PublisherName": "simulation",
        "ServiceCategory": "Compute",
        "ServiceName": "Virtual machines",
    }


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _costs(cost: float) -> dict[str, float]:
    return dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), round(cost, 9))
