"""What Placement's database says is what the Placement API of an imported service answers: random clouds."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.host_view import HostView
from hostler.placement.load.reports import report_hosts
from hostler.placement.types.host import Host
from hostler.placement.types.host_report import HostReport
from tests.daemon.processes import Daemon
from tests.seeds import seeds

from .clouds import NOW, Cloud, instance_uuid, node_uuid
from .test_import_of_databases import cloud, taken

__all__ = ["cloud"]

FIGURES = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")
TOKEN = "a-token"
CONFIG = f"""
[placement]
auth = "static"
[[placement.tokens]]
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
user = "admin"
project = "admin"
roles = ["service", "admin"]
"""
State = dict[str, dict[str, Any]]


def figures(draw: random.Random) -> dict[str, Any]:
    total = draw.choice((1, 7, 64, 1_000, 2_000_000))
    return {
        "total": total,
        "reserved": draw.choice((0, 0, total // 3, total)),
        "min_unit": draw.randint(1, 3),
        "max_unit": draw.choice((total, 3, 2_147_483_647)),
        "step_size": draw.randint(1, 3),
        "allocation_ratio": draw.choice((1.0, 0.9, 4.0, 16.0, round(draw.uniform(0.1, 20), 3))),
    }


def fill(cloud: Cloud, draw: random.Random) -> State:
    """A random cloud; what its Placement should answer: providers, and consumers under their uuids."""
    wanted: State = {}
    rows: dict[str, int] = {}
    for number in range(1, draw.randint(4, 8)):
        rows[node_uuid(number)] = cloud.host(number, updated_at=None if draw.random() < 0.2 else "2026-09-21 00:00:00")
    for number in range(50, 50 + draw.randint(1, 6)):
        parent = draw.choice((None, *rows.values()))
        rows[node_uuid(number)] = cloud.provider(node_uuid(number), f"other {number}", {}, parent=parent)
    names = ("VCPU", "MEMORY_MB", "DISK_GB", "CUSTOM_A", "CUSTOM_B")
    for uuid, row in rows.items():
        given = {name: figures(draw) for name in names if draw.random() < 0.7}
        cloud.change(cloud.placement, "DELETE FROM inventories WHERE resource_provider_id = ?", row)
        for name, each in given.items():
            resource = cloud.resource_class(name)
            cloud.write(cloud.placement, "inventories", resource_provider_id=row, resource_class_id=resource, **each)
        generation = draw.randint(0, 500)
        cloud.change(cloud.placement, "UPDATE resource_providers SET generation = ? WHERE id = ?", generation, row)
        wanted[uuid] = {"generation": generation, "inventories": given}
    for number in range(draw.randint(5, 15)):
        uuid, host = instance_uuid(number), draw.choice((None, 1, 2, 3))
        cloud.instance(number, host, None)
        held = {each: wanted[each]["inventories"] for each in draw.sample(sorted(rows), draw.randint(1, 2))}
        allocations = {
            each: {name: draw.randint(1, 9) for name in draw.sample(sorted(there), draw.randint(1, len(there)))}
            for each, there in held.items()
            if there
        }
        kind = draw.choice((None, "INSTANCE", "MIGRATION"))
        for provider, amounts in allocations.items():
            cloud.allocate(uuid, rows[provider], amounts, kind=kind)
        if allocations:
            generation = draw.randint(1, 9)
            cloud.change(cloud.placement, "UPDATE consumers SET generation = ? WHERE uuid = ?", generation, uuid)
            wanted[uuid] = {"generation": generation, "type": kind, "allocations": allocations}
    return wanted


@pytest.mark.parametrize("seed", seeds(8, "import round trip"))
def test_a_fleet_has_the_figures_and_generations_of_placement(cloud: Cloud, tmp_path: Path, seed: int) -> None:
    wanted = fill(cloud, random.Random(seed))
    fleet, *_ = taken(cloud, tmp_path)
    fleet.check()
    nodes = [view.nodename for view in (HostView(fleet, int(row)) for row in np.flatnonzero(fleet.is_host))]
    bigger = [
        Host(host=name, vcpus_total=999, total_usable_ram_mb=99_999, total_usable_disk_gb=9_999) for name in nodes
    ]
    report_hosts(fleet, [HostReport(host=host, at=NOW + 60) for host in bigger])  # as computes do from now on
    fleet.check()
    model = PlacementModel(fleet)
    for uuid, each in wanted.items():
        if "inventories" in each:
            found = model.inventories(uuid)
            shown = {name: {key: getattr(line, key) for key in FIGURES} for name, line in found.inventories.items()}
            assert (found.generation, shown) == (each["generation"], each["inventories"])
        else:
            held = model.allocations(uuid)
            assert held is not None
            assert {name: amounts for name, (amounts, _) in held.allocations.items()} == each["allocations"]
            assert (held.generation, held.consumer_type) == (each["generation"], each["type"])


def test_the_api_of_an_imported_service_answers_what_placement_had(cloud: Cloud, tmp_path: Path) -> None:
    wanted = fill(cloud, random.Random(*seeds(1, "import and serve")))
    folder = tmp_path / "service"
    folder.mkdir()
    taken(cloud, tmp_path, *cloud.options, "--data", str(folder / "data"))
    headers = {"x-auth-token": TOKEN, "openstack-api-version": "placement 1.39"}
    with Daemon(folder, "--placement", "127.0.0.1:0", config=CONFIG) as daemon:
        address = next(each for each in daemon.ready if each.startswith(("127.0.0.1:", "http")))
        base = address if address.startswith("http") else f"http://{address}"
        with httpx.Client(base_url=base, headers=headers) as api:
            for uuid, each in wanted.items():
                if "inventories" in each:
                    found = api.get(f"/resource_providers/{uuid}/inventories").json()
                    generation, there = each["generation"], each["inventories"]
                    assert found == {"resource_provider_generation": generation, "inventories": there}
                    assert api.get(f"/resource_providers/{uuid}").json()["generation"] == generation
                else:
                    found = api.get(f"/allocations/{uuid}").json()
                    shown = {provider: line["resources"] for provider, line in found["allocations"].items()}
                    assert shown == each["allocations"]
                    kind = each["type"] or "unknown"
                    assert (found["consumer_generation"], found["consumer_type"]) == (each["generation"], kind)
                    assert {provider: line["generation"] for provider, line in found["allocations"].items()} == {
                        provider: wanted[provider]["generation"] for provider in shown
                    }
