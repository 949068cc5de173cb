"""The OpenB cluster: the published tables, to the printed digit where the orders are known; orders of our own; the
command."""

from __future__ import annotations

import csv
import gzip
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from hostler.core.cli import main
from hostler.placement.types.errors import InvalidValue, UnknownName
from hostler.sim.trace import openb

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
COLUMNS = {
    "dot-product": "02-DotProd",
    "gpu-clustering": "03-GpuClustering",
    "gpu-packing": "04-GpuPacking",
    "best-fit": "05-BestFit",
    "fgd": "06-FGD",
}
LISTS = ["default", "cpu050", "gpushare40", "gpuspec10", "multigpu20"]
SUBSET = [("default", policy, 42) for policy in COLUMNS] + [("gpuspec10", "fgd", 43), ("multigpu20", "best-fit", 44)]
EVERY = [(name, policy, seed) for name in LISTS for policy in COLUMNS for seed in (42, 43, 44)]

published = pytest.mark.skipif(not DATA.exists(), reason="the OpenB lists and tables (shared/data) are not here")


def lists(name: str) -> tuple[list[openb.Node], list[openb.Pod]]:
    folder = DATA / "openb"
    nodes = openb.read_nodes(folder / "openb_node_list_gpu_node.csv.gz")
    return nodes, openb.read_pods(folder / f"openb_pod_list_{name}.csv.gz")


def table(kind: str, name: str, policy: str, seed: int) -> dict[str, float]:
    """A row of the published tables: arrived % -> %."""
    with gzip.open(DATA / "openb_expected" / f"analysis_{kind}_discrete.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if (row["workload"], row["sc_policy"], row["seed"]) == (f"openb_pod_list_{name}", policy, str(seed)):
                return {key: float(value) for key, value in row.items() if key.isdecimal() and value}
    raise AssertionError("no such row")


def check_published(name: str, policy: str, seed: int) -> None:
    nodes, pods = lists(name)
    order = openb.read_order(DATA / "openb_order" / f"{name}.jsonl.gz", seed)
    result = openb.openb(nodes, pods, policy, order=order, seed=seed)
    for kind, curve, tolerance in (
        ("allo", result.allocation_percent, 0.0),
        ("frag", result.fragmentation_percent, 0.0),
    ):
        expected = table(kind, name, COLUMNS[policy], seed)
        assert expected.keys() <= curve.keys()
        assert all(abs(curve[key] - value) <= tolerance + 1e-9 for key, value in expected.items())


@published
@pytest.mark.parametrize(("name", "policy", "seed"), SUBSET)
def test_published_tables_are_met(name: str, policy: str, seed: int) -> None:
    check_published(name, policy, seed)


@published
@pytest.mark.soak
@pytest.mark.parametrize(("name", "policy", "seed"), EVERY)
def test_all_published_tables_with_known_orders_are_met(name: str, policy: str, seed: int) -> None:
    check_published(name, policy, seed)


@published
def test_the_published_sample_run_is_met_exactly() -> None:
    nodes, pods = lists("default")
    order = openb.read_order(DATA / "openb_order" / "default.jsonl.gz", 42)
    result = openb.openb(nodes, pods, "fgd", order=order, seed=42)
    assert (result.gpu_milli_allocated, result.cpu_milli_allocated) == (5_919_410, 89_928_302)
    assert result.memory_mib_allocated * 1024**2 == 328_998_433_325_056
    assert (result.gpus_touched, result.offered_pods) == (6_189, 10_866)


@published
@pytest.mark.parametrize(("policy", "mean", "deviation"), [("random", 87.47, 0.32), ("fgd", 95.39, 0.08)])
def test_orders_of_our_own_give_the_published_means(policy: str, mean: float, deviation: float) -> None:
    nodes, pods = lists("default")
    results = [
        openb.openb(nodes, pods, policy, order=openb.made_order(nodes, pods, seed=seed), seed=seed) for seed in range(3)
    ]
    assert all(abs(sum(1 for _ in result.allocation_percent) - 131) <= 1 for result in results)
    assert abs(statistics.mean(result.allocation_percent["130"] for result in results) - mean) <= 3 * deviation


def written(folder: Path, nodes: str, pods: str) -> tuple[Path, Path]:
    paths = folder / "nodes.csv", folder / "pods.csv"
    paths[0].write_text("sn,cpu_milli,memory_mib,gpu,model\n" + nodes)
    paths[1].write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n" + pods)
    return paths


NODES = "a,8000,1000,2,T4\nb,8000,1000,0,\n"
PODS = "p,1000,10,1,500,\nq,1000,10,0,0,\nr,1000,10,1,1000,T4|G2\n"


def test_the_command_prints_one_object_the_same_for_the_same_seed(tmp_path: Path, capsys: Any) -> None:
    nodes, pods = written(tmp_path, NODES, PODS)
    arguments = ["simulate", "openb", "--nodes", str(nodes), "--pods", str(pods), "--policy", "random", "--seed", "5"]
    assert main([*arguments, "--json"]) == 0
    first = capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert capsys.readouterr().out == first
    result = json.loads(first)
    assert result["offered_pods"] >= 3
    assert result["gpu_milli_allocated"] == 2000 - 0 if result["failed_pods"] else result["gpu_milli_allocated"] <= 2000
    assert main(arguments) == 0
    assert "guests placed" in capsys.readouterr().out


def test_a_recorded_order_is_followed(tmp_path: Path) -> None:
    paths = written(tmp_path, NODES, PODS)
    nodes, pods = openb.read_nodes(paths[0]), openb.read_pods(paths[1])
    order = openb.Order(pods=["r", "p", "r", "p", "q"], nodes=["b", "a"])
    result = openb.openb(nodes, pods, "gpu-packing", order=order, seed=1)
    assert (result.failed_pods, result.gpu_milli_allocated, result.cpu_milli_allocated) == (1, 2000, 4000)
    assert result.allocation_percent == {"50": 50.0, "75": 75.0, "125": 75.0, "150": 100.0}


@pytest.mark.parametrize(
    ("nodes", "pods", "field"),
    [
        ("a,8000,1000,2,T4\na,1,1,1,T4\n", PODS, "nodes"),
        ("", PODS, "nodes"),
        ("a,x,1000,2,T4\n", PODS, "nodes.cpu_milli"),
        ("a,8000,1000\n", PODS, "nodes.gpu"),
        (NODES, "p,1000,10,1,-5,\n", "pods.gpu_milli"),
        (NODES, ",1000,10,1,5,\n", "pods.name"),
    ],
)
def test_lists_that_make_no_sense_are_refused(tmp_path: Path, nodes: str, pods: str, field: str) -> None:
    paths = written(tmp_path, nodes, pods)
    with pytest.raises(InvalidValue) as error:
        _ = openb.read_nodes(paths[0]), openb.read_pods(paths[1])
    assert error.value.field == field


def test_orders_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    paths = written(tmp_path, NODES, PODS)
    nodes, pods = openb.read_nodes(paths[0]), openb.read_pods(paths[1])
    with pytest.raises(UnknownName):
        openb.openb(nodes, pods, "fgd", order=openb.Order(pods=["x"], nodes=["a", "b"]), seed=1)
    with pytest.raises(InvalidValue, match="each host once"):
        openb.openb(nodes, pods, "fgd", order=openb.Order(pods=["p"], nodes=["a", "a"]), seed=1)
    with pytest.raises(UnknownName, match="policy"):
        openb.openb(nodes, pods, "fdg", order=openb.Order(pods=["p"], nodes=["a", "b"]), seed=1)
    path = tmp_path / "order.jsonl"
    path.write_text('{"seed": 1, "pods": [], "node_order": []}\n')
    with pytest.raises(InvalidValue, match="no order for seed 2"):
        openb.read_order(path, 2)
    path.write_text("{")
    with pytest.raises(InvalidValue, match="cannot be read"):
        openb.read_order(path, 2)
    with pytest.raises(InvalidValue, match="cannot be read"):
        openb.read_order(tmp_path / "none", 2)
    path.write_text('{"seed": 1, "pods": [], "node_order": []}\n{"seed": 2, "pods": "p", "node_order": ["a"]}\n')
    with pytest.raises(InvalidValue, match="line 2: cannot be read: Expected `array`"):
        openb.read_order(path, 2)
    with pytest.raises(InvalidValue, match="names no guest"):
        openb.openb(nodes, pods, "fgd", order=openb.Order(pods=[], nodes=["a", "b"]), seed=1)
