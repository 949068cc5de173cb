"""Short ways to hosts, requests and filters for the tables, and the strategies for the properties."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from hostler.placement.filters import Filter
from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.host import Aggregate, Host, Service
from hostler.placement.types.options import Options
from hostler.placement.types.request import Flavor, Image, Request, RequestSpec, ServerGroup

NOW = 1_000_000.0


def host(**changes: Any) -> Host:
    """A host of 64 vCPUs and 256 GiB with these fields changed."""
    return replace(Host(host="h1", nodename="n1", vcpus_total=64, total_usable_ram_mb=262144), **changes)


def aggregate(name: str = "a1", /, **metadata: str) -> Aggregate:
    return Aggregate(uuid=f"uuid-{name}", name=name, metadata=metadata)


def request(
    *,
    extra_specs: Mapping[str, str] | None = None,
    flavor: str = "m1.small",
    image: str | None = None,
    properties: Mapping[str, Any] | None = None,
    hints: Mapping[str, tuple[str, ...]] | None = None,
    **changes: Any,
) -> Request:
    """A request for one small guest; an image only where ``image`` (its id) or ``properties`` is given."""
    with_image = image is not None or properties is not None
    spec = RequestSpec(
        flavor=Flavor(name=flavor, vcpus=1, memory_mb=512, extra_specs=extra_specs or {}),
        image=Image(id=image, properties=properties or {}) if with_image else None,
        scheduler_hints=hints or {},
    )
    return replace(Request(spec=spec, instance_uuids=("own",), project_id="p1", now=NOW), **changes)


def build(filter_class: type[Filter], **groups: Mapping[str, Any]) -> Filter:
    """A filter with these options: group -> option -> value."""
    return filter_class(Options.from_mapping(groups))


def verdict(judge: Filter, of: Host, asked: Request) -> bool | str:
    """Whether the filter passes the host, or the field that it finds invalid."""
    try:
        return not judge.applies(asked) or judge.host_passes(of, asked)
    except InvalidValue as error:
        return f"invalid {error.field}"


# Strategies: few different values, so that requests and hosts often have to do with each other.

UUIDS = ("own", "i1", "i2", "i3")
HOSTS = ("h1", "h2", "h3")
NUMBERS = st.integers(0, 4)


def subsets(values: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values))


def mappings(values: Mapping[str, tuple[Any, ...]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the keys, each with one of its values."""
    choices = {key: st.sampled_from((None, *options)) for key, options in values.items()}
    return st.fixed_dictionaries(choices).map(lambda chosen: {k: v for k, v in chosen.items() if v is not None})


CPU_INFO = json.dumps({"maxphysaddr": {"bits": 42}, "topology": {"cores": 8}, "features": ["aes", "avx2"]})

aggregates = st.lists(
    mappings(
        {
            "tier": ("gold", "gold, silver", "3", "x,2"),
            "hw_architecture": ("x86_64", "aarch64,i686"),
            "os_distro": ("ubuntu", "rhel"),
            "filter_tenant_id": ("p1", "p2", "p1,p2"),
            "filter_tenant_id_b": ("p2",),
            "instance_type": ("m1.small", "m1.large, c1"),
            "max_io_ops_per_host": ("1", "3", "none"),
            "max_instances_per_host": ("1", " 3 ", ""),
        }
    ),
    max_size=2,
).map(lambda all_metadata: tuple(aggregate(f"a{i}", **metadata) for i, metadata in enumerate(all_metadata)))

services = st.builds(
    Service,
    disabled=st.booleans(),
    forced_down=st.booleans(),
    last_seen_up=st.sampled_from((None, NOW, NOW - 60, NOW - 61, NOW + 61)),
    created_at=st.sampled_from((None, NOW - 1000)),
)

hosts = st.builds(
    Host,
    host=st.sampled_from(HOSTS),
    nodename=st.sampled_from(("n1", "n2")),
    vcpus_total=st.integers(1, 4),
    vcpus_used=NUMBERS,
    total_usable_ram_mb=st.just(4096),
    free_ram_mb=st.sampled_from((-5, 0, 512, 4096)),
    hypervisor_type=st.sampled_from((None, "QEMU", "xen")),
    hypervisor_version=st.sampled_from((None, 0, 6002000, 8002001)),
    host_ip=st.sampled_from((None, "10.0.0.1", "10.0.1.1", "fe80::1", "?")),
    cpu_info=st.sampled_from((None, CPU_INFO, "{", "[1]")),
    supported_instances=st.sampled_from(
        ((), (("x86_64", "kvm", "hvm"),), (("i686", "kvm", "hvm"), ("aarch64", "xen", "xen")))
    ),
    stats=mappings({"gpu": ("a100", "3", '{"n": 3}'), "tier": ("gold", "3"), "num_instances": ("2",)}),
    num_instances=NUMBERS,
    num_io_ops=NUMBERS,
    metrics=mappings({"cpu.percent": (10.0,), "cpu.frequency": (2.0,)}),
    aggregates=aggregates,
    instances=subsets(UUIDS).map(lambda uuids: {uuid: {} for uuid in sorted(uuids)}),
    service=services,
)

_REQUIREMENTS = ("3", ">= 3", "= 2", "== abc", "s== gold", "<or> gold <or> 3", "<in> a", "<all-in> a e", ">=")

_SPECS = (
    "tier",
    "gpu",
    "num_instances",
    "service",
    "capabilities:gpu",
    "capabilities:gpu:n",
    "capabilities:hypervisor_type",
    "capabilities:hypervisor_hostname",
    "capabilities:free_ram_mb",
    "capabilities:cpu_info:topology:cores",
    "capabilities:supported_instances",
    "capabilities:limits:x",
    "aggregate_instance_extra_specs:tier",
    "trait:CUSTOM_A",
)

extra_specs = mappings(dict.fromkeys(_SPECS, _REQUIREMENTS) | {"hw:maxphysaddr_bits": ("39", "46", "abc")})

properties = mappings(
    {
        "hw_architecture": ("amd64", "i686", "x86_64"),
        "vm_mode": ("xen", "hvm"),
        "img_hv_type": ("KVM", "xen"),
        "img_hv_requested_version": (">=6.2,<8", "==8.2.1", "<8", ">8", "six"),
        "hw_maxphysaddr_bits": (39, "46", "many"),
        "os_distro": ("ubuntu", ""),
        "hw_pmu": ("yes", "no"),
        "custom": ("x",),
    }
)

_QUERIES = (
    "",
    "[]",
    "{",
    '["=", "$host", "h1"]',
    '["<", "$num_io_ops", "$num_instances"]',
    '["and", [">=", "$free_ram_mb", 512], ["not", ["in", "$stats.gpu", "a100", "3"]]]',
    '["or", ["=", "$service.disabled", true], ["=", "$hypervisor_hostname", "n2"], ["<", "$metrics.cpu.percent", 3]]',
    '["<", "$host_ip", 3]',
    '["nand", 1]',
)

hints = st.fixed_dictionaries(
    {},
    optional={
        "query": st.sampled_from(_QUERIES).map(lambda query: (query,)),
        "same_host": subsets(UUIDS).map(lambda uuids: tuple(sorted(uuids))),
        "different_host": subsets(UUIDS).map(lambda uuids: tuple(sorted(uuids))),
        "build_near_host_ip": st.sampled_from((("10.0.0.9",), ("nowhere",), ("10.0.0.9", "10.0.1.9"))),
        "cidr": st.sampled_from((("/16",), ("/99",))),
    },
)

server_groups = st.builds(
    ServerGroup,
    uuid=st.just("g1"),
    policy=st.sampled_from(("affinity", "anti-affinity", "anti-affinity", "soft-affinity")),
    max_server_per_host=st.integers(0, 2),
    members=subsets(UUIDS),
    hosts=subsets(HOSTS),
)

request_parts: dict[str, st.SearchStrategy[Any]] = {
    "extra_specs": extra_specs,
    "flavor": st.sampled_from(("m1.small", "m1.large")),
    "image": st.sampled_from((None, "image-1", "image-2")),
    "properties": st.none() | properties,
    "hints": hints,
    "instance_uuids": st.sampled_from(((), ("own",), ("own", "i3"))),
    "project_id": st.sampled_from(("p1", "p3")),
    "server_group": st.one_of(st.sampled_from((None, "g1")), server_groups, server_groups, server_groups),
    "now": st.sampled_from((None, NOW, NOW + 1)),
}

options = st.fixed_dictionaries(
    {
        "DEFAULT": mappings({"service_down_time": (60, 61)}),
        "metrics": mappings({"weight_setting": (["cpu.percent=1"], ["cpu.percent=1", "cpu.frequency=2"])}),
        "filter_scheduler": mappings(
            {
                "max_io_ops_per_host": (0, 2),
                "max_instances_per_host": (1, 3),
                "isolated_images": (["image-1"],),
                "isolated_hosts": (["h1"], ["h1", "h2"]),
                "restrict_isolated_hosts_to_isolated_images": (True, False),
                "image_properties_default_architecture": ("x86_64",),
                "aggregate_image_properties_isolation_namespace": ("os",),
                "aggregate_image_properties_isolation_separator": ("_",),
            }
        ),
    }
).map(Options.from_mapping)
