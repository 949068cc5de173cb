"""bench/vs_kube.py: the workloads on a small cluster, and what it says where there are no thresholds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hostler.bench import engine, vs_kube

LINES = """test,workload,init_nodes,init_pods,measure_pods,threshold_pods_per_s
SchedulingBasic,5000Nodes_10000Pods,5000,1000,10000,680
SchedulingDaemonset,15000Nodes,15000,0,30000,1100
Unschedulable,5kNodes/100Init/10kPods,5000,100,10000,590
SchedulingWithMixedChurn,5000Nodes_10000Pods,5000,0,10000,710
SchedulingPodAntiAffinity,5000Nodes_2000Pods,5000,1000,2000,60
SchedulingPodMatchingAntiAffinity,5000Nodes_5000Pods,5000,1000,5000,595
SchedulingPodAffinity,5000Nodes_5000Pods,5000,5000,5000,35
SchedulingPreferredPodAffinity,5000Nodes_5000Pods,5000,5000,5000,90
SchedulingNodeAffinity,5000Nodes_10000Pods,5000,5000,10000,220
MixedSchedulingBasePod,5000Nodes_5000Pods,5000,10000,5000,140
TopologySpreading,5000Nodes_5000Pods,5000,5000,5000,460
"""


def test_every_pod_that_can_be_placed_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "thresholds.csv"
    file.write_text(LINES)
    assert engine.main([f"--thresholds={file}", "--nodes=50", "--json"], vs_kube.app) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["rates"]) == 10
    assert report["not_mapped"].keys() == {"TopologySpreading"}
    for rate in report["rates"]:
        hopeless = 1 if rate["test"] == "Unschedulable" else 0
        assert rate["placed"] == rate["decided"] - hopeless, rate["test"]
        assert rate["single_per_second"] > 0


def test_without_thresholds_it_says_that_it_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main([f"--thresholds={tmp_path / 'none.csv'}"], vs_kube.app) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("skipped: there is no ")
