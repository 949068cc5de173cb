"""Numbers that stand in two places are the same in both."""

import re
from importlib.resources import files

import pytest

from hostler.ext import constants, fleet_py
from hostler.placement.fleet.columns import HOST_COLUMNS

INTERNAL = {"FANOUT", "LEVELS"}
"""Of the kernels' trees; no other module uses them."""


def contract(module: str) -> dict[str, int]:
    """The numbered names of a .pxd file."""
    text = (files("hostler.ext") / f"_{module}.pxd").read_text()
    return {name: int(number) for name, number in re.findall(r"^    ([A-Z0-9_]+) = (\d+)", text, re.MULTILINE)}


@pytest.mark.parametrize("module", ["fleet", "ranking_state"])
def test_constants_are_those_of_the_kernels(module: str) -> None:
    kernel = contract(module)
    assert kernel
    shared = {name: number for name, number in kernel.items() if name not in INTERNAL | {"NAMED"}}
    assert shared == {name: getattr(constants, name) for name in shared}


def test_no_constant_is_unknown_to_the_kernels() -> None:
    known = contract("fleet") | contract("ranking_state")
    assert {name for name in vars(constants) if name.isupper()} <= known.keys()


def test_the_flag_that_callers_may_not_use_is_the_kernel_s_own() -> None:
    assert contract("fleet")["NAMED"] == fleet_py.FLAGS


def test_host_columns_are_in_the_kernels_order() -> None:
    for index, name in enumerate(HOST_COLUMNS[: constants.RAM_ALLOCATION_RATIO + 1]):
        assert getattr(constants, name.upper()) == index
