"""Packings are valid, bounds hold, files are read exactly, and published counts are met."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import signal
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.cli import main
from hostler.placement.types.errors import HostlerError, InvalidValue, UnknownName
from hostler.sim.pack.bounds import apart, lower_bound, martello_toth, sum_bound
from hostler.sim.pack.heuristics import HEURISTICS
from hostler.sim.pack.instance import Instance, read, read_archive, read_order
from hostler.sim.pack.search import pack

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "vector_bin_packing"
published = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published instances are not at {DATA}")


def instance(capacity: tuple[int, ...], *items: tuple[int, ...]) -> Instance:
    sizes = np.array(items, np.int64).reshape(-1, len(capacity))
    return Instance("x", tuple("abcdefgh"[: len(capacity)]), np.array(capacity, np.int64), sizes)


small = st.integers(1, 2).flatmap(
    lambda dimensions: st.lists(st.tuples(*[st.integers(0, 10)] * dimensions), min_size=1, max_size=6).map(
        lambda items: instance((10,) * dimensions, *items)
    )
)


def fewest(given: Instance) -> int:
    """By trying every assignment."""
    items = len(given)
    for count in range(1, items + 1):
        for bins in itertools.product(range(count), repeat=items):
            of = np.array(bins)
            if all((given.sizes[of == number].sum(axis=0) <= given.capacity).all() for number in range(count)):
                return count
    return 0


@pytest.mark.property
@settings(deadline=None, max_examples=80)
@given(small)
def test_bounds_are_never_above_the_optimum_and_packings_never_below(given: Instance) -> None:
    optimum = fewest(given)
    bounds = [lower_bound(given), sum_bound(given), apart(given)]
    bounds += [martello_toth(column, 10) for column in given.sizes.T]
    assert max(bounds) <= optimum
    for name in (*HEURISTICS, "best"):
        packed = pack(given, name)
        assert packed.count >= optimum
        for number in range(packed.count):
            assert (given.sizes[packed.bins == number].sum(axis=0) <= given.capacity).all()


def test_bounds_see_what_the_sum_does_not() -> None:
    assert sum_bound(instance((10,), (6,), (6,), (6,))) == 2
    assert martello_toth(np.array([6, 6, 6]), 10) == 3
    assert martello_toth(np.array([7, 7, 4, 4]), 10) == 3
    assert apart(instance((10, 10), (6, 1), (6, 6), (1, 6), (6, 6))) == 3
    assert lower_bound(instance((10, 10))) == 0


def test_heuristics_by_hand() -> None:
    given = instance((10,), (4,), (7,), (5,), (3,), (6,), (2,))
    assert pack(given, "FF").bins.tolist() == [0, 1, 0, 1, 2, 2]
    assert pack(given, "FFD-L1-Unit").bins.tolist() == [1, 0, 2, 0, 1, 2]
    assert pack(given, "best").count == lower_bound(given) == 3


def test_the_search_beats_the_heuristics_and_is_deterministic() -> None:
    random = np.random.default_rng(5)
    given = instance((100, 100, 100), *map(tuple, random.integers(15, 50, (60, 3)).tolist()))
    best = pack(given, seed=3)
    assert best.count < min(pack(given, name).count for name in HEURISTICS)
    assert best.bins.tolist() == pack(given, seed=3).bins.tolist()
    assert pack(given, seed=3, effort=3).count <= best.count


def test_triples_that_fill_a_bin_are_found() -> None:
    random = np.random.default_rng(2)
    first, second = random.integers(20, 45, (2, 30, 4))
    triples = np.concatenate([first, second, 100 - first - second])
    given = instance((100,) * 4, *map(tuple, random.permutation(triples).tolist()))
    packed = pack(given)
    assert (packed.count, packed.optimal) == (30, True)


def test_an_unknown_algorithm_names_the_closest() -> None:
    with pytest.raises(UnknownName, match="FFD-L1-Unit"):
        pack(instance((1,), (1,)), "FFD-L1")


# files

TABLE = "name,vcpus,memory_gb,count\nsmall,1,0.5,3\nbig,8,12.25,1\n"


def test_a_table_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "guests.csv"
    path.write_text(TABLE)
    given = read(path, capacity={"memory_gb": "64", "vcpus": "16"})
    assert (given.name, given.dimensions, given.labels) == ("guests", ("memory_gb", "vcpus"), ("small",) * 3 + ("big",))
    assert given.capacity.tolist() == [6400, 16]
    assert given.sizes.tolist() == [[50, 1], [50, 1], [50, 1], [1225, 8]]


VBP = "2\n10 20\n2\n3 4 1\n5 6 2\n"


def test_a_vbp_file_is_read_gzipped_or_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="2 items are announced, 1"):
        read(_written(tmp_path, "a.vbp", VBP.replace("5 6 2\n", "")))
    (tmp_path / "b.vbp.gz").write_bytes(gzip.compress(VBP.encode()))
    given = read(tmp_path / "b.vbp.gz")
    assert (given.name, given.capacity.tolist()) == ("b", [10, 20])
    assert given.sizes.tolist() == [[3, 4], [5, 6], [5, 6]]


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cannot be read"):
        list(read_archive(_written(tmp_path, "a.tar.gz", VBP)))


def test_an_archive_without_instances_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(_written(tmp_path, "a.csv", TABLE), "a.csv")
    with pytest.raises(InvalidValue, match=r"holds no \.vbp file"):
        list(read_archive(tmp_path / "a.tar"))


def test_a_table_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    given = read(_written(tmp_path, "a.csv", "\ufeffvcpus, memory_gb\r\n1, 2\r\n\r\n"), capacity={"memory_gb": "4"})
    assert given.sizes.tolist() == [[2]]


def _written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("name", "text", "capacity", "words"),
    [
        ("a.vbp", "", None, "not a .vbp file"),
        ("a.vbp", "2\nx y\n0\n", None, "not a .vbp file"),
        ("a.vbp", "2\n10\n0\n", None, "line 1: 2 capacities"),
        ("a.vbp", "1\n10\n1\n3\n", None, "line 4: 1 sizes and a count"),
        ("a.vbp", "1\n10\n1\n11 1\n", None, "line 4: an item of 11 does not fit a bin of 10"),
        ("a.vbp", "1\n10\n1\n1 1\n", {"a": "1"}, "says itself"),
        ("a.csv", TABLE, None, "needs to know"),
        ("a.csv", TABLE, {"gpus": "1"}, "gpus"),
        ("a.csv", TABLE, {"vcpus": "nan"}, "vcpus must be a number"),
        ("a.csv", TABLE, {"vcpus": "4"}, "line 3: vcpus 8 does not fit"),
        ("a.csv", TABLE.replace("12.25", "-1"), {"memory_gb": "64"}, "line 3: memory_gb must be a number"),
        ("a.csv", TABLE.replace(",3\n", ",x\n"), {"vcpus": "64"}, "line 2: count"),
        ("a.csv", TABLE.replace("small,1", "small"), {"vcpus": "64"}, "line 2: there are"),
        ("a.txt", "", None, "neither a .vbp nor a .csv"),
        ("a.csv.gz", "no gzip", {"vcpus": "1"}, "cannot be read"),
        ("a.csv", "vcpus,vcpus\n1,2\n", {"vcpus": "4"}, "line 1: column vcpus is there more than once"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, capacity: dict[str, str] | None, words: str
) -> None:
    with pytest.raises(HostlerError, match=words):
        read(_written(tmp_path, name, text), capacity=capacity)


def test_orders_are_read_by_their_length(tmp_path: Path) -> None:
    orders = read_order(_written(tmp_path, "o", "2 1 0\n3 2 0 1\n"))
    assert {count: order.tolist() for count, order in orders.items()} == {2: [1, 0], 3: [2, 0, 1]}
    with pytest.raises(InvalidValue, match="line 1: each of 0 to 2"):
        read_order(_written(tmp_path, "o", "3 1 0 0\n"))


# the command


def test_the_command_prints_an_object_for_each_instance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _written(tmp_path, "a.vbp", VBP)
    arguments = ["simulate", "pack", str(path), "--algorithm", "FF", "--json", "--assignment"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("seconds") >= 0
    assert said == {
        "instance": "a",
        "algorithm": "FF",
        "items": 3,
        "bins": 2,
        "lower_bound": 2,
        "optimal": True,
        "assignment": [0, 0, 1],
    }


def test_ctrl_c_ends_the_command_after_the_set_at_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.csv").write_text("vcpus\n3\n2\n")

    def interrupting(instance: Instance, *rest: Any, **more: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return pack(instance, *rest, **more)

    monkeypatch.setattr("hostler.sim.pack.command.packed", interrupting)
    assert main(["simulate", "pack", str(tmp_path), "--bin", "vcpus=4", "--json"]) == 130
    assert [json.loads(line)["instance"] for line in capsys.readouterr().out.splitlines()] == ["one"]
    assert main(["simulate", "pack", str(tmp_path), "--bin", "vcpus=4"]) == 130
    assert "one" in capsys.readouterr().out


def test_ctrl_c_ends_the_search_of_the_set_at_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _written(
        tmp_path, "one.csv", "a,b\n" + "".join(f"{n * 37 % 50 + 10},{n * 53 % 60 + 5}\n" for n in range(200))
    )
    given = read(path, capacity={"a": "100", "b": "100"})
    started = pack(given, go_on=lambda _: False).count
    assert pack(given).count < started

    def interrupting(instance: Instance, *rest: Any, **more: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return pack(instance, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hostler.sim.pack.command.packed", interrupting)
        assert main(["simulate", "pack", str(path), "--bin", "a=100,b=100", "--json"]) == 130
        said = json.loads(capsys.readouterr().out)
        assert (said["bins"], said["interrupted"]) == (started, True)
        assert main(["simulate", "pack", str(path), "--bin", "a=100,b=100"]) == 130
        assert "one (interrupted)" in capsys.readouterr().out


def test_the_command_shows_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.vbp", "b.vbp"):
        _written(tmp_path, name, VBP)
    assert main(["simulate", "pack", str(tmp_path)]) == 0
    words = capsys.readouterr().out.split()
    assert words[:6] == ["instance", "items", "bins", "lower", "bound", "gap"]
    assert words[-6:-1] == ["together", "6", "4", "4", "none"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.vbp"], "cannot be read"),
        ([], "name a file"),
        (["{folder}"], "holds no"),
        (["a.vbp", "--algorithm", "LIFO"], "LIFO"),
        (["a.csv", "--bin", "vcpus"], "form"),
    ],
)
def test_a_bad_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name, text in (("a.vbp", VBP), ("a.csv", TABLE)):
        _written(tmp_path, name, text)
    paths = [str(tmp_path / word) if "." in word else word.format(folder=tmp_path / "empty") for word in arguments]
    assert main(["simulate", "pack", *paths]) == 1
    assert words in capsys.readouterr().err


# published counts


def _rows(name: str) -> dict[str, dict[str, str]]:
    with gzip.open(DATA / name, "rt") as lines:
        return {row["instance_name"]: row for row in csv.DictReader(lines, delimiter="\t")}


SETS = {
    "New": ("New_instances_class1-3.tar.gz", "New_multidim_full_class1-3.csv.gz", "New_summary_known_class1-3.csv.gz"),
    "Triplet": ("Triplet_instances.tar.gz", "Triplet_multidim.csv.gz", "Triplet_summary_known.csv.gz"),
}


@published
@pytest.mark.parity
@pytest.mark.parametrize("name", SETS)
def test_first_fit_and_its_decreasing_forms_need_the_published_bins(name: str) -> None:
    archive, counts, _ = SETS[name]
    orders, rows = read_order(DATA / "item_order.txt.gz"), _rows(counts)
    for known in islice(read_archive(DATA / archive), 0, None, 3):
        for algorithm in ("FF", "FFD-L1-Unit", "FFD-L2-Unit", "FFD-Linf-Unit"):
            packed = pack(known, algorithm, order=orders[len(known)])
            assert packed.count == int(rows[known.name][algorithm]), (known.name, algorithm)


@published
@pytest.mark.parity
@pytest.mark.parametrize("name", SETS)
def test_the_search_needs_fewer_bins_than_the_best_of_all_published_heuristics(name: str) -> None:
    archive, _, summary = SETS[name]
    orders, rows = read_order(DATA / "item_order.txt.gz"), _rows(summary)
    ours = theirs = 0
    for known in islice(read_archive(DATA / archive), 0, None, 15):
        packed = pack(known, order=orders[len(known)])
        assert packed.count <= int(rows[known.name]["best_overall"])
        assert packed.lower_bound >= int(rows[known.name]["LB"])
        ours, theirs = ours + packed.count, theirs + int(rows[known.name]["best_overall"])
    assert ours < theirs
