"""Uuids that collide under an unkeyed hash cost no more than any others."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from hostler.ext.tables import UuidTable, format_uuid

K1, K2, WORD = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, (1 << 64) - 1
INVERSE = pow(K1, -1, 1 << 64)


def colliding(count: int) -> np.ndarray:
    """Uuids whose words, mixed by two public odd factors, are all the same."""
    chance, found = random.Random(1), np.empty((count, 2), np.uint64)
    for position in range(count):
        low = chance.getrandbits(64)
        turned = ((low << 32) | (low >> 32)) & WORD
        found[position] = ((12345 ^ (turned * K2 & WORD)) * INVERSE & WORD, low)
    return found


def test_chosen_uuids_do_not_degrade_the_table() -> None:
    words = colliding(100_000)  # minutes if they all collided
    table = UuidTable()
    table.add_many(words, np.arange(len(words), dtype=np.int32))
    assert table.get(format_uuid(*map(int, words[4321]))) == 4321
    assert table.pop(format_uuid(*map(int, words[99_999]))) == 99_999
    table.check()


@pytest.mark.parametrize("seed", ["0", "1"])
def test_answers_are_the_same_under_every_key(seed: str) -> None:
    code = (
        "from hostler import *\n"
        "f = Fleet(); add_hosts(f, [Host(host=f'n{i}', vcpus_total=4, total_usable_ram_mb=4096) for i in range(50)])\n"
        "e = Engine(f); s = RequestSpec(flavor=Flavor(name='f', vcpus=1, memory_mb=512))\n"
        "d = e.place_many([Request(spec=s, project_id=f'p{i}') for i in range(150)])\n"
        "print([x.host for x in d], d.uuids())\n"
    )
    runs = {subprocess.check_output([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}) for _ in range(2)}
    assert len(runs) == 1
