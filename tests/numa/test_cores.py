"""Which host CPUs a pinned guest gets: thread policies and emulator threads."""

from __future__ import annotations

import pytest

from hostler.placement.numa.cores import has_threads
from hostler.placement.numa.fit import fit as numa_fit
from hostler.placement.types.host import NumaCell

from .values import cell, guest, legacy_cell, pinned, topology


def cpus(host: NumaCell, count: int, policy: str | None = None, emulator: str | None = None) -> list[int] | None:
    """Host CPUs by guest CPU."""
    wanted = guest(pinned(range(count), cpu_thread_policy=policy, memory=256), emulator=emulator)
    fitted = numa_fit(topology(host), wanted)
    return None if fitted is None else [host_cpu for _, host_cpu in fitted.cells[0].pinning]


def emulator_cpus(host: NumaCell, count: int, policy: str | None = None) -> set[int] | None:
    wanted = guest(pinned(range(count), cpu_thread_policy=policy, memory=256), emulator="isolate")
    fitted = numa_fit(topology(host), wanted)
    return None if fitted is None else set(fitted.cells[0].emulator_cpus)


SMT = cell(cores=4, threads=2)  # cores 0+4, 1+5, 2+6, 3+7
NO_SMT = cell(cores=4)
LEGACY = legacy_cell(cores=4, threads=2)


@pytest.mark.parametrize("policy", [None, "prefer"])
@pytest.mark.parametrize(
    ("held", "count", "chosen"),
    [
        ((), 2, [0, 4]),
        ((), 3, [0, 4, 1]),
        ((), 8, [0, 4, 1, 5, 2, 6, 3, 7]),
        ((0,), 2, [1, 5]),
        ((0, 1, 2, 3), 3, [4, 5, 6]),
        ((0, 1, 2), 4, [4, 5, 6, 3]),
        ((0, 1, 2), 5, [4, 5, 6, 3, 7]),
        ((0, 1, 2), 6, None),
    ],
    ids=str,
)
def test_prefer_takes_whole_cores_first_and_any_cpu_at_last(
    policy: str | None, held: tuple[int, ...], count: int, chosen: list[int] | None
) -> None:
    assert cpus(cell(cores=4, threads=2, pinned_cpus=frozenset(held)), count, policy) == chosen


@pytest.mark.parametrize(
    ("held", "count", "chosen"),
    [((), 2, [0, 4]), ((), 3, [0, 4, 1]), ((0, 1), 4, [2, 6, 3, 7]), ((0, 1, 2), 3, None), ((0, 1, 2), 2, [3, 7])],
    ids=str,
)
def test_require_takes_no_core_by_a_single_free_thread(
    held: tuple[int, ...], count: int, chosen: list[int] | None
) -> None:
    assert cpus(cell(cores=4, threads=2, pinned_cpus=frozenset(held)), count, "require") == chosen


def test_require_needs_smt() -> None:
    assert cpus(NO_SMT, 2, "require") is None


def test_require_on_four_threads_makes_do_with_fewer_of_a_core() -> None:
    host = cell(cores=2, threads=4, pinned_cpus=frozenset({0}))  # cores 0+2+4+6, 1+3+5+7
    assert cpus(host, 4, "require") == [1, 3, 5, 7]
    assert cpus(host, 6, "require") == [2, 4, 6, 1, 3, 5]
    assert cpus(host, 7, "require") is None


@pytest.mark.parametrize(("count", "chosen"), [(1, [0]), (4, [0, 1, 2, 3]), (5, None)])
def test_isolate_takes_one_cpu_per_core(count: int, chosen: list[int] | None) -> None:
    assert cpus(NO_SMT, count, "isolate") == chosen
    assert cpus(LEGACY, count, "isolate") == chosen


def test_isolate_needs_wholly_free_cores() -> None:
    assert cpus(legacy_cell(cores=4, threads=2, pinned_cpus=frozenset({4, 1})), 2, "isolate") == [2, 3]
    assert cpus(legacy_cell(cores=4, threads=2, pinned_cpus=frozenset({4, 1})), 3, "isolate") is None


def test_isolate_is_refused_with_smt_where_dedicated_cpus_are_told_apart() -> None:
    assert cpus(SMT, 1, "isolate") is None


def test_isolated_siblings_are_taken_too() -> None:
    fitted = numa_fit(topology(LEGACY), guest(pinned([0, 1], cpu_thread_policy="isolate")))
    assert fitted is not None
    assert fitted.cells[0].taken_cpus == {0, 4, 1, 5}
    assert fitted.nova_charges


def test_emulator_threads_get_the_first_free_cpu_that_is_left() -> None:
    assert emulator_cpus(SMT, 2) == {1}
    assert emulator_cpus(SMT, 3) == {5}
    assert emulator_cpus(NO_SMT, 3) == {3}


def test_emulator_threads_count_as_a_cpu() -> None:
    assert emulator_cpus(NO_SMT, 4) is None
    assert cpus(NO_SMT, 4, emulator="share") == [0, 1, 2, 3]


def test_emulator_threads_of_an_isolated_guest_get_a_core_of_their_own() -> None:
    assert emulator_cpus(LEGACY, 2, "isolate") == {2}
    assert emulator_cpus(LEGACY, 4, "isolate") is None


def test_emulator_threads_may_share_a_core_with_others_which_nova_cannot_charge() -> None:
    host = legacy_cell(cores=3, threads=2, pinned_cpus=frozenset({2}))  # cores 0+3, 1+4, 2+5; 2 is held
    fitted = numa_fit(topology(host), guest(pinned([0, 1], cpu_thread_policy="isolate"), emulator="isolate"))
    assert fitted is not None
    assert fitted.cells[0].emulator_cpus == {5}
    assert fitted.cells[0].taken_cpus == {0, 3, 1, 4, 5}
    assert not fitted.nova_charges


def test_only_the_first_guest_cell_carries_emulator_threads() -> None:
    host = topology(cell(0), cell(1))
    fitted = numa_fit(host, guest(pinned([0]), pinned([1], id=1), emulator="isolate"))
    assert fitted is not None
    assert [len(part.emulator_cpus) for part in fitted.cells] == [1, 0]


def test_a_host_that_reports_no_cores_takes_no_pinned_guest() -> None:
    assert cpus(cell(siblings=()), 1) is None


def test_smt_is_seen_on_any_cell() -> None:
    assert has_threads([NO_SMT, cell(1, threads=2)])
    assert not has_threads([NO_SMT])
