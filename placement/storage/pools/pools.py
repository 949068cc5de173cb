"""All storage pools of a fleet: services, capability reports, capacities, volumes. It stores state and makes no
decisions. Candidate order is Cinder's: backends and their pools in the order of their first report."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from sortedcontainers import SortedDict

from ...types.errors import InvalidValue, UnknownName
from ...types.steps import finished, in_pieces
from ...types.validation import check_text, shown
from ...versions.history import History
from .backend_names import append_pool, backend_part
from .columns import COLUMN
from .invariants import check
from .pool_classes import PoolClasses
from .reports import (
    Backend,
    BackendReport,
    Capacities,
    PoolFacts,
    VolumeService,
    check_host,
    check_report,
    facts_of,
    pool_capabilities,
)
from .rows import Line, PoolRows
from .variables import PoolVariables
from .volumes import Volume, in_cluster

Figures = tuple[float, float, float, float]
"""Free, allocated and provisioned GiB, and the time, of one pool."""
POOLS: Final = 24
"""Pools of one backend that are changed in one step."""
READ: Final = 500
"""Pools of a report that are read in one step."""
_CHARGED: Final = [COLUMN[name] for name in ("free", "allocated", "provisioned", "updated")]


class Pools(PoolRows):
    """The pools of one fleet. Not thread-safe. An error leaves everything as it was.

    ``keeps_absent``: what was charged since the last report outlasts that no service of the backend is up, enabled and
    not frozen. Cinder's scheduler forgets it, and reads the last report again. ``charges_growth``: the growth of a
    volume that was taken over is given back with it.
    """

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.services: dict[str, VolumeService] = {}
        self.reports: dict[str, BackendReport] = {}
        self.aggregates: dict[str, frozenset[str]] = {}
        """Uuids of the aggregates (racks) of a service host or cluster, where ``set_aggregates`` named them."""
        self.keeps_absent, self.charges_growth = False, True
        self.absent: SortedDict[str, Figures] = SortedDict()
        """With ``keeps_absent``, by backend id: the figures of pools that have left the rows since no service of their
        backend is up, enabled and not frozen. Reports and what is given back change them as those of pools that are
        there, and the pool returns with them."""
        self.default_ratio = "20.0"
        self.now = 0.0
        """The latest time of a report or a request."""
        self.variables = PoolVariables(self)
        """What expressions read, as columns."""
        self.classes = PoolClasses(self)
        """What filters read of reports, as classes."""

    def __repr__(self) -> str:
        return f"<{len(self)} Pools of {len(self.services)} services, {len(self.volumes)} volumes>"

    # size and readiness

    def __len__(self) -> int:
        """Number of pools. O(1)."""
        return len(self.row_of)

    @property
    def waiting(self) -> list[str]:
        """Backends with a service that is up and enabled of which no report has come. O(services)."""
        keys = dict.fromkeys(service.key for service in self.services.values() if _serves(service))
        return [key for key in keys if self._report_for(key) is None]

    @property
    def ready(self) -> bool:
        """True once every service that is up has reported: what Cinder's scheduler waits for as it starts.
        O(services)."""
        return not self.waiting

    def advance(self, at: float | None) -> None:
        """The time is ``at`` now, seconds since the epoch; it does not go back (None: it stays). O(1)."""
        if at is not None and at > self.now:
            self._set("now", at)

    # services

    def add_services(self, services: Iterable[VolumeService]) -> None:
        """Add services, in the order of Cinder's service list; a service of a known host replaces the previous one.
        InvalidValue for a malformed service. O(services)."""
        checked = list(map(_check_service, services))
        for service in checked:
            finished(self._put_service(service))

    def set_service(
        self,
        host: str,
        *,
        up: bool | None = None,
        disabled: bool | None = None,
        frozen: bool | None = None,
        availability_zone: str | None = None,
    ) -> None:
        """Change the settings of a service; None keeps a setting. Pools of a backend without a service that is up,
        enabled and not frozen are no candidates, and come back at the end of the order. UnknownName. O(pools of it)."""
        settings = {"up": up, "disabled": disabled, "frozen": frozen, "availability_zone": availability_zone}
        finished(self.set_service_in_steps(host, **settings))

    def set_service_in_steps(self, host: str, **settings: bool | str | None) -> Generator[None, None, None]:
        """``set_service``, with its settings, in steps as those of ``report_in_steps``."""
        if host not in self.services:
            raise UnknownName.among("volume service", str(host), self.services, field="host")
        changes = {name: value for name, value in settings.items() if value is not None}
        service = _check_service(replace(self.services[host], **changes))  # type: ignore[arg-type]  # checked there
        yield from self._put_service(service)

    def remove_service(self, host: str) -> None:
        """Forget a service, and its backend's pools with the last one; what is known of volumes stays. UnknownName.
        O(services)."""
        if host not in self.services:
            raise UnknownName.among("volume service", str(host), self.services, field="host")
        key = self.services[host].key
        self._set("services", {name: each for name, each in self.services.items() if name != host})
        finished(self._refresh(key))
        for name in {host, key} & self.reports.keys():
            if not any(self._of(name)):
                self._put("reports", name, None)

    def _put_service(self, service: VolumeService) -> Generator[None, None, None]:
        before = self.services.get(service.host)
        if before == service:
            return
        self._put("services", service.host, service)
        if before is not None and before.key != service.key:
            yield from self._refresh(before.key)
            self._follow(service)
        yield from self._refresh(service.key)

    def _follow(self, service: VolumeService) -> None:
        """Volumes of a service that has joined a cluster, or has left it, are that cluster's, or its own (Cinder 29,
        include_in_cluster). O(volumes)."""
        for volume in list(self.volumes.values()):
            follows = in_cluster(volume, service.host, service.cluster_name)
            if follows != volume:
                self.put_volume(volume.volume_id, follows)

    def _serving(self, key: str) -> VolumeService | None:
        """The first service of a backend that is up, enabled and not frozen."""
        return next((each for each in self._of(key) if _serves(each)), None)

    def _of(self, key: str) -> Iterable[VolumeService]:
        alone = self.services.get(key)
        if alone is not None and alone.cluster_name is None:
            return (alone,)
        return (service for service in self.services.values() if service.key == key)

    # reports

    def report(self, report: BackendReport, *, availability_zone: str | None = None) -> bool:
        """Store a capability report; an unknown service is added (in ``availability_zone``, or nova). False if it is
        older than the last one and has nothing new. Capacities of a pool that was charged after the report was made
        stay as they are. InvalidValue for a malformed report. O(pools of the backend); O(all pools) if a backend other
        than the last one gets new pools.
        """
        return finished(self.report_in_steps(report, availability_zone=availability_zone))

    def report_in_steps(
        self, report: BackendReport, *, availability_zone: str | None = None
    ) -> Generator[None, None, bool]:
        """The same in steps of about a millisecond, at which some of the backend's pools are as they are said to be
        now, and the others as they were. Nothing but other versions may be changed meanwhile."""
        check_report(report)
        at = float(report.at)
        zone = check_text(availability_zone or "nova", "availability_zone")
        service = self.services.get(report.host)
        key = report.cluster_name or report.host
        last = self.reports.get(key)
        if last is not None and at < last.at:
            return False
        self.advance(at)
        self._put("reports", key, report)
        yield from self._report_absent(key, report)
        wanted = VolumeService(host=report.host, cluster_name=report.cluster_name, availability_zone=zone)
        if service is None:
            yield from self._put_service(wanted)
        elif service.cluster_name != report.cluster_name:
            yield from self._put_service(replace(service, cluster_name=report.cluster_name))
        yield from self._refresh(key, report)
        return True

    def set_capabilities(self, backend_id: str, capabilities: Mapping[str, object]) -> None:
        """Have filters and expressions read these capabilities of a pool; its capacities stay as they are. For a mirror
        of another scheduler's pools, whose capacities are those after its placements, and whose capabilities are as
        they were reported. They are kept, not copied. UnknownName. O(1)."""
        row = self.row(backend_id)
        facts = self.facts[row]
        assert facts is not None, "a pool that has a row has facts"
        self._put_fact(row, facts.with_capabilities(capabilities), self.columns.block[:, row].copy())
        self._derive(row)

    def load(self, reports: Iterable[BackendReport]) -> int:
        """Take in reports one after the other; returns how many were new. InvalidValue before any is taken in."""
        checked = list(map(check_report, reports))
        return sum(map(self.report, checked))

    def _report_for(self, key: str) -> BackendReport | None:
        """A cluster's report, or that of one of its services that has just joined it."""
        found = self.reports.get(key)
        if found is None:
            found = next((self.reports[each.host] for each in self._of(key) if each.host in self.reports), None)
        return found

    def _refresh(self, key: str, new: BackendReport | None = None) -> Generator[None, None, None]:
        """Update a backend's pools from its services and its report; ``new`` is the report just received."""
        service, report = self._serving(key), self._report_for(key)
        backend = self.backends.get(key)
        if service is None or report is None:
            yield from self._withdraw(key, backend)
            return
        if backend is None:
            backend = Backend(service.host, service.cluster_name, report.at)
        pools = yield from _read(report)
        stale = backend.updated > report.at
        if not pools and not report.capabilities:
            pools = {name: {} for name in backend.pools}
        if not stale:
            backend = replace(backend, updated=report.at)
            backend = yield from self._drop_pools(key, backend, [name for name in backend.pools if name not in pools])
        self._put_backend(key, backend)
        at = report.at if report is new else None
        for names in in_pieces([name for name in pools if name in backend.pools], POOLS):
            for name in names:
                self._update_pool(backend, name, service, pools[name], at)
            yield
        fresh = [name for name in pools if name not in backend.pools]
        if fresh and not stale:
            yield from self._add_pools(key, fresh, service, pools, report.at)

    def _withdraw(self, key: str, backend: Backend | None) -> Generator[None, None, None]:
        """A backend has no service that is up, enabled and not frozen, or no report: its pools are no candidates."""
        there = any(True for _ in self._of(key))
        if not there:
            self._forget_absent(key)
        if backend is None:
            return
        kept = there and self.keeps_absent
        yield from self._drop_pools(key, backend, list(backend.pools), absent=kept)
        self._set("backends", {name: each for name, each in self.backends.items() if name != key})
        self._tidy()

    def _put_backend(self, key: str, backend: Backend) -> None:
        before = self.backends.get(key)
        if before != backend:
            self._put("backends", key, backend)

    def _update_pool(
        self, backend: Backend, name: str, service: VolumeService, capabilities: Mapping[str, object], at: float | None
    ) -> None:
        row = backend.pools[name]
        old, line = self.facts[row], self.columns.block[:, row].copy()
        assert old is not None
        if at is None or line[COLUMN["updated"]] > at or not capabilities:
            facts = replace(old, capabilities=capabilities or old.capabilities)
            facts = replace(facts, availability_zone=service.availability_zone)
        else:
            facts, figures = facts_of(name, backend, service.availability_zone, capabilities, self.default_ratio)
            _fill(line, facts, figures, at)
        self._put_fact(row, facts, line)
        self._derive(row)

    def _add_pools(
        self,
        key: str,
        fresh: list[str],
        service: VolumeService,
        pools: Mapping[str, Mapping[str, object]],
        at: float,
    ) -> Generator[None, None, None]:
        rows = self._rows_for(key, len(fresh))
        for some in in_pieces(list(zip(fresh, rows, strict=True)), POOLS):
            backend = self.backends[key]
            self._put_backend(key, replace(backend, pools={**backend.pools, **dict(some)}))
            for name, row in some:
                facts, figures = facts_of(name, backend, service.availability_zone, pools[name], self.default_ratio)
                line = np.zeros(len(self.columns.block))
                _fill(line, facts, figures, at)
                kept = self.absent.get(facts.backend_id)
                if kept is not None:
                    free = line[COLUMN["free"]]
                    line[_CHARGED] = kept
                    if facts.free_word is not None:  # it is not counted
                        line[COLUMN["free"]] = free
                self._put_fact(row, facts, line)
                self._derive(row)
            yield
        self._forget_absent(key)

    def _report_absent(self, key: str, report: BackendReport) -> Generator[None, None, None]:
        """Take the figures of a report for pools that are absent, but those that were charged after it was made, as for
        pools that are there. O(its pools * log pools that are absent)."""
        names = set(self._absent_of(key))
        if not names:
            return
        backend = Backend(report.host, report.cluster_name, report.at)
        pools = yield from _read(report)
        for some in in_pieces(list(pools), POOLS):
            for pool in some:
                facts, figures = facts_of(pool, backend, "nova", pools[pool], self.default_ratio)
                name = facts.backend_id if facts.backend_id in names else append_pool(key, pool)
                if name in names:
                    names.discard(name)
                    if self.absent[name][-1] <= report.at:
                        line = np.zeros(len(self.columns.block))
                        _fill(line, facts, figures, report.at)
                        self._put("absent", name, tuple(line[_CHARGED].tolist()))
            yield
        if report.capabilities:
            for name in sorted(names):  # pools that it does not have any more
                self._put("absent", name, None)

    def _forget_absent(self, key: str) -> None:
        """O(its pools * log pools that are absent)."""
        for name in self._absent_of(key):
            self._put("absent", name, None)

    def _absent_of(self, key: str) -> list[str]:
        """Names of the pools of a backend that are absent."""
        last = append_pool(key, "\U0010ffff")
        return [name for name in self.absent.irange(key, last) if backend_part(name) == key]

    def give_back(self, backend_id: str, size_gb: float, at: float | None = None) -> None:
        """Return capacity to a pool, also to one whose backend is not up at present; ``at`` as of ``consume``. No-op
        for a pool that is not known: it comes with a report of its own. O(1)."""
        row = self.row_of.get(backend_id)
        if row is not None:
            self.consume(row, -size_gb, at)
        elif (figures := self.absent.get(backend_id)) is not None:
            free, allocated, provisioned, updated = figures
            left = (free + size_gb, allocated - size_gb, provisioned - size_gb, updated if at is None else at)
            self._put("absent", backend_id, left)

    def _drop_pools(
        self, key: str, backend: Backend, names: list[str], *, absent: bool = False
    ) -> Generator[None, None, Backend]:
        """The backend without some of its pools; ``absent``: what was charged on them is kept."""
        for some in in_pieces(names, POOLS):
            for name in some:
                row = backend.pools[name]
                if absent:
                    figures = tuple(self.columns.block[_CHARGED, row].tolist())
                    self._put("absent", self.fact(row).backend_id, figures)
                self._put_fact(row, None, np.zeros(len(self.columns.block)))
            gone = set(some)
            backend = replace(backend, pools={name: row for name, row in backend.pools.items() if name not in gone})
            self._put_backend(key, backend)
            yield
        return backend

    # what there is

    def row(self, backend_id: str, *, field: str = "backend") -> int:
        """Row of the pool ``host@backend#pool`` (or its cluster's name); UnknownName otherwise. O(1)."""
        row = self.row_of.get(backend_id) if isinstance(backend_id, str) else None
        if row is None:
            raise UnknownName.among("pool", shown(backend_id), list(self.row_of)[:1000], field=field)
        return row

    def rows_of_backend(self, name: str) -> list[int]:
        """Rows of the pools of ``host@backend`` (or a cluster), in candidate order; empty if it is not known. O(pools
        of it)."""
        backend = self.backends.get(backend_part(name))
        return [] if backend is None else list(backend.pools.values())

    def restore(self, block: Line, facts: list[PoolFacts | None]) -> None:
        """Hold these rows, unrecorded, beside the backends and volumes that are there. O(rows)."""
        whole = np.zeros((len(self.columns.block), len(facts)))
        whole[: len(block)] = block
        self._laid((whole, facts, self.backends))

    def check(self) -> None:
        """Assert every invariant. O(pools + volumes)."""
        check(self, self.services, self.default_ratio)

    def set_default_ratio(self, ratio: str) -> None:
        """The over-subscription ratio of pools that report none: ``auto`` or a number. O(pools) if it changes."""
        if ratio == self.default_ratio:
            return
        self._set("default_ratio", ratio)
        for row, facts in enumerate(self.facts):
            if facts is not None and not facts.reported.get("max_over_subscription_ratio"):
                self._change_ratio(row, facts)

    def _change_ratio(self, row: int, facts: PoolFacts) -> None:
        backend = self.backends[facts.backend_key]
        zone = facts.availability_zone
        changed, figures = facts_of(facts.pool_name, backend, zone, facts.reported, self.default_ratio)
        line = self.columns.block[:, row].copy()
        line[COLUMN["ratio"]] = figures.ratio
        self._put_fact(row, replace(changed, capabilities=facts.capabilities), line)
        self._derive(row)

    def set_aggregates(self, host: str, aggregates: Iterable[str]) -> None:
        """Say which aggregates (racks), by uuid, a service host or cluster stands in; ``host`` or ``host@backend``. One
        that stands in none is forgotten. InvalidValue. O(aggregates)."""
        check_host(host, "host")
        if isinstance(aggregates, str):
            raise InvalidValue("aggregates must be several uuids", field="aggregates")
        uuids = frozenset(check_text(uuid, "aggregates") for uuid in aggregates)
        self._put("aggregates", host, uuids or None)

    def add_volumes(self, volumes: Iterable[Volume]) -> None:
        """Add existing volumes, for filters and weighers; capacities come from reports. DuplicateName or InvalidValue.
        O(volumes)."""
        checked = list(volumes)
        seen: set[str] = set()
        for volume in checked:
            if not isinstance(volume, Volume):
                raise InvalidValue(f"a volume must be a Volume, got {shown(volume)}", field="volumes")
            self.volumes.check_new(volume.volume_id, "volumes")
            if volume.volume_id in seen:
                raise InvalidValue(f"volume {volume.volume_id} is named twice", field="volumes")
            seen.add(volume.volume_id)
        for volume in checked:
            self.put_volume(volume.volume_id, volume)


def _read(report: BackendReport) -> Generator[None, None, dict[str, dict[str, Any]]]:
    """All that is known of the pools of a report, by name."""
    pools: dict[str, dict[str, Any]] = {}
    for name, known in pool_capabilities(report):
        pools[name] = known
        if len(pools) % READ == 0:
            yield
    return pools


def _serves(service: VolumeService) -> bool:
    return service.up and not service.disabled and not service.frozen


def _check_service(service: object) -> VolumeService:
    if not isinstance(service, VolumeService):
        raise InvalidValue(f"a service must be a VolumeService, got {shown(service)}", field="services")
    check_host(service.host, "services.host")
    if service.cluster_name is not None:
        check_host(service.cluster_name, "services.cluster_name")
    check_text(service.availability_zone, "services.availability_zone")
    for name in ("up", "disabled", "frozen"):
        if not isinstance(getattr(service, name), bool):
            raise InvalidValue(f"services.{name} must be true or false", field=f"services.{name}")
    return service


def _fill(line: Line, facts: PoolFacts, figures: Capacities, at: float) -> None:
    """Write a report's figures into a row's line. The volumes are counted elsewhere."""
    total, free = figures.total, figures.free
    reserve_unknown = not isinstance(free, str) and isinstance(total, str) and figures.reserved_percentage != 0
    line[:9] = (
        0.0 if isinstance(total, str) else total,
        0.0 if isinstance(free, str) else free,
        figures.allocated,
        figures.provisioned,
        figures.reserved_percentage,
        figures.ratio,
        facts.thin,
        facts.bounded and facts.problem is None,
        at,
    )
    line[COLUMN["endless"]] = not facts.bounded and not reserve_unknown and facts.problem is None
    line[COLUMN["counted"]] = facts.free_word is None
