"""Guests with NUMA cells are placed as by the scan: by a search with the rows set aside that their cells refuse, and by
a ranking of their own once they are asked for often."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, Service, add_hosts
from hostler.placement.decide import signature
from hostler.placement.decide.scan_placement import ScanPlacement
from hostler.placement.types.decision import Decision
from hostler.placement.types.host import MemoryPages, NumaCell, NumaTopology

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

HOSTS = 40
FILTERS = ["ComputeFilter", "NUMATopologyFilter", "NumInstancesFilter"]


def cell(number: int, rng: np.random.Generator) -> NumaCell:
    cpus = frozenset(range(4 * number, 4 * number + int(rng.integers(2, 5))))
    memory = int(rng.choice([2048, 4096, 4096]))
    return NumaCell(
        id=number,
        cpuset=cpus,
        pcpuset=cpus,
        memory=memory,
        siblings=tuple(frozenset({cpu}) for cpu in sorted(cpus)),
        mempages=(MemoryPages(size_kb=4, total=memory * 256),),
    )


def engine(seed: int, ram_multiplier: float, subset: int) -> Engine:
    rng = np.random.default_rng(seed)
    fleet = Fleet()
    hosts = [
        Host(
            host=f"h{number}",
            vcpus_total=int(rng.choice([8, 16])),
            total_usable_ram_mb=8192,
            total_usable_disk_gb=100,
            numa_topology=NumaTopology(cells=(cell(0, rng), cell(1, rng))) if rng.integers(0, 4) else None,
            service=Service(disabled=bool(rng.integers(0, 8) == 0)),
        )
        for number in range(HOSTS)
    ]
    add_hosts(fleet, hosts)
    options = {
        "filter_scheduler": {
            "enabled_filters": FILTERS,
            "ram_weight_multiplier": ram_multiplier,
            "host_subset_size": subset,
            "max_instances_per_host": 4,
        }
    }
    return Engine(fleet, Policy.from_mapping(options), seed=seed)


def asks(shape: int) -> Request:
    extra_specs = {"hw:numa_nodes": str(1 + shape % 2)}
    if shape % 3 == 0:
        extra_specs["hw:cpu_policy"] = "dedicated"
    flavor = Flavor(name=f"f{shape}", vcpus=2, memory_mb=512 * (1 + shape // 4), extra_specs=extra_specs)
    return Request(spec=RequestSpec(flavor=flavor), alternates=shape % 3)


def by_scan(of: Engine, request: Request) -> Decision:
    fork = of.what_if()
    return ScanPlacement(fork._context, fork._context.begin(request)).place()


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32),
    st.sampled_from([1.0, -1.0, 0.0]),
    st.sampled_from([1, 3]),
    st.sampled_from([2, 10**9]),
    st.lists(st.tuples(st.integers(0, 11), st.booleans()), min_size=5, max_size=40),
)
def test_placements_are_those_of_the_scan(
    seed: int, ram_multiplier: float, subset: int, often: int, steps: list[tuple[int, bool]]
) -> None:
    placing = engine(seed, ram_multiplier, subset)
    came: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signature, "_OFTEN", often)
        for shape, leaves in steps:
            if leaves and came:
                placing.release(came.pop(0))
            expected = by_scan(placing, asks(shape))
            decision = placing.place(asks(shape))
            assert decision == expected
            came += [selection.instance_uuid for selection in decision.selections]


def test_a_shape_gets_a_ranking_of_its_own_once_it_is_asked_for_often() -> None:
    placing, made = engine(1, 1.0, 1), []
    compiled = placing._context.compiled
    for _ in range(5):
        placing.place(replace(asks(1), alternates=0))
        [owner] = compiled.by_content.values()
        made.append(owner._ranking is not None)
        of_rules = sum(cache.array.nbytes for _, cache in owner.row_judges)
        assert of_rules > 0
        assert compiled._bytes == owner.own_bytes == of_rules + (owner.ranking.nbytes if made[-1] else 0)
    assert made == [False, False, False, True, True]
