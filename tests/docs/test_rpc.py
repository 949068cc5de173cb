"""docs/rpc.md says what the types say."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from hostler.core.process.config import load
from hostler.core.process.settings import Config
from hostler.core.regions.options import RegionOptions
from hostler.core.rpc.methods import METHODS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_rpc", DOCS / "generate_rpc.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_types() -> None:
    page = (DOCS / "rpc.md").read_text(encoding="utf-8")
    assert generator().with_tables(page) == page


def test_every_method_and_every_value_that_is_named_has_a_part() -> None:
    page = (DOCS / "rpc.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert set(METHODS) <= headings
    named = set(re.findall(r"\]\(#(\w+)\)", page))
    assert named <= {heading.lower() for heading in headings}


def test_the_example_of_a_configuration_is_one_and_names_every_key(tmp_path: Path) -> None:
    page = (DOCS / "operation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    file = tmp_path / "hostler.toml"
    file.write_text(example)
    config = load(file, {}).config
    values = tomllib.loads(example)
    for table, kind in (("rpc", type(config.rpc)), ("data", type(config.data)), ("operation", type(config.operation))):
        assert set(values[table]) == {field.name for field in msgspec.structs.fields(kind)}, table
    parent = tomllib.loads("".join(re.findall(r"^# (\[regions\.fra\] .*\n|\w+ = .*\n)", example, re.MULTILINE)))
    assert set(parent["regions"]["fra"]) == {field.name for field in msgspec.structs.fields(RegionOptions)}
    assert set(values) | {"placement", "hooks", "regions"} == {field.name for field in msgspec.structs.fields(Config)}


@pytest.mark.parametrize("page", ["high-availability.md", "regions.md"])
def test_examples_of_configurations_are_ones(page: str, tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```toml\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "hostler.toml").write_text(example)
    load(tmp_path / "hostler.toml", {})


def test_every_metric_is_named_and_those_that_are_named_exist() -> None:
    pages = ("operation.md", "high-availability.md", "regions.md", "how-to/beside-nova.md")
    named = set(re.findall(r"hostler_\w+", "".join((DOCS / name).read_text(encoding="utf-8") for name in pages)))
    process = DOCS.parent / "core" / "process"
    names = ("metrics.py", "shadow_metrics.py", "cluster_metrics.py", "region_metrics.py", "bus_metrics.py")
    texts = [(process / name).read_text(encoding="utf-8") for name in names]
    made = set(re.findall(r'"(hostler_\w+)"', "".join(texts)))
    assert {re.sub("_(total|info)$", "", name) for name in named} == made
