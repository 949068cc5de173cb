"""Writing TOML."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.placement.types.toml_writer import to_toml

words = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | words
values = scalars | st.lists(scalars, max_size=3)
tables = st.dictionaries(words, st.dictionaries(words, values, max_size=3), max_size=3)


def test_tables_keys_and_values_are_written_one_a_line() -> None:
    text = to_toml({"a": {"x": 1, "y z": [True, 0.5, 'q"\n']}, "b": {}})
    assert text == '[a]\nx = 1\n"y z" = [true, 0.5, "q\\"\\n"]\n\n[b]\n'


@pytest.mark.property
@given(tables)
def test_what_is_written_is_read_back(written: dict[str, dict[str, Any]]) -> None:
    assert repr(tomllib.loads(to_toml(written))) == repr(written)


def test_what_toml_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError):
        to_toml({"a": {"b": None}})
