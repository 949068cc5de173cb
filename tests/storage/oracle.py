"""A slow, obvious storage scheduler: dicts, no columns, nothing kept between decisions. It knows services, reports,
placements, releases and growth, by the rules that Cinder documents. Each function of the tests is written out as a
Python function, and operators of extra specs are stated again."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hostler.placement.storage.pools.reports import BackendReport
from hostler.placement.storage.pools.request import VolumeSpec

FAMILIES = {"FC": ["FC", "fibre_channel", "fc"], "iSCSI": ["iSCSI", "iscsi"]}


class Impossible(Exception):
    """Cinder crashes here; the pool is refused."""


class NoValue(Exception):
    """A function cannot be parsed, or reads what is not there."""


Variable = Callable[[str], Any]


def not_parsable(of: Variable) -> Any:
    raise NoValue


WRITTEN_OUT: Mapping[str, Callable[[Variable], Any]] = {
    "volume.size < 10": lambda of: of("volume.size") < 10,
    "stats.free_capacity_gb > volume.size * 2": lambda of: of("stats.free_capacity_gb") > of("volume.size") * 2,
    "stats.storage_protocol == 'iSCSI'": lambda of: of("stats.storage_protocol") == "iSCSI",
    "capabilities.iops": lambda of: of("capabilities.iops"),
    "1 +": not_parsable,
    "'abc'": lambda of: "abc",
    "min(100, stats.free_capacity_gb / 10)": lambda of: min(100, of("stats.free_capacity_gb") / 10),
    "(volume.size < 5) ? 100 : 50": lambda of: 100 if of("volume.size") < 5 else 50,
    "100 - stats.allocated_capacity_gb / stats.total_capacity_gb * 100": lambda of: (
        100 - of("stats.allocated_capacity_gb") / of("stats.total_capacity_gb") * 100
    ),
    "extra.iops <= qos.maxIOPS": lambda of: of("extra.iops") <= of("qos.maxIOPS"),
}
"""The functions of ``values.FUNCTIONS``; ``of`` gives the value of a variable."""


def variables(scopes: Mapping[str, Any]) -> Variable:
    """Values of variables as Cinder reads them: floats are cut to whole numbers, texts of numbers become numbers."""

    def of(name: str) -> Any:
        scope, _, key = name.partition(".")
        value = (scopes[scope] or {}).get(key)
        if value is None or isinstance(value, list):
            raise NoValue
        if not isinstance(value, str):
            return int(value)
        try:
            return int(value)
        except ValueError:
            return value

    return of


def satisfies(value: Any, wish: str | None) -> bool:
    """Whether a capability satisfies an extra spec. TypeError where Cinder cannot compare them."""
    if wish is None:
        return value is None
    words = wish.split()
    compared = {"=": operator.ge, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le}
    if words[0] not in (*compared, "<or>", "<in>"):
        return bool(value == wish)
    if value is None:
        return False
    if words[0] == "<or>":
        return value in words[1::2]
    if words[0] == "<in>":
        return words[1] in value
    try:
        return bool(compared[words[0]](float(value), float(words[1])))
    except ValueError:
        return False


@dataclass
class Pool:
    name: str
    zone: str
    capabilities: dict[str, Any] = field(default_factory=dict)
    updated: float = -math.inf
    total: Any = 0
    free: Any = 0
    allocated: float = 0
    provisioned: float = 0
    reserved: float = 0
    ratio: float = 1.0
    thin: bool = False

    def take_report(self, capabilities: dict[str, Any], at: float) -> None:
        self.capabilities = capabilities
        if self.updated > at:
            return
        self.updated = at
        self.total, self.free = capabilities.get("total_capacity_gb", 0), capabilities.get("free_capacity_gb", 0)
        self.allocated = capabilities.get("allocated_capacity_gb", 0)
        self.provisioned = capabilities.get("provisioned_capacity_gb", self.allocated)
        self.reserved = capabilities.get("reserved_percentage", 0)
        self.thin = capabilities.get("thin_provisioning_support", False)
        self.ratio = self.over_subscription(capabilities)

    def over_subscription(self, capabilities: dict[str, Any]) -> float:
        if not self.thin or isinstance(self.total, str) or isinstance(self.free, str):
            return 1.0
        own = capabilities.get("max_over_subscription_ratio") or "20.0"
        if own != "auto":
            return float(own)
        return 20.0 if self.provisioned == 0 else 1 + self.provisioned / (self.total - self.free + 1)

    def free_for(self, thin: bool) -> tuple[float, float]:
        """(virtual free, total available), rounded."""
        base = float(self.total) - math.floor(float(self.total) * (self.reserved / 100))
        available = base * self.ratio if thin and self.thin else base
        virtual = available - self.provisioned
        if not (thin and self.thin):
            virtual = min(virtual, self.free)
        return round(virtual, 2), round(available, 2)

    def has_room(self, size: int, thin: bool) -> bool:
        if size == 0 or isinstance(self.free, str):
            return True
        if isinstance(self.total, str):
            return self.reserved == 0
        if self.total <= 0:
            return False
        virtual, available = self.free_for(thin)
        if thin and self.thin:
            if self.ratio < 1 or available == 0:
                return False
            return (self.provisioned + size) / available <= self.ratio and virtual >= size
        return virtual >= size

    def scopes(self, spec: VolumeSpec, text: str) -> list[dict[str, Any]]:
        stats = {
            "free_capacity_gb": self.free,
            "allocated_capacity_gb": self.allocated,
            "total_capacity_gb": self.total,
            "storage_protocol": self.capabilities.get("storage_protocol"),
        }
        common = {"volume": {"size": spec.size_gb}, "extra": spec.extra_specs, "qos": spec.qos_specs}
        protocol = stats["storage_protocol"]
        names = protocol if "storage_protocol" in text and isinstance(protocol, list) else [protocol]
        capabilities = self.capabilities
        return [
            {**common, "stats": {**stats, "storage_protocol": name}, "capabilities": capabilities} for name in names
        ]

    def values(self, kind: str, spec: VolumeSpec) -> list[Any] | None:
        """Values of a function, one for each protocol name; None for a name that has no value."""
        text = self.capabilities.get(kind)
        if text is None:
            return None
        found: list[Any] = []
        for scope in self.scopes(spec, text):
            try:
                found.append(WRITTEN_OUT[text](variables(scope)))
            except (NoValue, TypeError, ZeroDivisionError):
                found.append(None)
        return found

    def goodness(self, spec: VolumeSpec) -> float:
        rated = self.values("goodness_function", spec)
        best = 0.0
        for value in rated or []:
            if isinstance(value, bool):
                value = 100 if value else 0
            if value is not None and not isinstance(value, int | float):
                raise Impossible
            best = max(best, value if value is not None and 0 <= value <= 100 else 0)
        return best


class Oracle:
    """All pools, and what was decided of them."""

    def __init__(self, filters: list[str], weighers: dict[str, float]) -> None:
        self.filters, self.weighers = filters, weighers
        self.backends: dict[str, dict[str, Pool]] = {}
        self.down: set[str] = set()
        self.last: dict[str, BackendReport] = {}
        self.volumes: Counter[str] = Counter()

    def report(self, report: BackendReport) -> None:
        key = report.cluster_name or report.host
        self.last[key] = report
        if key not in self.down:
            self.take(key)

    def take(self, key: str) -> None:
        report = self.last[key]
        pools = self.backends.setdefault(key, {})
        given = dict(report.capabilities)
        given["storage_protocol"] = FAMILIES.get(given["storage_protocol"], given["storage_protocol"])
        whole = {"pool_name": given["volume_backend_name"], **given}
        found = {each["pool_name"]: {**given, **each} for each in given.get("pools", [whole])}
        for name in list(pools):
            if name not in found:
                del pools[name]
        for name, capabilities in found.items():
            pools.setdefault(name, Pool(f"{key}#{name}", "nova")).take_report(capabilities, report.at)

    def set_up(self, key: str, up: bool) -> None:
        if not up:
            self.down.add(key)
            self.backends.pop(key, None)
        elif key in self.down:
            self.down.discard(key)
            if key in self.last:
                self.take(key)

    @property
    def pools(self) -> list[Pool]:
        return [pool for backend in self.backends.values() for pool in backend.values()]

    def passes(self, name: str, pool: Pool, spec: VolumeSpec, size: int) -> bool:
        if name == "AvailabilityZoneFilter":
            return not spec.availability_zone or spec.availability_zone == pool.zone
        if name == "CapacityFilter":
            return pool.has_room(size, spec.thin)
        if name == "CapabilitiesFilter":
            return all(self.satisfied(pool, key, wish) for key, wish in spec.extra_specs.items())
        if name == "DriverFilter":
            values = pool.values("filter_function", spec)
            return values is None or any(values)
        assert name == "JsonFilter"
        return not spec.scheduler_hints or pool.allocated < 50

    @staticmethod
    def satisfied(pool: Pool, key: str, wish: str | None) -> bool:
        if ":" in key:
            return True
        if key not in pool.capabilities:
            return False
        value = pool.capabilities[key]
        try:
            return any(satisfies(each, wish) for each in (value if isinstance(value, list) else [value]))
        except TypeError:
            return False

    def rank(self, spec: VolumeSpec, size: int) -> tuple[list[tuple[Pool, float]], dict[str, int]]:
        """Pools and weights, best first, and how many each stage removed."""
        removed: dict[str, int] = {}
        left = self.pools
        for name in self.filters:
            passing = [pool for pool in left if self.passes(name, pool, spec, size)]
            removed[name], left = len(left) - len(passing), passing
        rated: dict[int, float] = {}
        if "GoodnessWeigher" in self.weighers:
            before, left = left, []
            for pool in before:
                try:
                    rated[id(pool)] = pool.goodness(spec)
                    left.append(pool)
                except Impossible:
                    pass
            removed["GoodnessWeigher"] = len(before) - len(left)
        totals = [0.0] * len(left)
        for name, multiplier in self.weighers.items():
            raw = [rated[id(pool)] for pool in left] if name == "GoodnessWeigher" else self.raw(name, left, spec)
            low, high = min(raw, default=0), max(raw, default=0)
            for index, value in enumerate(raw):
                totals[index] += multiplier * ((value - low) / (high - low) if high > low else 0)
        return sorted(zip(left, totals, strict=True), key=lambda each: -each[1]), removed

    def raw(self, name: str, pools: list[Pool], spec: VolumeSpec) -> list[float]:
        if name == "AllocatedCapacityWeigher":
            return [pool.allocated for pool in pools]
        if name == "VolumeNumberWeigher":
            return [self.volumes[pool.name] for pool in pools]
        endless = [isinstance(pool.free, str) or isinstance(pool.total, str) for pool in pools]
        raw = [-1.0 if each else pool.free_for(spec.thin)[0] for pool, each in zip(pools, endless, strict=True)]
        finite = [value for value, each in zip(raw, endless, strict=True) if not each]
        if self.weighers["CapacityWeigher"] > 0 or not any(endless):
            return raw
        if not finite:
            return [0.0] * len(raw)
        far = max(finite) + ((max(finite) - min(finite)) * 100 or 10_000)
        return [far if each else value for value, each in zip(raw, endless, strict=True)]

    @staticmethod
    def consume(pool: Pool, size: int, at: float | None) -> None:
        pool.allocated += size
        pool.provisioned += size
        if not isinstance(pool.free, str):
            pool.free -= size
        if at is not None:
            pool.updated = at
