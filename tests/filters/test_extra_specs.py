"""The language of extra specs."""

import pytest

from hostler.placement.types.errors import InvalidValue
from hostler.placement.types.extra_specs import parse

TABLE = [
    # requirement, value, holds
    ("gold", "gold", True),
    ("gold", "golden", False),
    ("two words", "two words", True),
    (" gold", "gold", False),
    ("", "", True),
    ("", "x", False),
    ("= 4", "5", True),
    ("= 4", "4", True),
    ("= 4", "3", False),
    (">= 4", "4.0", True),
    ("<= 4", "5", False),
    ("== 4", "4.0", True),
    ("!= 4", "4", False),
    ("!= 4", "5", True),
    (">= 10", "9", False),
    (">= 4", "a100", False),
    ("!= 4", "a100", False),
    (">= 4 or so", "4", True),
    ("s== 4", "4.0", False),
    ("s!= 4", "4.0", True),
    ("s< b", "a", True),
    ("s<= a", "a", True),
    ("s> 10", "9", True),
    ("s>= b", "a", False),
    ("<in> avx", "avx2,sse", True),
    ("<in> vmx nothing", "svm", False),
    ("<all-in> aes avx2", "['avx2', 'aes']", True),
    ("<all-in> aes vmx", "['avx2', 'aes']", False),
    ("<or> gold <or> silver", "silver", True),
    ("<or> gold <or> silver", "bronze", False),
    ("<or> gold silver bronze", "silver", False),
    ("<or> gold silver bronze", "bronze", True),
    ("<or> gold <or>", "<or>", False),
    ("<or>", "", False),
    ("==", "", False),
    ("==", "==", False),
    ("s==", "s==", False),
    ("<in>", "anything", False),
    ("<all-in>", "anything", False),
    ("< 4", "3", False),
    ("< 4", "< 4", True),
    ("<=4", "3", False),
]


@pytest.mark.parametrize(("requirement", "value", "holds"), TABLE)
def test_a_value_satisfies_a_requirement_by_its_operator(requirement: str, value: str, holds: bool) -> None:
    assert parse(requirement).holds(value) is holds


@pytest.mark.parametrize("requirement", ["= x", "== x", "!= x", ">= x", "<= x"])
def test_an_operand_that_is_no_number_is_an_error_that_names_the_extra_spec(requirement: str) -> None:
    with pytest.raises(InvalidValue, match="'x' is not a number") as caught:
        parse(requirement).check("capabilities:ssd_count")
    assert caught.value.field == "capabilities:ssd_count"


@pytest.mark.parametrize("requirement", ["x", "==", "s== x", "<or> x", "== 1e3", "== 4"])
def test_other_requirements_are_no_error(requirement: str) -> None:
    parse(requirement).check("capabilities:ssd_count")


@pytest.mark.parametrize(
    ("requirement", "value", "error"),
    [
        (">= 4", "5", None),
        (">= 4", "a100", "ValueError"),
        ("== abc", "5", "ValueError"),
        ("==", "a100", None),
        ("s== abc", "a100", None),
    ],
)
def test_nova_raises_where_a_number_is_none(requirement: str, value: str, error: str | None) -> None:
    assert parse(requirement).nova_error(value) == error


def test_a_failure_says_what_was_found_and_what_was_wanted() -> None:
    assert parse("<or> a <or> b").failure("c") == "c does not satisfy '<or> a <or> b'"
    assert parse(">= 4").failure("a100") == "'a100' is not a number, which '>= 4' needs"
