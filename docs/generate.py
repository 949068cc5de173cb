"""Writes the tables of docs/policies.md from the code, between their marks.

    python docs/generate.py

The tables are derived from the code; only the descriptions of options are kept here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from hostler.placement.filters import BUILTIN_FILTERS
from hostler.placement.policy.policy import HostlerOptions
from hostler.placement.types.options import (
    ALL_FILTERS,
    ALL_WEIGHERS,
    FilterSchedulerOptions,
    OptionGroup,
    Options,
    Ratios,
)
from hostler.placement.types.pci_alias import PciAliases
from hostler.placement.weighers import BUILTIN_WEIGHERS

PAGE: Final = Path(__file__).with_name("policies.md")
MARKED: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

ABOUT: Final = {
    "DEFAULT": {
        "service_down_time": "seconds without a heartbeat after which ComputeFilter refuses a host",
        "default_schedule_zone": "zone of a prepared request that names none",
        "default_availability_zone": "the zone of hosts whose aggregates name none",
    },
    "scheduler": {
        "max_placement_results": "used only in query strings for Placement; the engine has no limit",
        "limit_tenants_to_placement_aggregate": "prefilter: only the aggregates of the request's project",
        "placement_aggregate_required_for_tenants": "prefilter: refuse projects that have no aggregate",
        "query_placement_for_routed_network_aggregates": "prefilter: only aggregates of a routed network's segments",
        "query_placement_for_image_type_support": "prefilter: only hosts that support the image's disk format",
        "enable_isolated_aggregate_filtering": "prefilter: exclude aggregates that require a trait not requested",
        "image_metadata_prefilter": "prefilter: only hosts with the image's buses, models and architectures",
    },
    "gpu": {
        "vcpu_milli": "thousandths of a CPU per VCPU",
        "largest_cpu_milli": "GPU weighers: CPUs of the largest host, in thousandths",
        "largest_gpu_milli": "GPU weighers: GPUs of the largest host, in thousandths",
        "typical": "the mix of requests by which fragmentation is measured: `cpu_milli:gpu_milli:gpus[:A|B]=share`",
    },
    "numa": {
        "fit": "`nova`: fit NUMA cells as nova-compute does; `exact`: judge each pair of cells by itself",
    },
    "filter_scheduler": {
        "host_subset_size": "number of best hosts among which one is chosen at random",
        "max_io_ops_per_host": "limit of IoOpsFilter and AggregateIoOpsFilter",
        "max_instances_per_host": "limit of NumInstancesFilter and AggregateNumInstancesFilter",
        "available_filters": "what `enabled_filters` may name",
        "enabled_filters": "the filters, in order",
        "weight_classes": "the weighers, in order",
        "ram_weight_multiplier": "RAMWeigher",
        "cpu_weight_multiplier": "CPUWeigher",
        "disk_weight_multiplier": "DiskWeigher",
        "hypervisor_version_weight_multiplier": "HypervisorVersionWeigher",
        "num_instances_weight_multiplier": "NumInstancesWeigher",
        "io_ops_weight_multiplier": "IoOpsWeigher",
        "image_props_weight_multiplier": "ImagePropertiesWeigher",
        "image_props_weight_setting": "ImagePropertiesWeigher: ratio by image property",
        "pci_weight_multiplier": "PCIWeigher",
        "soft_affinity_weight_multiplier": "ServerGroupSoftAffinityWeigher",
        "soft_anti_affinity_weight_multiplier": "ServerGroupSoftAntiAffinityWeigher",
        "build_failure_weight_multiplier": "BuildFailureWeigher, applied as a penalty",
        "cross_cell_move_weight_multiplier": "CrossCellWeigher",
        "shuffle_best_same_weighed_hosts": "choose at random among equally weighed best hosts",
        "image_properties_default_architecture": "ImagePropertiesFilter: architecture of images that name none",
        "isolated_images": "IsolatedHostsFilter",
        "isolated_hosts": "IsolatedHostsFilter",
        "restrict_isolated_hosts_to_isolated_images": "IsolatedHostsFilter",
        "aggregate_image_properties_isolation_namespace": "AggregateImagePropertiesIsolation: prefix of its keys",
        "pci_in_placement": "each PCI device of an alias is a request group of the Placement query",
        "aggregate_image_properties_isolation_separator": "AggregateImagePropertiesIsolation: follows the prefix",
    },
    "metrics": {
        "weight_multiplier": "MetricsWeigher",
        "weight_setting": "MetricsWeigher and MetricsFilter: ratio by metric",
        "required": "a missing metric fails the request",
        "weight_of_unavailable": "raw value of a host that lacks a metric which is not required",
    },
    "compute": {
        "packing_host_numa_cells_allocation_strategy": "place guests' NUMA cells on the fullest host cells first",
    },
    "pci": {
        "alias": "names under which flavors ask for PCI devices (`pci_passthrough:alias`)",
    },
    "cinder": {
        "cross_az_attach": "false: a guest that is placed with volumes, or has some, is in their availability zone",
    },
    "workarounds": {
        "disable_fallback_pcpu_query": "do not fall back to VCPU for pinned CPUs if PCPU is short",
    },
    "hostler": {
        "name": "the policy's name",
        "seed": "seed of random choices, unless the engine is given one",
        "weigher_order": "all weighers in the order of addition of their points; empty: as in `weight_classes`",
        "nova_filters": "custom Nova filters to adapt: `package.module:Class`",
        "nova_weighers": "custom Nova weighers to adapt",
        "nova_release": "release of Nova that is followed: 33 (2026.1) or 34 (2026.2)",
        "forbid_disabled": "hosts with a disabled compute service take no guest, with ComputeFilter or without",
        "prepare": "complete and check requests as nova-api and nova-conductor do",
        "nova_bugs": "omit charging NUMA cells and PCI devices where Nova does",
    },
}
"""Group -> option -> what it does here. An option that is not named changes no decision."""


def options_table() -> str:
    """A table of what decisions depend on, and a list of the other options."""
    groups: Sequence[OptionGroup] = (*Options().groups(), HostlerOptions())
    rows = [row for group in groups for row in _option_rows(group)]
    others = [line for group in groups if (line := _options_without_effect(group))]
    return "\n".join([_table(("group", "option", "type", "default", "what it does"), rows), "", *others])


def _option_rows(group: OptionGroup) -> Iterator[tuple[str, ...]]:
    kinds = get_type_hints(type(group), include_extras=True)
    about: dict[str, str] = ABOUT.get(group.group, {})
    for name in group.option_names():
        if name in about:
            yield f"`{group.group}`", f"`{name}`", _kind(kinds[name]), _default(getattr(group, name)), about[name]


def _options_without_effect(group: OptionGroup) -> str:
    names = [name for name in group.option_names() if name not in ABOUT.get(group.group, {})]
    listed = ", ".join(f"`{name}` ({_default(getattr(group, name))})" for name in names)
    return f"- Without effect in `[{group.group}]`: {listed}." if names else ""


def _kind(kind: Any) -> str:
    """A type and its limits in words."""
    if get_origin(kind) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(kind))
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    if type(None) in get_args(kind):
        return f"{_kind(choices[0])} or none"
    if get_origin(kind) is Annotated:
        limits = next((extra for extra in get_args(kind)[1:] if isinstance(extra, msgspec.Meta)), msgspec.Meta())
        least = "" if limits.ge is None or limits.ge == -(2**63) else f" ≥ {limits.ge:g}"
        return _kind(get_args(kind)[0]) + least
    words = {
        **{bool: "switch", int: "integer", float: "number", str: "text", tuple: "list"},
        **{Ratios: "`name=ratio` list", PciAliases: "list of JSON objects"},
    }
    return words[get_origin(kind) or kind]


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, Ratios | PciAliases):
        return "empty"
    if isinstance(value, tuple):
        names = {ALL_FILTERS: "all", ALL_WEIGHERS: "all"}
        return ", ".join(names.get(word, str(word)) for word in value) or "empty"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def filters_table() -> str:
    """Nova's filters, by name."""
    enabled = FilterSchedulerOptions().enabled_filters
    rows = (
        (
            f"**{name}**" if name in enabled else name,
            "first" if rule.once_per_request else "every",
            "yes" if rule.runs_on_rebuild else "",
            _first_sentence(rule),
        )
        for name, rule in sorted(BUILTIN_FILTERS.items())
    )
    return _table(("filter", "instance", "rebuild", "what it does"), rows)


def weighers_table() -> str:
    """Nova's weighers, in their default order."""
    rows = (
        (name, f"`{rule.option}`", f"{rule(Options()).multiplier():.15g}", _first_sentence(rule))
        for name, rule in BUILTIN_WEIGHERS.items()
    )
    return _table(("weigher", "key in aggregate metadata", "multiplier", "what it does"), rows)


def _first_sentence(rule: type[Any]) -> str:
    text = " ".join((inspect.getdoc(rule) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", text)[0].replace("``", "`").replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "options": options_table,
    "filters": filters_table,
    "weighers": weighers_table,
}


def with_tables(page: str) -> str:
    """``page`` with every marked table as the code has it now."""
    return MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
