"""Random fleets, policies and requests of few distinct values, so that hosts often tie and requests often matter to
them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from hostler.placement.filters import BUILTIN_FILTERS
from hostler.placement.fleet.fleet import Inventory
from hostler.placement.policy.policy import Policy
from hostler.placement.types.host import DERIVED, Aggregate, Host, Service
from hostler.placement.types.request import Destination, Flavor, Image, RequestSpec
from hostler.placement.weighers import BUILTIN_WEIGHERS
from hostler.placement.weighers.packing import PACKING_WEIGHERS

NOW = 1_000_000.0
CELLS = (str(uuid.UUID(int=0xC1)), str(uuid.UUID(int=0xC2)))


def guest_uuid(number: int) -> str:
    return str(uuid.UUID(int=(7 << 64) + number))


def mappings(values: Mapping[str, tuple[Any, ...]], most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """Up to ``most`` of the keys, each with one of its values."""
    pairs = st.sampled_from([(key, value) for key, choices in values.items() for value in choices])
    return st.lists(pairs, max_size=most).map(dict)


# aggregates

METADATA = {
    "availability_zone": ("az1", "az1", "az2"),
    "filter_tenant_id": ("p1", "p1,p2"),
    "cpu_weight_multiplier": ("2.0", "-1", "x"),
    "ram_weight_multiplier": ("0", "0.5"),
    "io_ops_weight_multiplier": ("-2",),
    "num_instances_weight_multiplier": ("3",),
    "build_failure_weight_multiplier": ("0", "1"),
    "soft_affinity_weight_multiplier": ("2",),
    "hypervisor_version_weight_multiplier": ("-1",),
    "metrics_weight_multiplier": ("0", "2"),
    "instance_type": ("m1.small", "m1.big, c1"),
    "tier": ("gold", "gold,silver"),
    "max_io_ops_per_host": ("1", "3", "x"),
    "max_instances_per_host": ("2",),
    "hw_architecture": ("x86_64", "aarch64"),
    "trait:CUSTOM_A": ("required",),
}
AGGREGATES = 4


def aggregate(number: int, metadata: Mapping[str, str]) -> Aggregate:
    return Aggregate(uuid=str(uuid.UUID(int=0xA0 + number)), name=f"aggregate-{number}", metadata=metadata)


metadata = mappings(METADATA, 3)
aggregates = st.lists(metadata, min_size=AGGREGATES, max_size=AGGREGATES).map(
    lambda chosen: tuple(aggregate(number, each) for number, each in enumerate(chosen))
)
memberships = st.lists(st.integers(0, AGGREGATES - 1), max_size=2, unique=True).map(tuple)


# hosts

TRAITS = ("CUSTOM_A", "CUSTOM_B", "COMPUTE_STATUS_DISABLED")
_traits = ((), TRAITS[:1], TRAITS[:2], TRAITS[1:2], TRAITS[:1], TRAITS[2:])
traits = st.sampled_from([frozenset(names) for names in _traits])


@dataclass(frozen=True)
class Template:
    """Hosts that are alike. ``aggregates`` are numbers of the fleet's."""

    fields: Mapping[str, Any]
    aggregates: tuple[int, ...]


_heartbeats = st.sampled_from([None, NOW, NOW - 60, NOW - 61, NOW + 61])
services = st.builds(
    Service,
    disabled=st.sampled_from([False, False, False, True]),
    forced_down=st.sampled_from([False, False, False, True]),
    last_seen_up=_heartbeats,
)
templates = st.builds(
    Template,
    fields=st.fixed_dictionaries(
        {
            "vcpus_total": st.sampled_from([4, 8]),
            "vcpus_used": st.integers(0, 1),
            "cpu_allocation_ratio": st.sampled_from([4.0, 1.0, 1.5, 0.3]),
            "total_usable_ram_mb": st.sampled_from([4096, 8192]),
            "free_ram_mb": st.sampled_from([DERIVED, DERIVED, DERIVED, 2048, 3000, -1, -512]),
            "ram_allocation_ratio": st.sampled_from([1.0, 1.3]),
            "reserved_ram_mb": st.sampled_from([0, 512]),
            "total_usable_disk_gb": st.sampled_from([40, 100, 20, 0]),
            "disk_mb_used": st.sampled_from([0, 1000]),
            "num_instances": st.integers(0, 2),
            "num_io_ops": st.integers(0, 2),
            "failed_builds": st.sampled_from([0, 0, 1, 3]),
            "hypervisor_type": st.sampled_from(["QEMU", None]),
            "hypervisor_version": st.sampled_from([None, 6002000, 8002001]),
            "cell_uuid": st.sampled_from([CELLS[0], CELLS[0], CELLS[1], None]),
            "host_ip": st.sampled_from([None, "10.0.0.1", "10.0.1.1"]),
            "supported_instances": st.sampled_from([(), (("x86_64", "kvm", "hvm"),), (("aarch64", "kvm", "hvm"),)]),
            "stats": mappings({"gpu": ("a100", "3")}, 1),
            "metrics": st.sampled_from([{"m": 1.0, "k": 0.1}, {"m": 2.5, "k": 0.1}, {"m": 1.0}, {}]),
            "traits": traits,
            "service": st.one_of(st.just(Service()), st.just(Service()), services),
        }
    ),
    aggregates=memberships,
)


def host(number: int, template: Template, known: tuple[Aggregate, ...], *, shared: bool, reported: int) -> Host:
    """Host ``number``. With ``shared`` two neighbours are nodes of one service host; ``reported`` guests are on it."""
    guests = {guest_uuid(9000 + 10 * number + i): {"os_distro": "ubuntu"} if i else {} for i in range(reported)}
    return Host(
        host=f"Host{number // 2 if shared else number}",
        nodename=f"node{number}",
        uuid=str(uuid.UUID(int=0xB000 + number)),
        aggregates=tuple(known[index] for index in template.aggregates),
        instances=guests,
        **template.fields,
    )


@dataclass(frozen=True)
class Fleet:
    """What a fleet is loaded from, and templates of hosts that may come later."""

    aggregates: tuple[Aggregate, ...]
    templates: tuple[Template, ...]
    hosts: tuple[Host, ...]
    shared: bool


@st.composite
def fleets(draw: st.DrawFn, least: int = 3, most: int = 8) -> Fleet:
    """Hosts of up to three kinds."""
    known = draw(aggregates)
    kinds = tuple(draw(st.lists(templates, min_size=1, max_size=3)))
    one = st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 0, 1, 2]))
    chosen = draw(st.lists(one, min_size=least, max_size=most))
    shared = draw(st.sampled_from([False, False, True]))
    hosts = tuple(
        host(number, kinds[kind % len(kinds)], known, shared=shared, reported=reported)
        for number, (kind, reported) in enumerate(chosen)
    )
    return Fleet(known, kinds, hosts, shared)


_BIG = {"VCPU": Inventory(total=16), "MEMORY_MB": Inventory(total=8192), "DISK_GB": Inventory(total=200)}
inventories = st.sampled_from(
    [
        _BIG | {"VCPU": Inventory(total=8, max_unit=1)},
        _BIG | {"VCPU": Inventory(total=8, reserved=1, allocation_ratio=1.5), "CUSTOM_X": Inventory(total=2)},
        _BIG | {"MEMORY_MB": Inventory(total=8192, min_unit=512, step_size=512)},
        {"VCPU": Inventory(total=8)},
    ]
)


# policies

MULTIPLIERS = (1.0, 1.0, -1.0, 0.0, 0.1, 3.7, 1e-3, 1e6, -1e6)
_multiplier, _natural = st.sampled_from(MULTIPLIERS), st.sampled_from([1.0, 0.0, 0.1, 3.7, 1e6])
SIGNED = ("ram", "cpu", "disk", "hypervisor_version", "num_instances", "io_ops", "build_failure", "cross_cell_move")
_filters = st.one_of(
    st.just(None),
    st.permutations(sorted(BUILTIN_FILTERS)),
    st.lists(st.sampled_from(sorted(BUILTIN_FILTERS)), max_size=6, unique=True),
)
_WEIGHERS = (*BUILTIN_WEIGHERS, *(name for name, weigher in PACKING_WEIGHERS.items() if not weigher.whole_fleet))
_weighers = st.one_of(
    st.just(None),
    st.permutations(list(BUILTIN_WEIGHERS)),
    st.permutations(_WEIGHERS),
    st.lists(st.sampled_from(_WEIGHERS), max_size=4, unique=True),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any filters and weighers in any order, with any multipliers."""
    group: dict[str, Any] = {f"{name}_weight_multiplier": draw(_multiplier) for name in draw(_some(SIGNED))}
    group |= {f"{name}_weight_multiplier": draw(_natural) for name in draw(_some(("pci", "soft_affinity")))}
    for option, chosen in (("enabled_filters", draw(_filters)), ("weight_classes", draw(_weighers))):
        if chosen is not None:
            group[option] = list(chosen)
    group |= draw(
        mappings(
            {
                "host_subset_size": (2, 3),
                "shuffle_best_same_weighed_hosts": (True,),
                "max_io_ops_per_host": (1, 3),
                "max_instances_per_host": (2, 4),
                "image_props_weight_multiplier": (1.0, -0.1),
                "image_props_weight_setting": (["os_distro=2"],),
                "isolated_hosts": (["Host0"], ["Host0", "Host1"]),
                "isolated_images": (["image-1"],),
                "restrict_isolated_hosts_to_isolated_images": (False,),
                "image_properties_default_architecture": ("x86_64",),
            },
            3,
        )
    )
    scheduler = mappings(
        {
            "limit_tenants_to_placement_aggregate": (True, False, False),
            "placement_aggregate_required_for_tenants": (True, False, False),
            "enable_isolated_aggregate_filtering": (True, False),
        },
        2,
    )
    metrics = mappings(
        {
            "weight_setting": (["m=1"], ["m=1", "k=-0.5"], ["k=0"]),
            "required": (False, False, False, True),
            "weight_multiplier": (0.0, -2.0),
        },
        3,
    )
    return Policy.from_mapping({"filter_scheduler": group, "scheduler": draw(scheduler), "metrics": draw(metrics)})


def _some(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), max_size=4, unique=True)


# requests

EXTRA_SPECS = {
    "trait:CUSTOM_A": ("required", "forbidden"),
    "trait:CUSTOM_B": ("required",),
    "resources:VCPU": ("0", "2"),
    "resources:CUSTOM_X": ("1",),
    "tier": ("gold", "<or> gold <or> x", "s== silver"),
    "aggregate_instance_extra_specs:tier": ("gold",),
    "capabilities:hypervisor_type": ("QEMU",),
    "capabilities:free_ram_mb": (">= 1024",),
    "capabilities:gpu": ("a100", ">= 2"),
    "gpu": ("a100",),
}
IMAGES = {
    "hw_architecture": ("x86_64", "aarch64"),
    "img_hv_type": ("kvm",),
    "hw_vm_mode": ("hvm",),
    "img_hv_requested_version": (">=7",),
    "os_distro": ("ubuntu", "rhel"),
}
QUERIES = (
    '["<", "$num_instances", 2]',
    '[">=", "$free_ram_mb", 1024]',
    '["=", "$host", "Host1"]',
    '["not", ["=", "$hypervisor_type", "QEMU"]]',
    '["and", [">", "$vcpus_total", 2], ["<", "$metrics.m", 2]]',
)

flavors = st.builds(
    Flavor,
    name=st.sampled_from(["m1.small", "m1.big"]),
    vcpus=st.sampled_from([1, 2, 1, 5]),
    memory_mb=st.sampled_from([256, 512, 1024, 3072]),
    root_gb=st.sampled_from([0, 5]),
    ephemeral_gb=st.sampled_from([0, 0, 1]),
    swap=st.sampled_from([0, 0, 600]),
    extra_specs=st.one_of(st.just({}), st.just({}), st.just({}), mappings(EXTRA_SPECS, 2)),
)
images = st.builds(
    Image, id=st.sampled_from(["image-1", "image-2"]), properties=st.one_of(st.just({}), mappings(IMAGES, 2))
)
hints = mappings(
    {
        "query": tuple((query,) for query in QUERIES),
        "build_near_host_ip": (("10.0.0.9",),),
        "cidr": (("/16",),),
        "same_host": ((guest_uuid(0),), (guest_uuid(0), guest_uuid(1))),
        "different_host": ((guest_uuid(0),), (guest_uuid(1), guest_uuid(9001)), (guest_uuid(999),)),
        "_nova_check_type": (("live_migrate",),),
    },
    2,
)
destinations = st.builds(
    Destination,
    host=st.sampled_from([None, None, "Host0", "Host1"]),
    cell_uuid=st.sampled_from([CELLS[0], None, *CELLS]),
    allow_cross_cell_move=st.booleans(),
    aggregates=st.sampled_from([(), (), (f"{uuid.UUID(int=0xA0)},{uuid.UUID(int=0xA1)}",)]),
    forbidden_aggregates=st.sampled_from([frozenset(), frozenset({str(uuid.UUID(int=0xA2))})]),
)
_names = mappings(
    {
        "ignore_hosts": (("host0",), ("Host1", "HOST2"), ("nowhere",)),
        "force_hosts": (("Host0",), ("Host1", "host2", "host0"), ("nowhere",)),
        "force_nodes": (("node1",), ("node0", "node2"), ("Node0",)),
    },
    1,
)


@st.composite
def specs(draw: st.DrawFn) -> RequestSpec:
    """Plain ones mostly."""
    usual = draw(st.sampled_from([True, True, False]))
    fields: dict[str, Any] = {} if usual else draw(_names)
    return RequestSpec(
        prepare=False,  # the oracle is a scheduler, not nova-api
        flavor=draw(flavors),
        image=draw(st.one_of(st.none(), st.none(), images)),
        availability_zone=draw(st.sampled_from([None, None, None, None, "az1", "az1", "az2", "nowhere"])),
        scheduler_hints={} if usual else draw(hints),
        requested_destination=None if usual else draw(st.one_of(st.none(), destinations)),
        is_bfv=draw(st.sampled_from([False, False, True])),
        **fields,
    )


def _with_a_twin(chosen: list[RequestSpec]) -> tuple[RequestSpec, ...]:
    """The first spec once more under another name: it is compiled to the same as the first."""
    twin = replace(chosen[0], flavor=replace(chosen[0].flavor, name="m1.twin"))
    return (*chosen, twin)


some_specs = st.lists(specs(), min_size=1, max_size=3).map(_with_a_twin)
