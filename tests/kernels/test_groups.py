"""Members of server groups by row: the kernel's hash table against a dictionary."""

from __future__ import annotations

import random

import numpy as np

from hostler.placement.fleet.columns import ColumnStore


def test_a_large_group_counts_its_members_as_a_dictionary_does() -> None:
    store = ColumnStore(capacity=512)
    store.set_rows(512)
    kernel, chance = store.kernel, random.Random(5)
    kernel.add_shape(np.zeros(0, np.int32), np.zeros(0, np.int64), 0, 0, 0)
    groups = [kernel.add_group(2, 1), kernel.add_group(4, 1)]
    members: dict[int, dict[int, int]] = {group: {} for group in groups}
    largest = 0
    alive: list[tuple[int, int, int]] = []
    for step in range(6000):
        if not alive or chance.random() < (0.7 if step % 2000 < 1200 else 0.2):
            group, row = chance.choice(groups), chance.randrange(512)
            alive.append((kernel.add_consumer(1, step, row, 0, 0, 0, group, 0), group, row))
            members[group][row] = members[group].get(row, 0) + 1
        else:
            consumer, group, row = alive.pop(chance.randrange(len(alive)))
            kernel.drop_consumer(consumer)
            members[group][row] -= 1
            if not members[group][row]:
                del members[group][row]
        largest = max(largest, *map(len, members.values()))
        if step % 97 == 0:
            for each in groups:
                assert kernel.group(each)[2] == members[each]
                assert kernel.group_rows(each) == len(members[each])
                row = chance.randrange(512)
                assert kernel.group_members(each, row) == members[each].get(row, 0)
    assert largest > 100, "no group became large"
