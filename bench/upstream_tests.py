"""Runs tests of another project in this process, with Hostler in them, and prints what became of them as a line of
JSON. For the drivers of bench/nova_functional.py and bench/cinder_unit.py, in those projects' environments."""

from __future__ import annotations

import json
import os
import sys
import time
import unittest
from collections.abc import Iterable, Sequence
from typing import Any


def summed(registries: Iterable[Any]) -> dict[str, float]:
    """The counters of these registries of prometheus-client, added up; those that are 0 are left out."""
    total: dict[str, float] = {}
    for registry in registries:
        for family in registry.collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                    name = f"{sample.name.removeprefix('hostler_').removesuffix('_total')}{{{labels}}}"
                    total[name] = total.get(name, 0.0) + sample.value
    return {name: round(value, 3) for name, value in sorted(total.items()) if value}


def run(tests: Sequence[str], registries: Sequence[Any]) -> None:
    """Run tests by their dotted names, print the outcome, and end the process: threads of the tests may be left.
    ``registries``: those of the schedulers that the tests make, which may be added to meanwhile."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(tests)
    begun = time.process_time()
    result = unittest.TextTestRunner(stream=sys.stderr).run(suite)
    failed = sorted({test.id() for test, _ in (*result.failures, *result.errors)})
    outcome = {
        "run": result.testsRun,
        "passed": result.testsRun - len(failed) - len(result.skipped),
        "skipped": len(result.skipped),
        "failed": failed,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "metrics": summed(registries),
    }
    print(json.dumps(outcome), flush=True)
    os._exit(0)
