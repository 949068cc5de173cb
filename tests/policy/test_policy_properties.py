"""Policies as data: every policy can be written and read again; whatever is no policy is refused by name."""

from __future__ import annotations

import contextlib
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.filters import BUILTIN_FILTERS
from hostler.placement.policy.policy import HostlerOptions, Policy
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.options import OptionGroup, Options, Ratios
from hostler.placement.types.pci_alias import PciAliases
from hostler.placement.weighers import BUILTIN_WEIGHERS

GROUPS: list[type[OptionGroup]] = [type(group) for group in Options().groups()]
CHOSEN_BY_NAME = {"available_filters", "enabled_filters", "weight_classes", "weigher_order"}

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda word: word == word.strip() and word)
ratio_names = words.filter(lambda word: "=" not in word)
finite = st.floats(allow_nan=False, allow_infinity=False)


def value_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an option's type, most of them within its limits."""
    if kind is bool:
        return st.booleans()
    if kind is Ratios:
        return st.dictionaries(ratio_names, finite, max_size=3)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is PciAliases:
        return st.lists(st.fixed_dictionaries({"name": words, "vendor_id": st.just("8086")}), max_size=2)
    if kind == tuple[str, ...]:
        return st.lists(words, max_size=3)
    parts = [part for part in getattr(kind, "__args__", ()) if part is not type(None)]
    if parts and not hasattr(kind, "__metadata__"):
        return value_of(parts[0])
    base = kind.__origin__ if hasattr(kind, "__metadata__") else kind
    return {int: st.integers(1, 2**63 - 1), float: finite.map(abs), str: words}[base]


SETTABLE = [(group, name) for group in GROUPS for name in group.option_names() if name not in CHOSEN_BY_NAME]
TYPES = {group: get_type_hints(group, include_extras=True) for group in GROUPS}


def names(builtin: dict[str, Any]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(builtin)), unique=True, max_size=5)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """A mapping that is a policy."""
    values: dict[str, dict[str, Any]] = {"filter_scheduler": {}}
    for group, name in draw(st.lists(st.sampled_from(SETTABLE), unique=True, max_size=8)):
        values.setdefault(group.group, {})[name] = draw(value_of(TYPES[group][name]))
    values["filter_scheduler"]["enabled_filters"] = draw(names(BUILTIN_FILTERS))
    values["filter_scheduler"]["weight_classes"] = draw(names(BUILTIN_WEIGHERS))
    values["hostler"] = {"name": draw(words), "seed": draw(st.integers(0, 2**63 - 1))}
    return values


junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
ALL_GROUPS: list[type[OptionGroup]] = [*GROUPS, HostlerOptions]
option_names = st.sampled_from([(group.group, name) for group in ALL_GROUPS for name in group.option_names()])


@pytest.mark.property
@settings(deadline=None)
@given(policies())
def test_a_policy_is_the_same_after_it_was_written_and_read(values: dict[str, dict[str, Any]]) -> None:
    policy = Policy.from_mapping(values)
    assert Policy.from_mapping(policy.to_mapping()) == policy
    again = Policy.from_toml(policy.to_toml())
    assert again == policy
    assert repr(again.options) == repr(policy.options)
    assert again.to_toml() == policy.to_toml()


@pytest.mark.property
@settings(deadline=None)
@given(option_names, junk)
def test_a_bad_value_of_any_option_is_a_hostler_error(option: tuple[str, str], value: Any) -> None:
    group, name = option
    with contextlib.suppress(HostlerError):
        policy = Policy.from_mapping({group: {name: value}})
        assert Policy.from_toml(policy.to_toml()) == policy


@pytest.mark.property
@settings(deadline=None)
@given(junk)
def test_whatever_is_given_for_a_policy_is_one_or_a_hostler_error(values: Any) -> None:
    with contextlib.suppress(HostlerError):
        assert isinstance(Policy.from_mapping(values), Policy)


@pytest.mark.property
@settings(deadline=None)
@given(st.text(max_size=40).map(lambda text: f"{text}\n"))
def test_whatever_text_is_given_for_a_policy_is_one_or_a_hostler_error(text: str) -> None:
    with contextlib.suppress(HostlerError):
        assert isinstance(Policy.from_toml(text), Policy)
