"""The failures and maintenance of a plan, and the requests that were refused while each lasted."""

from __future__ import annotations

from .fleet_plan import DOMAINS, FleetPlan, Maintenance, Outage
from .outcome import OutageRefusals


class Outages:
    """The outages of a plan; ``refused`` notes a refusal."""

    def __init__(self, plan: FleetPlan) -> None:
        self.outages = (*plan.failures, *plan.maintenance)
        self.counts = [0] * len(self.outages)

    def refused(self, hours: float) -> None:
        """A request was refused, so many hours into the run."""
        for number, outage in enumerate(self.outages):
            if outage.at_hours <= hours < outage.at_hours + outage.hours:
                self.counts[number] += 1

    def told(self) -> list[OutageRefusals]:
        """Each outage, in the order of the plan."""
        return [
            OutageRefusals(
                what=described(outage),
                begins_hours=outage.at_hours,
                ends_hours=outage.at_hours + outage.hours,
                refused=count,
            )
            for outage, count in zip(self.outages, self.counts, strict=True)
        ]


def described(outage: Outage) -> str:
    """What fails, or is maintained."""
    which = next(f"{kind} {getattr(outage, kind)}" for kind in DOMAINS if getattr(outage, kind))
    return f"maintenance of {which}" if isinstance(outage, Maintenance) else f"failure of {which}"
