"""ComputeCapabilitiesFilter."""

import json
from collections.abc import Mapping

import pytest

from hostler.placement.filters.capabilities import ComputeCapabilitiesFilter
from hostler.placement.types.errors import InvalidValue

from .values import build, host, request

JUDGE = ComputeCapabilitiesFilter
HOST = host(
    free_ram_mb=4096,
    hypervisor_type="QEMU",
    hypervisor_version=None,
    cpu_info=json.dumps({"vendor": "Intel", "features": ["aes", "avx2"], "maxphysaddr": {"bits": 46}, "cells": None}),
    supported_instances=(("x86_64", "kvm", "hvm"),),
    stats={"gpu": "a100", "disks": "4", "vcpus_used": "99", "nested": '{"a": {"b": 3}}'},
)

TABLE: list[tuple[dict[str, str], bool]] = [
    ({}, True),
    ({"capabilities:hypervisor_type": "QEMU"}, True),
    ({"capabilities:hypervisor_type": "s!= QEMU"}, False),
    ({"capabilities:hypervisor_version": "<= 1"}, False),
    ({"capabilities:free_ram_mb": ">= 4096"}, True),
    ({"capabilities:free_ram_mb": ">= 4097"}, False),
    ({"capabilities:hypervisor_hostname": "n1"}, True),
    ({"capabilities:gpu": "<or> h100 <or> a100"}, True),
    ({"capabilities:stats:gpu": "a100"}, True),
    ({"capabilities:nothing": "x"}, False),
    ({"capabilities:vcpus": "!= 8"}, False),
    ({"capabilities:vcpus_used": "0"}, True),
    ({"capabilities:cpu_info:vendor": "Intel"}, True),
    ({"capabilities:cpu_info:features": "<all-in> aes avx"}, True),
    ({"capabilities:cpu_info:features:0": "aes"}, False),
    ({"capabilities:cpu_info:maxphysaddr:bits": "== 46"}, True),
    ({"capabilities:cpu_info:cells": "None"}, False),
    ({"capabilities:cpu_info:vendor:x": "Intel"}, False),
    ({"capabilities:hypervisor_type:x": "QEMU"}, False),
    ({"capabilities:nested:a:b": "= 2"}, True),
    ({"capabilities:supported_instances": "<in> 'kvm'"}, True),
    ({"capabilities:service:disabled": "False"}, False),
    ({"hw:maxphysaddr_bits": "46"}, True),
    ({"hw:maxphysaddr_bits": "47"}, False),
    ({"free_ram_mb": ">= 4097"}, False),
    ({"disks": ">= 4"}, True),
    ({"disks": ">= 5"}, False),
    ({"unknown": "x"}, True),
    ({"other:free_ram_mb": "1", "trait:CUSTOM_A": "required"}, True),
    ({"capabilities:gpu": "a100", "disks": "5"}, False),
]


@pytest.mark.parametrize(("extra_specs", "passes"), TABLE)
def test_a_host_must_satisfy_every_extra_spec_that_concerns_it(extra_specs: Mapping[str, str], passes: bool) -> None:
    assert build(JUDGE).host_passes(HOST, request(extra_specs=extra_specs)) is passes


@pytest.mark.parametrize("cpu_info", [None, "", "{", "[]", "3", '"text"', "[" * 100_000])
def test_a_host_without_readable_cpu_info_lacks_what_is_asked_of_it(cpu_info: str | None) -> None:
    asked = request(extra_specs={"hw:maxphysaddr_bits": "40"})
    assert not build(JUDGE).host_passes(host(cpu_info=cpu_info), asked)


@pytest.mark.parametrize(
    ("extra_specs", "fields"),
    [
        ({"other:x": "1", "hw:cpu_policy": "shared"}, None),
        ({"capabilities:hypervisor_type": "QEMU"}, {"hypervisor_type"}),
        ({"capabilities:hypervisor_hostname": "n1"}, {"nodename"}),
        ({"hw:maxphysaddr_bits": "46"}, {"cpu_info"}),
        ({"num_instances": "< 3", "gpu": "a100"}, {"num_instances", "stats"}),
        ({"capabilities:limits:x": "1"}, set()),
    ],
)
def test_only_the_fields_that_are_asked_for_are_read(extra_specs: Mapping[str, str], fields: set[str] | None) -> None:
    judge, asked = build(JUDGE), request(extra_specs=extra_specs)
    assert judge.applies(asked) is (fields is not None)
    assert judge.fields(asked) == (fields or set())


@pytest.mark.parametrize("spec", ["capabilities:free_ram_mb", "capabilities:nothing", "free_ram_mb", "gpu"])
def test_a_bad_number_in_the_request_is_an_error_that_names_the_extra_spec(spec: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        build(JUDGE).host_passes(HOST, request(extra_specs={"capabilities:gpu": "h100", spec: ">= many"}))
    assert caught.value.field == spec


def test_a_bad_number_in_an_unscoped_spec_that_no_host_knows_is_none_of_its_business() -> None:
    assert build(JUDGE).host_passes(HOST, request(extra_specs={"unknown": ">= many"}))


def test_a_bad_number_on_a_host_refuses_only_that_host() -> None:
    judge, asked = build(JUDGE), request(extra_specs={"capabilities:gpu": ">= 4"})
    assert not judge.host_passes(HOST, asked)
    assert judge.host_passes(host(stats={"gpu": "8"}), asked)


@pytest.mark.parametrize(
    ("extra_specs", "reason"),
    [
        ({"capabilities:disks": ">= 5"}, "capability disks=4 does not satisfy '>= 5'"),
        ({"gpu": ">= 4"}, "capability gpu='a100' is not a number, which '>= 4' needs"),
        ({"capabilities:a:b": "x"}, "capability a:b is unknown, extra spec capabilities:a:b asks for 'x'"),
        ({"hw:maxphysaddr_bits": "48"}, "capability cpu_info:maxphysaddr:bits=46 does not satisfy '>= 48'"),
    ],
)
def test_the_reason_names_the_capability(extra_specs: Mapping[str, str], reason: str) -> None:
    assert build(JUDGE).reason(HOST, request(extra_specs=extra_specs)) == reason


@pytest.mark.parametrize(
    ("extra_specs", "error"),
    [
        ({"capabilities:gpu": ">= 4"}, "ValueError"),
        ({"capabilities:disks": "== abc"}, "ValueError"),
        ({"capabilities:disks": "5", "capabilities:gpu": ">= 4"}, None),
        ({"capabilities:nothing": ">= abc"}, None),
        ({"unknown": ">= abc", "capabilities:gpu": ">= 4"}, "ValueError"),
        ({"capabilities:disks": "4"}, None),
    ],
)
def test_nova_raises_at_the_first_spec_that_it_cannot_compare(
    extra_specs: Mapping[str, str], error: str | None
) -> None:
    judge = build(JUDGE)
    assert judge.nova_error(HOST, request(extra_specs=extra_specs)) == error
