"""nova.conf as data: one frozen value per option group, with Nova 33's option names, defaults, types and limits.

``policy`` reads from these values which filters and weighers run, and in which order. This module reads no files.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from .errors import InvalidValue, UnknownName
from .pci_alias import PciAliases, read_aliases

NEWEST_NOVA: Final = "34"
NovaRelease = Literal["33", "34"]
"""Major releases of Nova that can be followed: 33 is 2026.1, 34 is 2026.2."""
ALL_FILTERS: Final = "nova.scheduler.filters.all_filters"
ALL_WEIGHERS: Final = "nova.scheduler.weights.all_weighers"

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
NotBelowMinusOne = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
Words = tuple[str, ...]
NumaFit = Literal["nova", "exact"]

_TRUE: Final = frozenset({"true", "1", "on", "yes"})
_FALSE: Final = frozenset({"false", "0", "off", "no"})


class Ratios(Mapping[str, float]):
    """An ordered, immutable, hashable mapping from a name to a ratio (nova.conf: a list of ``name=ratio``)."""

    __slots__ = ("_ratios",)

    def __init__(self, ratios: Mapping[str, float] | Iterable[tuple[str, float]] = ()) -> None:
        self._ratios = dict(ratios)

    def __getitem__(self, name: str) -> float:
        return self._ratios[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ratios)

    def __len__(self) -> int:
        return len(self._ratios)

    def __eq__(self, other: object) -> bool:
        return tuple(self.items()) == tuple(other.items()) if isinstance(other, Ratios) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._ratios.items()))

    def __repr__(self) -> str:
        return f"Ratios({self._ratios!r})"

    def to_words(self) -> list[str]:
        """The notation of nova.conf: ``name=ratio``, in order."""
        return [f"{name}={ratio!r}" for name, ratio in self._ratios.items()]


class OptionGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the groups. A field is an option: its name, type, limits and default are Nova's."""

    group: ClassVar[str]

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Nova's names of the options of this group."""
        return cls.__struct_fields__

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults, as ``Options.from_mapping`` reads them. O(options)."""
        return {name: plain for name, plain in self.all_values().items() if not _is_default(self, name)}

    def all_values(self) -> dict[str, Any]:
        """All options with their values, as plain numbers, strings and lists."""
        return {name: _plain(getattr(self, name)) for name in self.option_names()}


class DefaultOptions(OptionGroup, frozen=True):
    """``[DEFAULT]``. Times in seconds, ``reserved_host_memory_mb`` in MiB; a ratio of None means the initial one."""

    group: ClassVar[str] = "DEFAULT"

    service_down_time: Count = 60
    report_interval: Count = 10
    scheduler_instance_sync_interval: Whole = 120
    default_schedule_zone: str | None = None
    default_availability_zone: str = "nova"
    initial_cpu_allocation_ratio: NotNegative = 4.0
    initial_ram_allocation_ratio: NotNegative = 1.0
    initial_disk_allocation_ratio: NotNegative = 1.0
    cpu_allocation_ratio: NotNegative | None = None
    ram_allocation_ratio: NotNegative | None = None
    disk_allocation_ratio: NotNegative | None = None
    reserved_host_memory_mb: Count = 512
    long_rpc_timeout: Count = 1800
    cell_worker_thread_pool_size: Positive = 5
    default_thread_pool_size: Positive = 10
    servicegroup_driver: str = "db"


class SchedulerOptions(OptionGroup, frozen=True):
    """``[scheduler]``: limits, and the options that enable prefilters."""

    group: ClassVar[str] = "scheduler"

    max_attempts: Positive = 3
    discover_hosts_in_cells_interval: NotBelowMinusOne = -1
    max_placement_results: Positive = 1000
    workers: Count | None = None
    query_placement_for_routed_network_aggregates: bool = False
    limit_tenants_to_placement_aggregate: bool = False
    placement_aggregate_required_for_tenants: bool = False
    query_placement_for_image_type_support: bool = False
    enable_isolated_aggregate_filtering: bool = False
    image_metadata_prefilter: bool = False


class FilterSchedulerOptions(OptionGroup, frozen=True):
    """``[filter_scheduler]``: which filters and weighers run, their limits and their multipliers."""

    group: ClassVar[str] = "filter_scheduler"

    host_subset_size: Positive = 1
    max_io_ops_per_host: Count = 8
    max_instances_per_host: Positive = 50
    track_instance_changes: bool = True
    available_filters: Words = (ALL_FILTERS,)
    enabled_filters: Words = (
        "ComputeFilter",
        "ComputeCapabilitiesFilter",
        "ImagePropertiesFilter",
        "ServerGroupAntiAffinityFilter",
        "ServerGroupAffinityFilter",
    )
    weight_classes: Words = (ALL_WEIGHERS,)
    ram_weight_multiplier: float = 1.0
    cpu_weight_multiplier: float = 1.0
    disk_weight_multiplier: float = 1.0
    hypervisor_version_weight_multiplier: float = 1.0
    num_instances_weight_multiplier: float = 0.0
    io_ops_weight_multiplier: float = -1.0
    image_props_weight_multiplier: float = 0.0
    image_props_weight_setting: Ratios = Ratios()
    pci_weight_multiplier: NotNegative = 1.0
    soft_affinity_weight_multiplier: NotNegative = 1.0
    soft_anti_affinity_weight_multiplier: NotNegative = 1.0
    build_failure_weight_multiplier: float = 1000000.0
    cross_cell_move_weight_multiplier: float = 1000000.0
    shuffle_best_same_weighed_hosts: bool = False
    image_properties_default_architecture: str | None = None
    isolated_images: Words = ()
    isolated_hosts: Words = ()
    restrict_isolated_hosts_to_isolated_images: bool = True
    aggregate_image_properties_isolation_namespace: str | None = None
    aggregate_image_properties_isolation_separator: str = "."
    pci_in_placement: bool = False


class MetricsOptions(OptionGroup, frozen=True):
    """``[metrics]``: what MetricsWeigher and MetricsFilter read."""

    group: ClassVar[str] = "metrics"

    weight_multiplier: float = 1.0
    weight_setting: Ratios = Ratios()
    required: bool = True
    weight_of_unavailable: float = -10000.0


class ComputeOptions(OptionGroup, frozen=True):
    """``[compute]``."""

    group: ClassVar[str] = "compute"

    consecutive_build_service_disable_threshold: Count = 10
    packing_host_numa_cells_allocation_strategy: bool = False


class WorkaroundsOptions(OptionGroup, frozen=True):
    """``[workarounds]``."""

    group: ClassVar[str] = "workarounds"

    disable_group_policy_check_upcall: bool = False
    disable_fallback_pcpu_query: bool = False


class PciOptions(OptionGroup, frozen=True):
    """``[pci]``. ``alias``: JSON objects, one an entry."""

    group: ClassVar[str] = "pci"

    alias: PciAliases = PciAliases()


class CinderOptions(OptionGroup, frozen=True):
    """``[cinder]``."""

    group: ClassVar[str] = "cinder"

    cross_az_attach: bool = True


class UpgradeLevelsOptions(OptionGroup, frozen=True):
    """``[upgrade_levels]``."""

    group: ClassVar[str] = "upgrade_levels"

    scheduler: str | None = None


class GpuOptions(OptionGroup, frozen=True):
    """``[gpu]``, specific to Hostler: parameters of the GPU weighers. ``typical`` is the mix of requests for which
    fragmentation is measured: ``cpu_milli:gpu_milli:gpus[:A|B]=share``."""

    group: ClassVar[str] = "gpu"

    vcpu_milli: Positive = 1000
    largest_cpu_milli: Positive = 128_000
    largest_gpu_milli: Positive = 8_000
    typical: Ratios = Ratios()


class NumaOptions(OptionGroup, frozen=True):
    """``[numa]``, Hostler's own. ``fit``: ``nova`` tries host cells as nova-compute does, ``exact`` judges each pair of
    cells by itself, so that it neither misses a fit nor takes a misfit."""

    group: ClassVar[str] = "numa"

    fit: NumaFit = "nova"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """All options of nova.conf that a decision may depend on. ``default`` is the group ``[DEFAULT]``."""

    default: DefaultOptions = DefaultOptions()
    scheduler: SchedulerOptions = SchedulerOptions()
    filter_scheduler: FilterSchedulerOptions = FilterSchedulerOptions()
    metrics: MetricsOptions = MetricsOptions()
    compute: ComputeOptions = ComputeOptions()
    workarounds: WorkaroundsOptions = WorkaroundsOptions()
    pci: PciOptions = PciOptions()
    cinder: CinderOptions = CinderOptions()
    upgrade_levels: UpgradeLevelsOptions = UpgradeLevelsOptions()
    gpu: GpuOptions = GpuOptions()
    numa: NumaOptions = NumaOptions()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Mapping[str, Any]]) -> Options:
        """Options from a mapping group -> option -> value; omitted options have Nova's defaults.

        A value may have its own type or be written as in nova.conf: ``"yes"``, ``"4"``, ``"a, b"``. Raises UnknownName
        for a group or option that does not exist, InvalidValue for a value that Nova would refuse, NaN and infinity.
        """
        groups: dict[str, Any] = {}
        for name, group_values in _mapping("options", values).items():
            attribute = _ATTRIBUTE.get(name) if isinstance(name, str) else None
            if attribute is None:
                raise UnknownName.among("option group", _name(name), _ATTRIBUTE, field=_name(name))
            groups[attribute] = read_group(_GROUPS[name], _mapping(name, group_values))
        return cls(**groups)

    def groups(self) -> tuple[OptionGroup, ...]:
        """The groups, in the order of Nova's configuration reference."""
        return tuple(getattr(self, attribute) for attribute in self.__struct_fields__)

    def to_mapping(self) -> dict[str, dict[str, Any]]:
        """The options that differ from Nova's defaults, as ``from_mapping`` reads them."""
        changed = {group.group: group.changed() for group in self.groups()}
        return {name: values for name, values in changed.items() if values}


_GROUPS: Final[Mapping[str, type[OptionGroup]]] = {
    group.group: group
    for group in (
        DefaultOptions,
        SchedulerOptions,
        FilterSchedulerOptions,
        MetricsOptions,
        ComputeOptions,
        WorkaroundsOptions,
        PciOptions,
        CinderOptions,
        UpgradeLevelsOptions,
        GpuOptions,
        NumaOptions,
    )
}
_ATTRIBUTE: Final[Mapping[str, str]] = {name: name.lower() for name in _GROUPS}

G = TypeVar("G", bound=OptionGroup)


def read_group(group: type[G], values: Mapping[str, Any]) -> G:
    """One group from option -> value. Raises UnknownName and InvalidValue, naming ``group.option``."""
    types = _types(group)
    names = group.option_names()
    read: dict[str, Any] = {}
    for option, value in values.items():
        if option not in names:
            field = f"{group.group}.{_name(option)}"
            raise UnknownName.among(f"[{group.group}] option", _name(option), names, field=field)
        read[option] = _read(f"{group.group}.{option}", types[option], value)
    return group(**read)


def invalid(field: str, value: object, wanted: str) -> InvalidValue:
    """The error for ``field``, whose ``value`` is not ``wanted``."""
    return InvalidValue(f"{field} is {_short(value)}, but must be {wanted}", field=field)


def _short(value: object) -> str:
    try:
        return repr(value)[:200]
    except Exception:  # from a caller's own ``__repr__``, while an error about the value is made
        return f"a {type(value).__name__}"


def _name(name: object) -> str:
    return name[:200] if isinstance(name, str) else _short(name)


@functools.cache
def _types(group: type[OptionGroup]) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


def _mapping(field: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise invalid(field, value, "a table")
    return value


def _is_default(group: OptionGroup, name: str) -> bool:
    return repr(getattr(group, name)) == repr(getattr(_defaults(type(group)), name))


@functools.cache
def _defaults(group: type[OptionGroup]) -> OptionGroup:
    return group()


def _plain(value: Any) -> Any:
    if isinstance(value, Ratios | PciAliases):
        return value.to_words()
    return list(value) if isinstance(value, tuple) else value


# Reading one value: first from the notation of nova.conf to the type, then the limits.


def _read(field: str, kind: Any, value: object) -> Any:
    optional = type(None) in getattr(kind, "__args__", ())
    if value is None and optional:
        return None
    if get_origin(kind) is Literal:
        return _read_choice(field, value, get_args(kind))
    base = _base(kind)
    plain = _READERS[base](field, value)
    if base not in (int, float):
        return plain
    try:
        return msgspec.convert(plain, kind, strict=True)
    except msgspec.ValidationError as error:
        raise invalid(field, value, str(error).removeprefix("Expected ").replace("`", "")) from None


def _base(kind: Any) -> Any:
    """The key of the reader: the type without ``Annotated`` and ``| None``."""
    if kind == Words:
        return tuple
    while kind not in _READERS:
        kind = kind.__origin__ if hasattr(kind, "__metadata__") else kind.__args__[0]
    return kind


def _read_choice(field: str, value: object, choices: tuple[str, ...]) -> str:
    if value in choices:
        return str(value)
    raise invalid(field, value, f"one of {', '.join(choices)}")


def _read_bool(field: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise invalid(field, value, "true or false")


def _read_int(field: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) < 40:
        try:
            return int(value)
        except ValueError:
            pass
    raise invalid(field, value, "a whole number")


def _read_float(field: str, value: object) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise invalid(field, value, "a finite number")
    return number


def read_text(field: str, value: object) -> str:
    """A string that can be written as UTF-8. Raises InvalidValue."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    raise invalid(field, value, "a text")


def read_words(field: str, value: object) -> tuple[str, ...]:
    """A list of strings, or one string with commas; blanks around items are ignored. Raises InvalidValue."""
    if isinstance(value, str):
        parts: Iterable[object] = value.split(",") if value.strip() else ()
    elif isinstance(value, list | tuple):
        parts = value
    else:
        raise invalid(field, value, "a list of strings")
    words = tuple(read_text(field, part).strip() for part in parts)
    if not all(words):
        raise invalid(field, value, "a list without empty strings")
    return words


def _read_ratios(field: str, value: object) -> Ratios:
    """``name=ratio`` items, or a table. As in Nova, an item of another form is ignored (recorded from Nova 33)."""
    if isinstance(value, Mapping):
        return Ratios({_ratio_name(field, name): _read_float(field, ratio) for name, ratio in value.items()})
    ratios: dict[str, float] = {}
    for word in read_words(field, value):
        name, _, text = word.partition("=")
        try:
            ratio = float(text)
        except ValueError:
            continue
        if not name:
            continue
        if not math.isfinite(ratio):
            raise invalid(field, value, "a list of name=ratio items with finite ratios")
        if name in ratios:
            raise invalid(field, value, f"a list that names {name!r} once")
        ratios[name] = ratio
    return Ratios(ratios)


def _ratio_name(field: str, name: object) -> str:
    text = read_text(field, name)
    if not text or "=" in text or text != text.strip():
        raise invalid(field, name, "a name without = and without blanks around it")
    return text


_READERS: Final[Mapping[Any, Callable[[str, object], Any]]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: read_text,
    tuple: read_words,
    Ratios: _read_ratios,
    PciAliases: read_aliases,
}
