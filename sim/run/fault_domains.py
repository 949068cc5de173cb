"""Groups whose members are spread over fault domains: racks, rows, clusters, cells or zones. A member goes to a domain
that has no more members of its group than any other in which a host in service could hold it if it were empty, so that
these differ by one at most."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from ...placement.types.errors import InvalidValue
from ...placement.types.request import RequestSpec
from ..trace.terms import Terms
from ..trace.workload import ALONE
from .coming import Coming
from .fleet_plan import Place
from .groups import Groups
from .holding import could_hold
from .observer import Observer
from .site import Site


class Holder(Protocol):
    """What knows the hosts, and the groups and specs of guests."""

    site: Site
    groups: Groups

    def spec_number(self, uuid: str) -> int:
        """The number of a guest's spec; below 0 for a guest that the trace does not have."""
        ...

    def row_of(self, uuid: str) -> int:
        """The row that a guest is on."""
        ...


class FaultDomains(Observer):
    """The members of such groups by domain. ``terms``: by spec number."""

    def __init__(self, run: Holder, terms: Sequence[Terms]) -> None:
        self.run, self.terms = run, terms
        self._members: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._of: dict[str, tuple[int, str]] = {}
        """Guest that has a host -> group and domain."""
        self._places: dict[str, Place] = {}
        self._kinds = {kind.name: kind for kind in run.site.plan.hardware}
        self._holding: dict[tuple[int, str, str], bool] = {}
        """Spec number, kind of host and zone -> whether such a host could hold such a guest."""
        for each in dict.fromkeys(each.fault_domain for each in terms if each.fault_domain):
            if not any(getattr(place, each) for place in run.site.places):
                hint = f"hosts have a {each} by their fleet file"
                raise InvalidValue(f"guests are to be spread by {each}, but no host has one", field="trace", hint=hint)

    def parts(self, coming: Coming) -> Iterator[Coming]:
        """Guests that come, in order: those that are to be spread one by one, the others together."""
        first, count = 0, len(coming.number)
        for at in [at for at, spec in enumerate(coming.spec.tolist()) if self.terms[spec].fault_domain]:
            if at > first:
                yield coming.between(first, at)
            yield coming.between(at, at + 1)
            first = at + 1
        if first < count:
            yield coming.between(first, count)

    def narrowed(self, spec: RequestSpec, number: int, group: int) -> RequestSpec:
        """A spec, of this number, of a guest of a group, without the hosts of domains that have enough members.
        O(hosts)."""
        kind = self.terms[number].fault_domain if number >= 0 else ""
        if not kind or group == ALONE:
            return spec
        site, hosts, serving = self.run.site, defaultdict[str, list[str]](list), set[str]()
        for place in site.places:
            domain = getattr(place, kind)
            hosts[domain].append(place.host)
            if site.down[place.host] <= 0 and site.closing[place.host] <= 0 and self._holds(spec, number, place):
                serving.add(domain)
        members = self._members[group]
        least = min((members[domain] for domain in serving), default=0)
        closed = [host for domain, there in hosts.items() if members[domain] > least for host in there]
        return replace(spec, ignore_hosts=(*spec.ignore_hosts, *closed)) if closed else spec

    def _holds(self, spec: RequestSpec, number: int, place: Place) -> bool:
        key = number, place.hardware, place.zone
        known = self._holding.get(key)
        if known is None:
            known = self._holding[key] = could_hold(self._kinds[place.hardware], spec, (place.zone,))
        return known

    def again(self, spec: RequestSpec, uuid: str) -> RequestSpec:
        """The same for a guest of the run that is placed again."""
        return self.narrowed(spec, self.run.spec_number(uuid), self.run.groups.number_of(uuid))

    def came(self, uuid: str, row: int, spec: int) -> None:
        """A guest of a spec number has been placed on a row."""
        kind, group = self.terms[spec].fault_domain, self.run.groups.number_of(uuid)
        if kind and group != ALONE:
            domain = getattr(self._place(row), kind)
            self._members[group][domain] += 1
            self._of[uuid] = group, domain

    def left(self, uuids: Sequence[str]) -> None:
        """Guests have left their hosts."""
        for uuid in [uuid for uuid in uuids if uuid in self._of]:
            group, domain = self._of.pop(uuid)
            self._members[group][domain] -= 1
            if not +self._members[group]:
                del self._members[group]

    def moved(self, uuid: str, row: int) -> None:
        """A guest is on another row now."""
        self.left([uuid])
        number = self.run.spec_number(uuid)
        if number >= 0:
            self.came(uuid, row, number)

    def count(self, uuids: Sequence[str]) -> None:
        """Count members that have hosts already."""
        for uuid in uuids:
            number = self.run.spec_number(uuid)
            if number >= 0:
                self.came(uuid, self.run.row_of(uuid), number)

    def _place(self, row: int) -> Place:
        places = self.run.site.places
        if len(self._places) != len(places):
            self._places = {place.host: place for place in places}
        return self._places[self.run.site.fleet.name(row)]
