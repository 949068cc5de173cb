"""The choosers give the compiled kernels, unless HOSTLER_PURE=1 asks for their Python twins."""

import os
from importlib import import_module

import pytest

PURE = os.environ.get("HOSTLER_PURE", "") not in ("", "0")
CHOSEN = {"tables": "NameTable", "fleet": "Columns", "ranking": "Ranking", "batch": "place"}


@pytest.mark.property
@pytest.mark.kernel_twin
@pytest.mark.parametrize(("module", "name"), CHOSEN.items())
def test_the_chosen_implementation_is_the_one_that_was_asked_for(module: str, name: str) -> None:
    chosen = getattr(import_module(f"hostler.ext.{module}"), name)
    assert chosen.__module__ == (f"hostler.ext.{module}_py" if PURE else f"hostler.ext._{module}")


@pytest.mark.property
@pytest.mark.skipif(PURE, reason="the twins were asked for")
@pytest.mark.parametrize("module", CHOSEN)
def test_the_kernels_are_compiled(module: str) -> None:
    path = import_module(f"hostler.ext._{module}").__file__
    assert path is not None
    assert path.endswith(".so")


@pytest.mark.kernel_twin
@pytest.mark.parametrize("module", CHOSEN)
def test_a_twin_has_every_public_name_of_its_kernel(module: str) -> None:
    chooser, twin = import_module(f"hostler.ext.{module}"), import_module(f"hostler.ext.{module}_py")
    for name in chooser.__all__:
        chosen = getattr(chooser, name)
        public = {item for item in dir(chosen) if not item.startswith("_")} if isinstance(chosen, type) else set()
        assert public <= set(dir(getattr(twin, name))) | INSTANCE_ATTRIBUTES


INSTANCE_ATTRIBUTES = {"rows", "consumers", "columns", "seen", "statistics", "nbytes", "held", "held_room", "index"}
"""Of twins; set by ``__init__``, and so not on the class."""
