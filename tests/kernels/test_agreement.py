"""Any history of a fleet leaves kernels and twins in the same state, and with the same answers to every question."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hostler.ext import batch_py, constants, fleet_py, shapes_py
from hostler.ext.ranking import beside_py, ranking_py

from .side import RequestShape, Side
from .world import (
    BLOCKS,
    FIGURES,
    SPIKES,
    STEADY,
    Arrays,
    Maker,
    Signature,
    empty_arrays,
    int32,
    outcome,
    plain,
    round_up,
    settle,
    signatures,
    wider,
    words,
)

if os.environ.get("HOSTLER_PURE", "") not in ("", "0"):
    pytest.skip("there is no kernel to compare", allow_module_level=True)

from hostler.ext import _batch, _fleet, _shapes
from hostler.ext import ranking as _ranking
from hostler.ext.ranking import _beside

pytestmark = pytest.mark.property

numbers = st.integers(0, 2**20)
"""Picks a row, a consumer or another thing of which there are not so many, by remainder."""
seeds = st.integers(0, 2**32 - 1)
figures = st.sampled_from(SPIKES) | st.floats(-1e5, 1e5)
memories = st.sampled_from([0.0, 512.0, 0.3])


class Agreement(RuleBasedStateMachine):
    """Drives both sides with the same calls and compares them after each."""

    sizes: ClassVar[st.SearchStrategy[int]] = st.integers(1, 20) | st.integers(50, 200)
    most_rankings: ClassVar[int] = 3

    @initialize(seed=seeds, data=st.data())
    def start(self, seed: int, data: st.DataObject) -> None:
        self.begin(seed, data.draw(self.sizes, label="rows"), data.draw(st.integers(1, 4), label="classes"))
        self.add_ranking(data)
        self.add_ranking(data)

    def begin(self, seed: int, rows: int, classes: int) -> None:
        """A fleet with two shapes, a group of each policy, and some consumers in them."""
        self.rows, self.classes = rows, classes
        self.maker = Maker(seed)
        self.capacity = round_up(self.rows)
        arrays = empty_arrays(self.capacity)
        self.maker.fill(arrays, np.arange(self.rows, dtype=np.int32), self.classes)
        modules = (_fleet, _ranking, _batch, _shapes), (fleet_py, ranking_py, batch_py, shapes_py)
        self.sides = [Side(*four, arrays) for four in modules]
        for side in self.sides:
            side.columns.set_rows(self.rows)
            side.index.held_room = (seed % 3) << 16
        self.signatures: list[Signature] = []
        self.shapes, self.groups, self.uuids, self.step = 0, 0, 0, 0
        self.add_shape(1, 0, 1, 512.0)
        self.add_shape(0, 2, 2, 0.3)
        for policy in (1, 2, 3, 4):
            self.add_group(policy, 1 + seed % 2)
        for _ in range(int(self.maker.random.integers(0, 12))):
            row, shape, group, flags = self.maker.random.integers(0, 2**20, 4).tolist()
            self.add_consumer(row, shape, group, flags % 32, True)

    # both sides

    def both(self, call: Callable[[Side], Any]) -> tuple[Any, ...]:
        """Make the same call on both sides; they must answer the same."""
        kernel, twin = (outcome(call, side) for side in self.sides)
        assert kernel == twin
        return kernel

    def ask(self, ranking: int, question: str, *arguments: Any) -> tuple[Any, ...]:
        return self.both(lambda side: getattr(side.rankings[ranking], question)(*arguments))

    def edit(self, change: Callable[[Arrays], None], rows: Any) -> None:
        for side in self.sides:
            change(side.arrays)
            side.columns.mark_changed(int32(rows))

    def live(self) -> list[int]:
        ids: list[int] = self.sides[0].columns.consumer_arrays()["id"].tolist()
        return ids

    # the fleet changes

    def column_in_use(self, pick: int) -> int:
        """A column that may be edited and that some ranking reads, where one does."""
        terms = [term["column"] for signature in self.signatures for term in signature.terms if "column" in term]
        bounds = [bound[0] for signature in self.signatures for bound in signature.bounds]
        used = [column for column in terms + bounds if column not in STEADY] or [0]
        return int(used[pick % len(used)])

    @rule(row=numbers, pick=numbers, value=figures)
    def set_figure(self, row: int, pick: int, value: float) -> None:
        row, column = row % self.rows, self.column_in_use(pick)

        def change(arrays: Arrays) -> None:
            arrays["host"][column, row] = value

        self.edit(change, [row])

    @rule(pick=numbers, greatest=st.booleans(), value=figures)
    def move_an_end(self, pick: int, greatest: bool, value: float) -> None:
        """Change the greatest or the least value of a column, and with it what the others are measured by."""
        column = self.column_in_use(pick)
        values = self.sides[0].arrays["host"][column, : self.rows]
        row = int(values.argmax() if greatest else values.argmin())

        def change(arrays: Arrays) -> None:
            arrays["host"][column, row] = value

        self.edit(change, [row])

    @rule(pick=numbers, amount=st.sampled_from([1.0, -512.0]))
    def shift_all_rows(self, pick: int, amount: float) -> None:
        """Move both ends of a column and leave the range as it is."""
        column = self.column_in_use(pick)

        def change(arrays: Arrays) -> None:
            arrays["host"][column, : self.rows] += amount

        self.edit(change, range(self.rows))

    @rule(row=numbers, resource=st.integers(0, 2), limit=st.integers(0, 12), most=st.integers(0, 12))
    def set_inventory(self, row: int, resource: int, limit: int, most: int) -> None:
        row %= self.rows

        def change(arrays: Arrays) -> None:
            arrays["limit"][resource, row], arrays["max_unit"][resource, row] = limit, most
            settle(arrays, row)

        self.edit(change, [row])

    @rule(row=numbers, new=numbers)
    def reclass(self, row: int, new: int) -> None:
        row %= self.rows

        def change(arrays: Arrays) -> None:
            arrays["class_of"][row] = new % self.classes

        self.edit(change, [row])

    @rule(seed=seeds, share=st.sampled_from([0.01, 0.05, 0.2, 1.0]))
    def change_many_rows(self, seed: int, share: float) -> None:
        random = np.random.default_rng(seed)
        rows = random.integers(0, self.rows, max(1, int(self.rows * share)))
        column, values = self.column_in_use(int(random.integers(0, 18))), random.choice(SPIKES, len(rows))

        def change(arrays: Arrays) -> None:
            arrays["host"][column, rows] = values

        self.edit(change, rows)

    @rule(stage=st.sampled_from([0, 0, 4, 255]), value=st.sampled_from(FIGURES), row=numbers)
    def add_class(self, stage: int, value: float, row: int) -> None:
        self.classes += 1
        for index, signature in enumerate(self.signatures):
            signature.add_class(stage, value)
            for side in self.sides:
                side.rankings[index].set_class_stage(signature.class_stage)
            for position, term in enumerate(signature.terms):
                multipliers = None
                if term.get("multipliers") is not None:
                    multipliers = (term["multipliers"], term["least_multiplier"], term["greatest_multiplier"])
                for side in self.sides:
                    side.rankings[index].set_class_values(position, term.get("values"), multipliers)
        self.reclass(row, self.classes - 1)

    @rule(count=st.integers(1, 40))
    def add_rows(self, count: int) -> None:
        rows = np.arange(self.rows, self.rows + count, dtype=np.int32)
        self.rows += count
        grown = round_up(self.rows)
        if grown > self.capacity:
            self.capacity = grown
            for side in self.sides:
                side.attach(wider(side.arrays, grown))
        self.maker.fill(self.sides[0].arrays, rows, self.classes)
        for name, array in self.sides[0].arrays.items():
            self.sides[1].arrays[name][..., rows] = array[..., rows]
        self.both(lambda side: side.columns.set_rows(self.rows))
        self.edit(lambda arrays: None, rows)
        self.make_stale_rankings_anew()

    def make_stale_rankings_anew(self) -> None:
        for index, signature in enumerate(self.signatures):
            if self.sides[1].rankings[index].capacity == self.capacity:
                continue
            for ask in ("best", "stages", "counts", "check"):
                assert self.ask(index, ask) == ("error", RuntimeError)
            signature.widen(self.capacity)
            for side in self.sides:
                side.rankings[index] = side.make(signature, index)

    @rule(taller=st.booleans())
    def move_columns(self, taller: bool) -> None:
        """Attach other arrays of the same capacity, as happens when a resource class is added."""
        for side in self.sides:
            arrays = dict(side.arrays)
            if taller and len(arrays["avail"]) < 6:
                arrays |= {name: np.vstack([arrays[name], np.zeros_like(arrays[name][:1])]) for name in BLOCKS}
            side.attach(arrays)

    @rule(count=st.integers(1, 3))
    def add_rows_in_vain(self, count: int) -> None:
        """Take rows back before any ranking looked at them."""
        rows = self.rows
        if rows + count <= self.capacity:
            new = np.arange(rows, rows + count, dtype=np.int32)
            self.both(lambda side: side.columns.set_rows(rows + count))
            self.edit(lambda arrays: None, new)
            self.both(lambda side: side.columns.set_rows(rows))

    @precondition(lambda self: self.rows > 1)
    @rule(count=st.integers(1, 40))
    def take_rows_back(self, count: int) -> None:
        taken = self.sides[0].columns.consumer_arrays()["figures"][:, 0]
        rows = max(self.rows - count, 1, int(taken.max(initial=0)) + 1)
        self.rows = rows
        self.both(lambda side: side.columns.set_rows(rows))

    @rule()
    def forget_log(self) -> None:
        self.both(lambda side: side.columns.forget_log())

    # rankings

    @precondition(lambda self: len(self.signatures) < self.most_rankings)
    @rule(data=st.data())
    def add_ranking(self, data: st.DataObject) -> None:
        self.rank(data.draw(signatures(self.classes, self.capacity)))

    def rank(self, signature: Signature) -> None:
        self.signatures.append(signature)
        for side in self.sides:
            side.rankings.append(side.make(signature, len(self.signatures)))

    @rule(which=numbers, row=numbers, value=st.sampled_from(FIGURES))
    def set_own_values(self, which: int, row: int, value: float) -> None:
        """Change what a ranking alone holds of a row: its masks, and the raw values that are by row."""
        signature, row = self.signatures[which % len(self.signatures)], row % self.rows
        for mask, _ in signature.masks:
            mask[row] ^= 1
        for term in signature.terms:
            if term["source"] == constants.SOURCE_ROW:
                term["values"][row] = min(value, term.get("maxval", np.inf))
        self.edit(lambda arrays: None, [row])

    # consumers and groups

    @rule(amount=st.integers(0, 3), resource=st.integers(0, 2), vcpus=st.integers(0, 2), memory=memories)
    def add_shape(self, amount: int, resource: int, vcpus: int, memory: float) -> None:
        classes, amounts = int32([resource, (resource + 1) % 3]), np.array([amount, 1])
        self.both(lambda side: side.columns.add_shape(classes, amounts, vcpus, memory, 1024.0))
        self.shapes += 1

    @precondition(lambda self: self.groups < 6)
    @rule(policy=st.integers(0, 4), at_most=st.integers(1, 3))
    def add_group(self, policy: int, at_most: int) -> None:
        assert self.both(lambda side: side.columns.add_group(policy, at_most)) == ("answer", self.groups)
        self.groups += 1

    @rule(group=st.integers(-1, 6), policy=st.integers(0, 5), at_most=st.integers(0, 3))
    def set_group(self, group: int, policy: int, at_most: int) -> None:
        self.both(lambda side: side.columns.set_group(group, policy, at_most))

    @rule()
    def drop_last_group(self) -> None:
        if self.both(lambda side: side.columns.drop_last_group())[0] == "answer":
            self.groups -= 1

    @rule(row=numbers, shape=numbers, group=numbers, flags=st.integers(0, 31), new=st.booleans())
    def add_consumer(self, row: int, shape: int, group: int, flags: int, new: bool) -> None:
        self.uuids += new
        row, shape, group = row % self.rows, shape % (self.shapes + 1) - 1, group % (self.groups + 1) - 1
        self.both(lambda side: side.columns.add_consumer(7, self.uuids, row, shape, 1, 2, group, flags))

    @rule(which=numbers)
    def drop_consumer(self, which: int) -> None:
        live = self.live() or [0]
        self.both(lambda side: side.columns.drop_consumer(live[which % len(live)]))

    @rule(which=numbers, building=st.booleans())
    def set_building(self, which: int, building: bool) -> None:
        live = self.live() or [0]
        self.both(lambda side: side.columns.set_building(live[which % len(live)], building))

    @rule(which=numbers, shape=numbers, flags=st.integers(0, 140))
    def set_consumer(self, which: int, shape: int, flags: int) -> None:
        """A caller accounts for the difference in the columns; here both sides leave it."""
        live = self.live() or [0]
        chosen = live[which % len(live)]
        self.both(lambda side: side.columns.set_consumer(chosen, shape % (self.shapes + 1) - 1, flags))

    @rule(which=numbers, new=st.booleans())
    def rename_consumer(self, which: int, new: bool) -> None:
        self.uuids += new
        live = self.live() or [0]
        self.both(lambda side: side.columns.rename_consumer(live[which % len(live)], 7, self.uuids))

    def request_shape(self, pick: int, guest: int) -> RequestShape:
        """A ranking, a consumer's shape, and the amounts that are needed: the ranking's own, or others where it can."""
        index = pick % len(self.signatures)
        ranking = self.sides[1].rankings[index]
        variant = pick // len(self.signatures) % 4
        amounts = [1 + (need.amount + variant) % 5 for need in ranking.needs] if variant and ranking.searches else None
        return index, guest % self.shapes, amounts

    @rule(pick=numbers, seed=seeds, guest=numbers)
    def judge_otherwise(self, pick: int, seed: int, guest: int) -> None:
        """A ranking that differs in the verdicts by class alone answers as one that is made so."""
        index, random = pick % len(self.signatures), np.random.default_rng(seed)
        stages = random.choice(np.array([0, 0, 1, 3, 255], np.uint8), len(self.signatures[index].class_stage))
        group = guest % (self.groups + 1) - 1

        def look(side: Side) -> Any:
            made = side.rankings[index].judging(stages)
            return None if made is None else (made.best(group, 3, seed), made.counts(group), made.stages().tolist())

        self.both(look)

    @rule(
        pick=numbers,
        named=st.lists(numbers, max_size=12),
        split=st.integers(0, 12),
        policy=st.sampled_from([0, -1, 1]),
        wanted=st.integers(1, 6),
        seed=seeds,
    )
    def leave_rows_out(self, pick: int, named: list[int], split: int, policy: int, wanted: int, seed: int) -> None:
        """Rows left out, and rows that take part whatever refuses them; ``policy``: the sign of their members."""
        index, last = pick % len(self.signatures), max(self.sides[1].columns.rows, 1)
        rows = [number % last for number in named]
        without, beside = int32(rows[:split]), int32(rows[split:])
        members = None if policy == 0 else policy * np.array([float(number % 3) for number in named[split:]])

        def look(side: Side) -> Any:
            ranking = side.rankings[index]
            module = _beside if side is self.sides[0] else beside_py
            found = module.best_beside(ranking, without, beside, members, wanted, seed)
            counts = np.array(ranking.counts(-1, 255))
            masks = [(np.resize(np.array(each, np.uint8), last), 1 + seed % 200) for each in ((1, 0, 1), (0, 1, 1, 1))]
            aside = module.set_aside(ranking, masks, counts)
            return (
                found,
                aside.tolist(),
                counts.tolist(),
                [ranking.row_parts(row, 0.0) for row in found[0]],
                ranking.best(-1, 2, seed),
            )

        self.both(look)

    @rule(
        guests=st.lists(st.tuples(numbers, numbers, numbers), max_size=8),
        repeated=st.integers(0, 3),
        building=st.booleans(),
        seed=seeds,
        width=st.sampled_from([0, 6, 256]),
    )
    def place(self, guests: list[tuple[int, int, int]], repeated: int, building: bool, seed: int, width: int) -> None:
        shapes = [self.request_shape(guest[0], guest[1]) for guest in guests]
        groups = int32([guest[2] % (self.groups + 1) - 1 for guest in guests])
        uuids = words(self.uuids + 1, len(guests))
        if repeated == 0 and len(guests) > 2:
            uuids[-1] = uuids[0]
        self.uuids += len(guests)
        self.both(lambda side: side.place(shapes, uuids, groups, building, seed, width))

    @rule(
        pick=numbers,
        guest=numbers,
        count=st.integers(0, 8),
        repeated=st.integers(0, 3),
        building=st.booleans(),
        again=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-np.inf, 0.0]), st.sampled_from([1.0, 4.0, 1e9]))),
    )
    def place_alike(
        self, pick: int, guest: int, count: int, repeated: int, building: bool, again: list[tuple[int, float, float]]
    ) -> None:
        uuids = words(self.uuids + 1, count)
        if repeated == 0 and count > 2:
            uuids[-1] = uuids[0]
        self.uuids += count
        ranking, shape = pick % len(self.signatures), guest % self.shapes
        self.both(lambda side: side.place_alike(ranking, shape, uuids, building, again))

    @rule(seed=seeds, count=st.integers(0, 8), twice=st.integers(0, 3))
    def release(self, seed: int, count: int, twice: int) -> None:
        ids = np.random.default_rng(seed).permutation(int32(self.live()))[:count]
        if twice == 0 and len(ids):
            ids = np.append(ids, ids[0])
        self.both(lambda side: side.batch.release(side.columns, ids))

    # what must agree

    @invariant()
    def columns_agree(self) -> None:
        kernel, twin = self.sides
        assert plain(kernel.arrays) == plain(twin.arrays)
        columns = twin.columns
        for ask in ("version", "rows", "consumer_count"):
            assert getattr(kernel.columns, ask) == getattr(columns, ask)
        self.both(lambda side: side.columns.changed(columns.version - 5))
        self.both(lambda side: side.columns.consumer_arrays())
        self.both(lambda side: [side.columns.group_projects(group, 99) for group in range(self.groups + 1)])
        self.both(lambda side: [side.columns.group(group) for group in range(self.groups + 1)])
        self.both(lambda side: [side.columns.consumers_on(row) for row in range(min(self.rows, 20))])
        self.both(lambda side: [side.columns.consumers_of(project).tolist() for project in range(-1, 5)])
        self.both(lambda side: side.find(words(0, 20)))
        self.both(lambda side: side.columns.holders(side.columns.consumer_arrays()["id"]).tolist())

    @invariant()
    def rankings_agree(self) -> None:
        self.step += 1
        wanted = (1, 1, 3, 100_000)[self.step % 4]
        for index in self.rankings_to_ask():
            for group in self.groups_to_ask():
                self.ask(index, "best", group, wanted, 2**64 - self.step)
                self.ask(index, "row_parts", self.step % self.rows, 2.0 - self.step % 5)
                self.ask(index, "counts", group, 20)
            self.ask(index, "stages")
            self.ask_about_some_rows(index)
            self.sides[0].rankings[index].check()

    def rankings_to_ask(self) -> list[int]:
        """The first each time, the second every other time, and so on, so that some have more to catch up with."""
        return [index for index in range(len(self.signatures)) if self.step % (index + 1) == 0]

    def groups_to_ask(self) -> list[int]:
        return list(range(-1, self.groups))

    def ask_about_some_rows(self, index: int) -> None:
        random = np.random.default_rng(self.step)
        rows = int32(random.integers(0, self.rows, self.step % 6))
        members = random.integers(0, 3, len(rows)) * random.choice([1.0, -1.0])
        self.ask(index, "judge", rows)
        for counted in (None, members):
            self.ask(index, "score_rows", rows, counted)
            self.ask(index, "parts", rows, counted)


class BigFleets(Agreement):
    """The same with trees of three and four levels; fewer questions, as the twin looks at every row for each."""

    sizes = st.integers(3000, 5000)
    most_rankings = 2

    def rankings_to_ask(self) -> list[int]:
        return [self.step % len(self.signatures)]

    def groups_to_ask(self) -> list[int]:
        return [self.step % (self.groups + 1) - 1]


def play(machine: type[Agreement], examples: int, steps: int) -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=quiet)
    run_state_machine_as_test(machine, settings=chosen)


def test_small_fleets_agree() -> None:
    play(Agreement, examples=60, steps=25)


def test_big_fleets_agree() -> None:
    play(BigFleets, examples=5, steps=12)


@pytest.mark.soak
def test_many_small_fleets_agree() -> None:
    play(Agreement, examples=1000, steps=60)


@pytest.mark.soak
def test_many_big_fleets_agree() -> None:
    play(BigFleets, examples=50, steps=40)
