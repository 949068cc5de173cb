"""Decisions that are packed from columns are, byte for byte, what msgspec makes of the Decisions."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler import Decision, Engine, Flavor, Fleet, Host, Request, RequestSpec, add_hosts
from hostler.ext import packed_decisions, packed_decisions_py
from hostler.placement.decide.batch_decisions import FEW

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

names = st.text(max_size=40) | st.sampled_from(["é" * 16, "n" * 255, "n" * 256, "n" * 65_536])
words = st.integers(0, 2**64 - 1)
numbers = st.sampled_from([0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1]) | words
ROW: dict[str, Any] = {
    **{"sequence": 2**40, "uuid": (1, 2), "provider": (3, 4), "weight": -0.5, "seed": 7, "hosts": "h", "nodes": "n"},
    **{"heads": b"", "places": b"", "amounts": b""},
}


def packed(module: Any, rows: list[dict[str, Any]], **changes: Any) -> Any:
    columns: dict[str, Any] = {
        "labels": (b"a", b"bb", b"", b"dddd", b"e"),
        "sequences": np.array([row["sequence"] for row in rows], np.uint64),
        **{name: [row[name] for row in rows] for name in ("heads", "places", "amounts", "hosts", "nodes")},
        "uuids": np.array([row["uuid"] for row in rows], np.uint64).reshape(-1, 2),
        "providers": np.array([row["provider"] for row in rows], np.uint64).reshape(-1, 2),
        "weights": np.array([row["weight"] for row in rows], np.float64),
        "seeds": np.array([row["seed"] for row in rows], np.uint64),
        **changes,
    }
    return module.pack_decisions(*columns.values())


row_values = st.fixed_dictionaries(
    {
        "sequence": numbers,
        **dict.fromkeys(["heads", "places", "amounts"], st.binary(max_size=20)),
        **dict.fromkeys(["hosts", "nodes"], names),
        **dict.fromkeys(["uuid", "provider"], st.tuples(words, words)),
        "weight": st.floats(allow_nan=False),
        "seed": numbers,
    }
)


@given(st.lists(row_values, max_size=4))
def test_kernel_and_twin_write_the_same_bytes(rows: list[dict[str, Any]]) -> None:
    assert packed(packed_decisions, rows) == packed(packed_decisions_py, rows)


def test_what_is_packed_are_values_of_messagepack() -> None:
    (data,) = packed(packed_decisions, [ROW], labels=(b"\x98", b"", b"", b"", b""))
    uuids = "00000000-0000-0001-0000-000000000002", "00000000-0000-0003-0000-000000000004"
    assert msgspec.msgpack.decode(data) == [2**40, uuids[0], "h", "n", uuids[1], -0.5, uuids[1], 7]


@pytest.mark.parametrize("module", [packed_decisions, packed_decisions_py])
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"hosts": []}, ValueError),
        ({"seeds": np.zeros(2, np.uint64)}, ValueError),
        ({"uuids": np.zeros((1, 3), np.uint64)}, ValueError),
        ({"heads": [None]}, TypeError),
        ({"nodes": [b"n"]}, (TypeError, AttributeError)),
        ({"hosts": ["\ud800"]}, UnicodeEncodeError),
    ],
)
def test_columns_that_do_not_fit_are_refused(module: Any, changes: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        packed(module, [ROW], **changes)


hosts = st.lists(
    st.builds(
        Host,
        host=st.sampled_from(["a", "node-1.example.org", "n" * 31, "n" * 32, "é" * 16, "n" * 200]),
        vcpus_total=st.integers(1, 8),
        total_usable_ram_mb=st.integers(512, 4096),
        total_usable_disk_gb=st.integers(10, 100),
        cell_uuid=st.none() | st.sampled_from(["c1", "c2"]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda host: host.host,
)
requests = st.lists(
    st.builds(
        lambda vcpus, memory, disk, identifier, project: Request(
            spec=RequestSpec(flavor=Flavor(name="f", vcpus=vcpus, memory_mb=memory, root_gb=disk)),
            request_id=identifier,
            project_id=project,
        ),
        st.integers(1, 4),
        st.sampled_from([64, 512, 2048]),
        st.sampled_from([0, 1, 20]),
        st.none() | st.sampled_from(["req-1", "req-2"]),
        st.sampled_from(["p", "q"]),
    ),
    min_size=1,
    max_size=12,
)


@given(hosts, requests, st.integers(0, 2**63 - 1))
def test_packed_decisions_are_the_decisions_in_messagepack(
    hosts: list[Host], requests: list[Request], seed: int
) -> None:
    engine = Engine(Fleet(), seed=seed)
    add_hosts(engine.fleet, hosts)
    decisions = engine.place_many(requests)
    passed_on = decisions._to_pass_on()
    for each, decision in zip(passed_on, decisions, strict=True):
        if isinstance(each, Decision):
            assert len(requests) <= FEW or not decision.placed
            assert each == decision
        else:
            assert each.data == msgspec.msgpack.encode(decision)
            assert each.unpack() == decision
            assert (each.host, each.instance_uuid) == (decision.host, decision.selected.instance_uuid)


def test_what_was_decided_before_the_fleet_changed_is_passed_on_as_it_was() -> None:
    engine = Engine(Fleet())
    add_hosts(engine.fleet, [Host(host="n", vcpus_total=8, total_usable_ram_mb=4096)])
    decisions = engine.place_many([Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1)))] * 4)
    engine.release(decisions.uuids())
    engine.fleet.remove_provider("n")
    add_hosts(engine.fleet, [Host(host="m", vcpus_total=8, total_usable_ram_mb=4096)])
    passed_on = decisions._to_pass_on()
    assert [each.host for each in passed_on if isinstance(each, Decision)] == ["n"] * 4
