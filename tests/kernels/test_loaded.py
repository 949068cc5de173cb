"""The choosers give the compiled kernels, unless HOSTLER_PURE=1 asks for their Python twins."""

import os
from importlib import import_module

import pytest

PURE = os.environ.get("HOSTLER_PURE", "") not in ("", "0")
CHOSEN = {
    "tables": ("NameTable", "_tables", "tables_py"),
    "fleet": ("Columns", "_fleet", "fleet_py"),
    "ranking": ("Ranking", "ranking._ranking", "ranking.ranking_py"),
    "batch": ("place", "_batch", "batch_py"),
}
"""By chooser: one of its names, its kernel, and the twin."""
MORE_TWINS = {"ranking": ("ranking.beside_py",)}
"""Of choosers whose twin is several modules."""
each = pytest.mark.parametrize(
    ("module", "name", "kernel", "twin"), [(module, *rest) for module, rest in CHOSEN.items()]
)


@pytest.mark.property
@pytest.mark.kernel_twin
@each
def test_the_chosen_implementation_is_the_one_that_was_asked_for(
    module: str, name: str, kernel: str, twin: str
) -> None:
    chosen = getattr(import_module(f"hostler.ext.{module}"), name)
    assert chosen.__module__ == f"hostler.ext.{twin if PURE else kernel}"


@pytest.mark.property
@pytest.mark.skipif(PURE, reason="the twins were asked for")
@each
def test_the_kernels_are_compiled(module: str, name: str, kernel: str, twin: str) -> None:
    path = import_module(f"hostler.ext.{kernel}").__file__
    assert path is not None
    assert path.endswith(".so")


@pytest.mark.kernel_twin
@each
def test_a_twin_has_every_public_name_of_its_kernel(module: str, name: str, kernel: str, twin: str) -> None:
    chooser = import_module(f"hostler.ext.{module}")
    twins = [import_module(f"hostler.ext.{each}") for each in (twin, *MORE_TWINS.get(module, ()))]
    for public in chooser.__all__:
        chosen = getattr(chooser, public)
        names = {item for item in dir(chosen) if not item.startswith("_")} if isinstance(chosen, type) else set()
        (other,) = {id(found): found for each in twins if (found := getattr(each, public, None)) is not None}.values()
        assert names <= set(dir(other)) | INSTANCE_ATTRIBUTES


INSTANCE_ATTRIBUTES = {"rows", "consumers", "columns", "seen", "statistics", "nbytes", "held", "held_room", "index"}
"""Of twins; set by ``__init__``, and so not on the class."""
