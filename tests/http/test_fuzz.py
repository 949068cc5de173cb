"""Malformed queries and bodies: each is answered or refused, none is a fault, none changes anything."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.core.http import schemas
from hostler.core.http.errors import preferred
from hostler.core.http.query_values import required_traits, resources
from hostler.core.http.routes import ROUTES
from hostler.core.http.validation import Schema, is_uuid, plain_uuid

from .calling import Caller

RP = "11111111-2222-3333-4444-555555555555"
CALL = Caller()
CALL("POST", "/resource_providers", {"name": "rp", "uuid": RP})
CALL(
    "PUT",
    f"/resource_providers/{RP}/inventories",
    {"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 8}, "MEMORY_MB": {"total": 64}}},
)

SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WORDS = "VCPU MEMORY_MB CUSTOM_X HW_CPU_X86_VMX MISC_SHARES_VIA_AGGREGATE CUSTOM_T none isolate _A _B a é"
SIGNS = "in: ! !! , : 1 0 -1 2 1.5 99999999999999999999 \u0661 %"
PIECES = st.sampled_from([*WORDS.split(), *SIGNS.split(), RP, " ", "\x00"])
VALUES = st.lists(PIECES, max_size=6).map("".join) | st.text(max_size=20)
SENSIBLE = st.sampled_from(
    [RP, *["VCPU:1", "VCPU:2,MEMORY_MB:4", "none", "HW_CPU_X86_VMX", "!CUSTOM_T", "3", "_A", "_A,_B"]]
)
PLAIN_KEYS = "resources required member_of in_tree limit group_policy root_required same_subtree name uuid project_id"
MORE_KEYS = "resources1 required1 resources_A required_A member_of_B resources_B in_tree_A user_id consumer_type"
KEYS = st.sampled_from([*PLAIN_KEYS.split(), *MORE_KEYS.split(), "associated", "resources@", "x"])
QUERIES = st.lists(st.tuples(KEYS, SENSIBLE | VALUES), max_size=6)
VERSIONS = st.integers(0, 39).map("1.{}".format)
PROVIDER_NAMES = "name uuid parent_provider_uuid inventories resource_provider_generation resource_class total VCPU"
MORE_NAMES = "reserved max_unit allocation_ratio traits aggregates allocations resources project_id user_id generation"
CONSUMER_NAMES = "consumer_generation consumer_type mappings resource_provider"
NAMES = st.sampled_from([*PROVIDER_NAMES.split(), *MORE_NAMES.split(), *CONSUMER_NAMES.split(), RP])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(allow_nan=False) | st.just(RP) | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | VALUES, inner, max_size=5),
    max_leaves=12,
)


def state() -> Any:
    return [CALL("GET", path).json for path in (f"/resource_providers/{RP}/inventories", "/resource_providers")]


@pytest.mark.property
@SLOW
@given(st.sampled_from(["/allocation_candidates", "/resource_providers", "/usages", "/traits"]), QUERIES, VERSIONS)
def test_any_query_string_is_answered_or_refused(path: str, query: list[tuple[str, str]], version: str) -> None:
    text = "&".join(f"{quote(key)}={quote(value, errors='replace')}" for key, value in query)
    answer = CALL("GET", f"{path}?{text}", version=version)
    assert answer.status in (200, 400, 404), answer.json


@pytest.mark.property
@SLOW
@given(st.sampled_from([route for route in ROUTES if route.body]), JSON, VERSIONS)
def test_any_body_is_taken_or_refused_and_a_refusal_changes_nothing(route: Any, body: Any, version: str) -> None:
    path = route.path.replace("{uuid}", RP).replace("{consumer_uuid}", RP).replace("{resource_class}", "VCPU")
    before = state()
    answer = CALL(route.method, path.replace("{name}", "CUSTOM_X"), body, version=version)
    assert answer.status < 500
    if answer.status >= 400:
        assert state() == before
    CALL.fleet.check()


@given(st.dictionaries(st.from_regex("[A-Z0-9_]{1,9}", fullmatch=True), st.integers(1, 10**17), min_size=1))
def test_amounts_of_resources_survive_being_written(amounts: dict[str, int]) -> None:
    assert resources(",".join(f"{name}:{amount}" for name, amount in amounts.items())) == amounts


@given(
    st.sets(st.from_regex("[A-Z][A-Z0-9_]*", fullmatch=True), min_size=1),
    st.sets(st.from_regex("[A-Z]+", fullmatch=True)),
)
def test_traits_survive_being_written(required: set[str], forbidden: set[str]) -> None:
    text = ",".join([*sorted(required), *(f"!{trait}" for trait in sorted(forbidden))])
    assert required_traits(text, may_forbid=True) == (required, forbidden)


@given(st.uuids(), st.sampled_from(["{}", "{{{}}}", "urn:uuid:{}"]), st.booleans(), st.booleans())
def test_every_notation_of_a_uuid_is_the_same_uuid(uuid: Any, form: str, upper: bool, dashes: bool) -> None:
    text = str(uuid) if dashes else uuid.hex
    text = form.format(text.upper() if upper else text)
    assert is_uuid(text)
    assert plain_uuid(text) == str(uuid)


@given(st.text(max_size=40))
def test_what_is_no_uuid_is_not_taken_for_one(text: str) -> None:
    if is_uuid(text):
        assert len(plain_uuid(text)) == 36
        assert plain_uuid(plain_uuid(text)) == plain_uuid(text)


@given(st.text(max_size=40))
def test_any_accept_header_is_understood(accept: str) -> None:
    assert preferred(accept, ("application/json", "text/html")) in (None, "application/json", "text/html")


@pytest.mark.parametrize("name", [name for name in vars(schemas) if isinstance(getattr(schemas, name), Schema)])
def test_every_schema_is_a_schema(name: str) -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(getattr(schemas, name).document)


def test_the_error_of_a_schema_says_where_it_is_wrong() -> None:
    body = {"resource_provider_generation": 1, "total": 0}
    problem = schemas.SET_INVENTORY.problem(json.loads(json.dumps(body)))
    assert problem is not None
    assert problem.startswith("0 is less than the minimum of 1")
    assert "Failed validating 'minimum' in schema['properties']['total']" in problem
