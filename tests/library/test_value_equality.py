"""Requests compare and hash by content, types of numbers included."""

from __future__ import annotations

import copy
import pickle
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from hostler import Flavor, Image, PciRequest, Request, RequestSpec, VolumeRequest, VolumeSpec, VolumeType


def spec(**changes: Any) -> RequestSpec:
    flavor = Flavor(name="f", vcpus=1, memory_mb=512, extra_specs={"a": "1", "b": "2"})
    return RequestSpec(flavor=flavor, image=Image(properties={"x": 1}), **changes)


@pytest.mark.parametrize(
    "make",
    [
        spec,
        lambda: Request(spec=spec(), project_id="p"),
        lambda: PciRequest(count=1, spec=({"vendor_id": "8086"},)),
        lambda: VolumeRequest(spec=VolumeSpec(size_gb=1, volume_type=VolumeType(extra_specs={"a": None}))),
    ],
)
def test_equal_content_is_equal_and_hashes_alike(make: Any) -> None:
    one, other = make(), make()
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert {one: 1}[other] == 1
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one


def test_the_order_of_mapping_keys_does_not_matter_and_their_values_do() -> None:
    one = Flavor(name="f", vcpus=1, memory_mb=1, extra_specs={"a": "1", "b": "2"})
    assert one == Flavor(name="f", vcpus=1, memory_mb=1, extra_specs=MappingProxyType({"b": "2", "a": "1"}))
    assert one != Flavor(name="f", vcpus=1, memory_mb=1, extra_specs={"a": "1", "b": "3"})


@pytest.mark.parametrize("vcpus", [1.0, True])
def test_a_number_of_another_type_is_another_value(vcpus: Any) -> None:
    assert Flavor(name="f", vcpus=1, memory_mb=1) != Flavor(name="f", vcpus=vcpus, memory_mb=1)


def test_types_differ_even_if_their_fields_are_alike() -> None:
    assert Flavor(name="f", vcpus=1, memory_mb=1) != spec()
    assert Flavor(name="f", vcpus=1, memory_mb=1) != "f"


def test_a_value_that_has_no_canonical_form_equals_itself_alone() -> None:
    odd: Any = np.zeros(2)
    one = Flavor(name="f", vcpus=odd, memory_mb=1)
    assert one == one
    assert one != Flavor(name="f", vcpus=odd, memory_mb=1)
    assert hash(one) == hash(one)
