"""Numbers that stand in two places are the same in both."""

import re
from importlib.resources import files

import pytest

from hostler.ext import constants, fleet_py
from hostler.placement.fleet.columns import HOST_COLUMNS

INTERNAL = {"FANOUT", "LEVELS"}
"""Of the kernels' trees; no other module uses them."""
CONTRACTS = {"fleet": ("_fleet.pxd", "csrc/fleet.h"), "ranking": ("ranking/state.h",)}


def contract(kernel: str) -> dict[str, int]:
    """The numbered names of a kernel's contract."""
    text = "\n".join((files("hostler.ext") / path).read_text() for path in CONTRACTS[kernel])
    return {name: int(number) for name, number in re.findall(r"^    ([A-Z0-9_]+) = (\d+)", text, re.MULTILINE)}


@pytest.mark.parametrize("name", CONTRACTS)
def test_constants_are_those_of_the_kernels(name: str) -> None:
    kernel = contract(name)
    assert kernel
    shared = {each: number for each, number in kernel.items() if each not in INTERNAL | {"NAMED"}}
    assert shared == {each: getattr(constants, each) for each in shared}


def test_no_constant_is_unknown_to_the_kernels() -> None:
    known = contract("fleet") | contract("ranking")
    assert {name for name in vars(constants) if name.isupper()} <= known.keys()


def test_the_flag_that_callers_may_not_use_is_the_kernel_s_own() -> None:
    assert contract("fleet")["NAMED"] == fleet_py.FLAGS


def test_host_columns_are_in_the_kernels_order() -> None:
    for index, name in enumerate(HOST_COLUMNS[: constants.RAM_ALLOCATION_RATIO + 1]):
        assert getattr(constants, name.upper()) == index
