"""Packing: the published counts, bounds that hold, files that make no sense, and the command."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.cli import main
from hostler.placement.errors import InvalidValue, UnknownName
from hostler.sim.pack.algorithms import ALGORITHMS, count_bins, pack
from hostler.sim.pack.bounds import lower_bound
from hostler.sim.pack.instances import Instance, instance, read_instances, read_orders

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "vector_bin_packing"
PUBLISHED = ("FF", "FFD-L1-Unit", "FFD-L2-Unit", "FFD-Linf-Unit")
ARCHIVES = {
    "Triplet_instances.tar.gz": "Triplet_multidim.csv.gz",
    "New_instances_class1-3.tar.gz": "New_multidim_full_class1-3.csv.gz",
}
published = pytest.mark.skipif(not DATA.exists(), reason="the Vectorpack instances (shared/data) are not here")


def counts(table: str) -> dict[str, dict[str, str]]:
    with gzip.open(DATA / table, "rt") as file:
        return {row["instance_name"]: row for row in csv.DictReader(file, delimiter="\t")}


@published
@pytest.mark.parametrize("archive", ARCHIVES)
def test_first_fit_and_its_decreasing_kinds_meet_every_published_count(archive: str) -> None:
    expected, orders = counts(ARCHIVES[archive]), read_orders(DATA / "item_order.txt.gz")
    checked = 0
    for given_ in read_instances([DATA / archive]):
        if given_.name in expected:
            order, row = orders[len(given_.sizes)], expected[given_.name]
            assert [count_bins(pack(given_, name, order)) for name in PUBLISHED] == [
                int(row[name]) for name in PUBLISHED
            ]
            checked += 1
    assert checked == len(expected)


@published
@pytest.mark.parametrize("archive", ARCHIVES)
def test_the_best_beats_the_best_published_heuristics(archive: str) -> None:
    """A sample: each instance of 60 items or 120."""
    name = "Triplet_summary_known.csv.gz" if "Triplet" in archive else "New_summary_known_class1-3.csv.gz"
    known = counts(name)
    sample = [each for each in read_instances([DATA / archive]) if len(each.sizes) in (60, 120) and each.name in known]
    ours = {each.name: count_bins(pack(each, "best")) for each in sample[::4]}
    assert sum(ours.values()) < sum(int(known[each]["best_overall"]) for each in ours)
    assert all(bins >= int(known[each]["LB"]) for each, bins in ours.items())


def fewest(given_: Instance) -> int:
    """By trying every partition."""
    n = len(given_.sizes)
    for bins in range(n + 1):
        for assignment in itertools.product(range(bins), repeat=n):
            which = np.array(assignment, int)
            if all((given_.sizes[which == b].sum(axis=0) <= given_.capacity).all() for b in range(bins)):
                return bins
    raise AssertionError("items that fit no bin")


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=5))
def test_no_packing_undercuts_the_bound_and_the_best_is_the_fewest(sizes: list[tuple[int, int]]) -> None:
    given_ = instance("x", sizes, (10, 10))
    optimum = fewest(given_)
    assert lower_bound(given_) <= max(optimum, 1 if sizes else 0)
    for name in ALGORITHMS:
        bins = pack(given_, name)
        assert count_bins(bins) >= optimum
        assert all((given_.sizes[bins == b].sum(axis=0) <= given_.capacity).all() for b in range(count_bins(bins)))
    assert count_bins(pack(given_, "best")) == max(optimum, 1 if sizes else 0)


def test_items_that_fill_bins_exactly_are_found() -> None:
    rng = np.random.default_rng(1)
    pairs = rng.integers(25, 38, (40, 2, 4))
    triples = np.concatenate([pairs, 100 - pairs.sum(axis=1, keepdims=True)], axis=1).reshape(-1, 4)
    given_ = instance("t", rng.permutation(triples), (100,) * 4)
    assert count_bins(pack(given_, "best")) == lower_bound(given_) == 40


def test_the_command_prints_an_object_per_instance(tmp_path: Path, capsys: Any) -> None:
    path, order = tmp_path / "a.vbp", tmp_path / "order.txt"
    path.write_text("2\n10 10\n3\n6 1 1\n5 5 1\n4 5 1\n")
    order.write_text("3 2 1 0\n")
    arguments = ["simulate", "pack", str(tmp_path), "--algorithm", "FF", "--order", str(order)]
    assert main([*arguments, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert (answer["instance"], answer["bins"], answer["lower_bound"]) == ("a", 2, 2)
    assert answer["seconds"] >= 0
    assert main(arguments) == 0
    assert "a: 2 bins" in capsys.readouterr().out
    assert main(["simulate", "pack"]) == 1
    assert "name .vbp files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin"),
        ("2\n10\n1\n1 1 1\n", "does not begin"),
        ("1\n10\n2\n1 1\n", "2 are said"),
        ("1\n10\n1\n11 1\n", "item 1 is larger"),
        ("1\n10\n1\n1 1 1\n", "line 4"),
        ("1\n10\n1\nx 1\n", "no numbers"),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.vbp"
    path.write_text(text)
    with pytest.raises(InvalidValue, match=words):
        list(read_instances([path]))


def test_bad_orders_algorithms_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="algorithm"):
        pack(instance("x", [[1]], [1]), "FFF")
    path = tmp_path / "order"
    path.write_text("3 0 1\n")
    with pytest.raises(InvalidValue, match="line 1"):
        read_orders(path)
    for wrong in (tmp_path / "none.vbp", tmp_path / "none.tar.gz"):
        with pytest.raises(InvalidValue, match="cannot be read"):
            list(read_instances([wrong]))
    with pytest.raises(InvalidValue, match=r"no \.vbp files"):
        list(read_instances([tmp_path]))
