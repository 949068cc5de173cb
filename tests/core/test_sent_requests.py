"""A request is sent without what has its default, and is read as the request that it was."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from hostler.core.engine_commands import asked
from hostler.core.machine.machine import ServiceMachine
from hostler.placement.types.request import Flavor, Image, Request, RequestSpec

from ..engine.values import specs


@given(spec=specs())
def test_a_spec_is_read_as_it_was(spec: RequestSpec) -> None:
    assert ServiceMachine().state.spec_of(asked(Request(spec=spec))) == spec


FLAVOR = Flavor(name="f", vcpus=1, memory_mb=64)


@pytest.mark.parametrize(
    ("spec", "sent"),
    [
        (RequestSpec(flavor=FLAVOR), {"flavor": {"name": "f", "vcpus": 1, "memory_mb": 64}}),
        (
            RequestSpec(flavor=Flavor(name="f", vcpus=0, memory_mb=0, swap=1, extra_specs={"a": "b"}), is_bfv=True),
            {"flavor": {"name": "f", "vcpus": 0, "memory_mb": 0, "swap": 1, "extra_specs": {"a": "b"}}, "is_bfv": True},
        ),
        (
            RequestSpec(flavor=FLAVOR, image=Image(), prepare=False),
            {"flavor": {"name": "f", "vcpus": 1, "memory_mb": 64}, "image": {}, "prepare": False},
        ),
    ],
)
def test_only_what_differs_from_its_default_is_sent(spec: RequestSpec, sent: dict[str, object]) -> None:
    assert msgspec.msgpack.decode(bytes(asked(Request(spec=spec)).spec)) == sent


def test_a_value_of_another_type_is_sent_though_it_equals_the_default() -> None:
    """So that it is refused as what it is."""
    spec = RequestSpec(flavor=FLAVOR, is_bfv=0)  # type: ignore[arg-type]  # which is the point
    assert msgspec.msgpack.decode(bytes(asked(Request(spec=spec)).spec))["is_bfv"] is not False
