"""Whether memory follows what there is, not what there was: changes with names that never occur again, of a fleet and
of a service's state machine, each of which leaves nothing behind.

python -m hostler.bench.growth [--changes 1000000] [--only NAME ...]

Each kind of change runs in a process of its own, for its share of the changes: the cheap ones for twenty times as many
as the others. Caches are bounded by bytes; here to a sixteenth, so that they are full soon, and memory must stay from
then on. A line says: CPU time of a change in the second and in the last tenth; resident memory, in MiB, after one, two,
four and ten tenths of the changes; and bytes a change of growth over the second half. Exit code 1 if one grows.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hostler.core import engine_commands, storage_commands
from hostler.core.machine import state
from hostler.placement.decide import compiled_filter, kept_rules, signature_cache
from hostler.placement.request import preparation
from hostler.placement.storage import by_class, compiled, context
from hostler.placement.storage.pools import pool_classes

from . import growth_changes, growth_commands

CACHES: Final = (
    (engine_commands, "SPECS_BYTES"),
    (storage_commands, "SPECS_BYTES"),
    (state, "POOLED_BYTES"),
    (preparation, "SPECS_BYTES"),
    (signature_cache, "SPEC_BYTES"),
    (signature_cache, "SIGNATURES"),
    (compiled_filter, "MAX_RESULTS"),
    (compiled, "SPECS_BYTES"),
    (compiled, "SHARED_BYTES"),
    (compiled, "SIGNATURES"),
    (compiled, "CLASS_BYTES"),
    (by_class, "TEMPLATES"),
    (by_class, "RANKINGS_BYTES"),
    (by_class, "STAGES_BYTES"),
    (pool_classes, "MOST_READ"),
    (pool_classes, "MOST_VERDICTS"),
    (context, "CHECKED_BYTES"),
    (kept_rules, "KEPT"),
    (kept_rules, "KEPT_BYTES"),
)
"""Bounds of caches: modules and names."""
PART: Final = 16
CHEAP: Final = frozenset(
    [
        "library.placed",
        "library.moved",
        "library.allocated",
        "library.grouped",
        "library.hosted",
        "library.stored",
        "library.backed",
        "service.placed",
        "service.held",
        "service.stored",
        "service.backed",
        "service.grouped",
        "service.claimed_in_a_region",
    ]
)
OFTEN: Final = 20
TENTHS: Final = 10
SHOWN: Final = (1, 2, 4, 10)
MAY_GROW: Final = 8 << 20
"""Bytes by which memory may differ after the second half: caches that are filled again, and how the allocator packs."""


def kinds() -> dict[str, tuple[Callable[[], Any], Callable[[Any, int], None]]]:
    """By name: what makes the state, and the change."""
    library = {f"library.{name}": (growth_changes.Library, each) for name, each in growth_changes.CHANGES.items()}
    service = {f"service.{name}": (growth_commands.Commands, each) for name, each in growth_commands.CHANGES.items()}
    return {**library, **service}


def share(name: str, changes: int) -> int:
    """How many of all changes are of a kind."""
    parts = len(kinds()) + (OFTEN - 1) * len(CHEAP)
    return changes * (OFTEN if name in CHEAP else 1) // parts


def cut_caches() -> None:
    """Bound the caches of what is made from now on to a part."""
    for module, bound in CACHES:
        setattr(module, bound, getattr(module, bound) // PART)


def run(name: str, count: int) -> dict[str, Any]:
    """One kind: resident bytes after each tenth, and CPU seconds of each."""
    cut_caches()
    make, change = kinds()[name]
    it, number = make(), 0
    resident, seconds = [], []
    for tenth in range(1, TENTHS + 1):
        began = time.process_time()
        while number < count * tenth // TENTHS:
            change(it, number)
            number += 1
        seconds.append(time.process_time() - began)
        gc.collect()
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    (it.machine.state if isinstance(it, growth_commands.Commands) else it).fleet.check()
    return {"resident": resident, "seconds": seconds}


def line(name: str, count: int, found: dict[str, Any]) -> tuple[str, bool]:
    """What is said of a kind, and whether it grows."""
    resident, seconds = found["resident"], found["seconds"]
    grown = resident[-1] - min(resident[TENTHS // 2 - 1 : TENTHS // 2 + 1])
    each = TENTHS * 1e6 / count
    sizes = " ".join(f"{resident[tenth - 1] / 2**20:7.1f}" for tenth in SHOWN)
    text = f"{name:30}{count:9}{seconds[1] * each:9.0f}{seconds[-1] * each:9.0f}   {sizes}{2 * grown / count:9.1f}"
    return text, grown > MAY_GROW


def main() -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=10**6, help="in all")
    parser.add_argument("--only", nargs="*", default=[], help="kinds; each has the same share as without")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.kind is not None:
        print(json.dumps(run(given.kind, given.changes)))
        return 0
    grew = False
    print(
        f"{'change':30}{'number':>9}{'us, 2nd':>9}{'us, last':>9}   MiB after 1, 2, 4 and 10 tenths   bytes a change",
        flush=True,
    )
    for name in given.only or kinds():
        count = share(name, given.changes)
        command = [sys.executable, "-m", "hostler.bench.growth", "--kind", name, "--changes", str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        text, grows = line(name, count, json.loads(done.stdout))
        print(text + ("   GROWS" if grows else ""), flush=True)
        grew |= grows
    return int(grew)


if __name__ == "__main__":
    sys.exit(main())
