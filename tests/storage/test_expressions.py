"""The language of filter_function and goodness_function: what is read, what it is worth, one pool or all at once."""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.storage.pools.expression import ExpressionError, evaluate, expression
from hostler.placement.storage.pools.filter_properties import FilterProperties
from hostler.placement.storage.pools.function_rows import filter_mask, goodness_ratings
from hostler.placement.storage.pools.functions import filter_passes, goodness
from hostler.placement.storage.pools.pools import Pools
from hostler.placement.storage.pools.reports import BackendReport
from hostler.placement.storage.pools.request import VolumeSpec, VolumeType

from .values import engine, pool, random_pool, report, wish

SCOPES = {
    "stats": {"free": 100, "used": 10.7, "none": None, "word": "infinite"},
    "volume": {"size": 7},
    "extra": {"a": "5"},
    "capabilities": {"flag": True, "b2": 3},
}


def value(text: str, *, strict: bool = False) -> Any:
    known = expression(text, strict=strict)
    if known.problem is not None:
        raise known.problem
    assert known.tree is not None
    return evaluate(known.tree, SCOPES, strict=strict)


@pytest.mark.parametrize(
    ("text", "cinder", "strict"),
    [
        ("1 and 1 and 0", 1, 0),
        ("0 or 0 or 1", 0, 1),
        ("stats.used", 10, 10.7),
        ("capabilities.flag", 1, True),
        ("notable == 1", False, False),
        ("0 ? 1 : (0 ? 2 : 3)", 3, 3),
        ("extra.a + 1", 6, 6),
        ("volume.size ^ 2 - 2^3^2", -463, -463),
        ("'gold' == \"gold\"", True, True),
        ("10 / 4", 2.5, 2.5),
        ("-2^2", -4, -4),
        ("1 < 2 < 3", True, True),
        ("max(1, min(5, 3), 2)", 3, 3),
    ],
)
def test_the_same_text_under_both_compatibilities(text: str, cinder: object, strict: object) -> None:
    assert (value(text), value(text, strict=True)) == (cinder, strict)
    assert type(value(text)) is type(cinder)


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("0 ? 1 : 0 ? 2 : 3", 3),
        ("1e3 + .5", 1000.5),
        ("max(4)", 4),
        ("capabilities.b2", 3),
        ("1 & 0 | 1", 1),
        ("volume.size and extra.a == 5", True),
        ("order == 'order'", True),
        ("true and not false", True),
        ("0 and stats.missing", 0),
        ("!1 == 2", True),
        ("!!5", True),
        ("--3", 3),
        ("2^-1", 0.5),
        ("(1, 2)", [1, 2]),
    ],
)
def test_strict_expressions_mean_what_they_say(text: str, worth: object) -> None:
    assert value(text, strict=True) == worth


@pytest.mark.parametrize("text", ["", "1 +", "1 1", "(1", "f(1)", "a.b.c", "1 ? 2", "5 % 2", "'open", "1x"])
def test_a_strict_text_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        value(text, strict=True)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "9^9^9^9",
        "2^100000",
        "'a' * 100000000",
        "1/0",
        "stats.none",
        "stats.missing",
        "nowhere.x",
        "(" * 500 + "1" + ")" * 500,
        "-" * 2_000 + "1",
        "1+" * 6_000 + "1",
        "9" * 400,
        "abs(1, 2)",
        "1 < 'b'",
    ],
)
def test_what_has_no_value_or_no_end_is_an_error_at_once(text: str, strict: bool) -> None:
    if strict and text.startswith("-"):
        assert value(text, strict=True) == 1
        return
    with pytest.raises(ExpressionError) as caught:
        value(text, strict=strict)
    assert caught.value.code == "expression"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.stzn 01+-*/^!<>=?:,()&|'\"oranmx_", max_size=40), st.booleans())
def test_any_text_is_read_or_refused(text: str, strict: bool) -> None:
    known = expression(text, strict=strict)
    assert (known.tree is None) == (known.problem is not None)
    if known.tree is not None:
        with contextlib.suppress(ExpressionError):
            evaluate(known.tree, SCOPES, strict=strict)


ATOMS = [
    "1",
    "0",
    "2",
    "2.5",
    "10",
    "100",
    "volume.size",
    "stats.free_capacity_gb",
    "stats.allocated_capacity_gb",
    "stats.total_capacity_gb",
    "capabilities.iops",
    "capabilities.tier",
    "capabilities.thin_provisioning_support",
    "stats.storage_protocol",
    "stats.updated",
    "capabilities.missing",
    "extra.iops",
    "qos.maxIOPS",
    "'gold'",
    "'unknown'",
    "stats.host",
    "abc",
    "inf",
    "4503599627370497",
]


def random_text(chance: random.Random, depth: int) -> str:
    kind = chance.random()
    if depth == 0 or kind < 0.2:
        return chance.choice(ATOMS)
    first, second = random_text(chance, depth - 1), random_text(chance, depth - 1)
    if kind < 0.6:
        operators = ["+", "-", "*", "/", "^", "<", "<=", "==", "!=", "> ", " && ", " || ", ") and (", ") or ("]
        return f"({first}{chance.choice(operators)}{second})"
    if kind < 0.7:
        return f"{chance.choice(['!', '-', '+'])}({first})"
    if kind < 0.85:
        return f"{chance.choice(['max', 'min', 'abs'])}({first}{chance.choice(['', ',' + second, ',3,' + second])})"
    return f"({first} ? {second} : {random_text(chance, depth - 1)})"


def many_pools(chance: random.Random, texts: list[str], strict: bool) -> Pools:
    pools = []
    for index in range(40):
        pool = random_pool(chance, f"p{index}")
        if chance.random() < 0.3:
            pool["storage_protocol"] = chance.choice(["iSCSI", "NVMe-TCP"])
        pool |= {"filter_function": chance.choice(texts), "goodness_function": chance.choice(texts)}
        pools.append(pool)
    protocol = chance.choice(["FC", "ceph", ["FC", "nfs"], [["FC"], 5], None])
    capabilities = {"storage_protocol": protocol, "pools": pools}
    made = engine(compat="strict" if strict else "cinder").pools
    made.report(BackendReport(host="h@b", capabilities=capabilities, at=1.0))
    return made


@pytest.mark.property
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_all_pools_at_once_are_worth_what_each_is_by_itself(seed: int, strict: bool) -> None:
    chance = random.Random(seed)
    texts = [random_text(chance, chance.randint(1, 3)) for _ in range(3)]
    pools = many_pools(chance, texts, strict)
    spec = VolumeSpec(
        size_gb=chance.choice([1, 7, 50]),
        volume_type=VolumeType(extra_specs={"iops": "100"}),
        qos_specs=chance.choice([None, {"maxIOPS": "800"}]),
    )
    for row in chance.sample(range(40), 5):
        pools.consume(row, 3)
    rows, wanted = pools.live_rows(), FilterProperties.of(spec)
    mask = filter_mask(pools, wanted, rows, strict=strict)
    assert mask.tolist() == [filter_passes(pools, wanted, row, strict=strict)[0] for row in rows.tolist()]
    ratings = goodness_ratings(pools, wanted, rows, strict=strict)
    for row, rating in zip(rows.tolist(), ratings.tolist(), strict=True):
        try:
            assert rating == goodness(pools, wanted, row, strict=strict)
        except ExpressionError:
            assert math.isnan(rating)


def check_columns(pools: Pools, specs: list[VolumeSpec], *, strict: bool) -> None:
    """What is known of functions for all requests is what each of them is worth to each request now."""
    rows = pools.live_rows()
    for spec in specs:
        wanted = FilterProperties.of(spec)
        mask = filter_mask(pools, wanted, rows, strict=strict)
        assert mask.tolist() == [filter_passes(pools, wanted, row, strict=strict)[0] for row in rows.tolist()]
        for row, rating in zip(
            rows.tolist(), goodness_ratings(pools, wanted, rows, strict=strict).tolist(), strict=True
        ):
            try:
                assert rating == goodness(pools, wanted, row, strict=strict)
            except ExpressionError:
                assert math.isnan(rating)


POOLS_ONLY = (
    "capabilities.iops / capabilities.none",
    "capabilities.iops / (capabilities.iops - 100)",
    "100 - stats.allocated_capacity_gb / 10",
    "stats.free_capacity_gb > 50",
    "capabilities.missing == 1",
    "capabilities.tier == 'gold' ? 70 : 20",
    "'abc'",
    "1 +",
    "capabilities.iops > 'a'",
    "stats.unknown + 1",
    "stats.storage_protocol == 'FC'",
)
"""Errors, types, a division by zero and capabilities that are missing among them."""


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_what_is_known_of_functions_follows_reports_and_volumes(seed: int, strict: bool, mixed: bool) -> None:
    chance = random.Random(seed)
    texts = chance.sample(POOLS_ONLY, 3) + (["volume.size < 10"] if mixed else [])
    pools = many_pools(chance, texts, strict)
    specs = [VolumeSpec(size_gb=size) for size in (1, 50)]
    check_columns(pools, specs, strict=strict)
    for row in chance.sample(range(40), 3):
        pools.consume(row, 7)
    check_columns(pools, specs, strict=strict)
    changed = random_pool(chance, "p3") | {
        "filter_function": "volume.size < 10",
        "goodness_function": "capabilities.iops",
    }
    others = [random_pool(chance, f"p{index}") for index in range(40) if index != 3]
    pools.report(
        BackendReport(host="h@b", capabilities={"storage_protocol": "FC", "pools": [changed, *others]}, at=2.0)
    )
    check_columns(pools, specs, strict=strict)


def test_requests_share_an_answer_until_a_function_reads_the_request() -> None:
    """Volumes of all types are placed together while functions read what pools report, and one by one beyond that."""
    reported = [pool(f"p{number}", iops=number, goodness_function="capabilities.iops") for number in range(30)]
    made = engine(
        report("h@b", *reported),
        scheduler_default_filters=["DriverFilter"],
        scheduler_default_weighers=["GoodnessWeigher"],
    )
    asked = [wish(size, {"name": str(size)}) for size in (1, 20)]
    assert [each.selected.pool_name for each in made.place_many(asked)] == ["p29", "p29"]
    reported[29]["filter_function"] = "volume.size < 10"
    made.pools.report(report("h@b", *reported, at=101.0))
    assert [each.selected.pool_name for each in made.place_many(asked)] == ["p29", "p28"]
    del reported[29]["filter_function"]
    made.pools.report(report("h@b", *reported, at=102.0))
    assert [each.selected.pool_name for each in made.place_many(asked)] == ["p29", "p29"]
