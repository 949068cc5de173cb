"""A guest on libvirt with a volume that it boots from on one back end and a data volume on another one: built, attached
while it runs, moved between two libvirtds, detached and torn down."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("libvirt", reason="libvirt-python is not installed")

from hostler import Flavor, Request, RequestSpec, Scheduler, open_scheduler  # after the skip
from hostler.core.lifecycle_commands import CreateVolume, SetBackend, guest_volume  # after the skip
from hostler.drivers import demo_cloud  # after the skip

from .test_iscsi import TGTD, Daemon  # after the skip

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="hosts are started by root"),
    pytest.mark.skipif(shutil.which("libvirtd") is None or TGTD is None, reason="libvirtd and tgtd are not installed"),
]
REQUEST = Request(spec=RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=64)), project_id="p")


@pytest.fixture
def config() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Two libvirtds as one back end, directories of qcow2 files as another, and tgt as a third."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostler-")))
        stack.callback(demo_cloud._end_guests, folder)
        for host in demo_cloud.HOSTS:
            stack.enter_context(demo_cloud._host(folder / host))
        for name in ("volumes", "images", "served"):
            (folder / name).mkdir()
        sector = (demo_cloud.LOOP + demo_cloud.BANNER + b"\0").ljust(510, b"\0") + b"\x55\xaa"
        (folder / "images" / "banner.raw").write_bytes(sector.ljust(1 << 20, b"\0"))
        daemon = Daemon(folder)
        daemon.start()
        stack.callback(daemon.kill)
        hosts = {
            "hosts": {host: demo_cloud._uri(folder / host) for host in demo_cloud.HOSTS},
            "migration_uris": dict.fromkeys(demo_cloud.HOSTS, "tcp://127.0.0.1"),
            "domain_type": "qemu",
            "machine": "pc",
            "unsafe_migration": True,
            "shutdown_seconds": 0.5,
            "poll": 1.0,
        }
        disks = {"pools": {"fast": str(folder / "volumes")}, "images": str(folder / "images"), "poll": 1.0}
        served = {
            "pools": {"far": str(folder / "served")},
            "portal": daemon.portal,
            "control": daemon.control,
            "socket": daemon.socket,
            "tgtadm": shutil.which("tgtadm", path=f"{os.environ['PATH']}:/usr/sbin"),
            "poll": 1.0,
        }
        backends = {
            "hosts": {"driver": "libvirt", "options": hosts},
            "disks": {"driver": "qcow2", "options": disks},
            "served": {"driver": "iscsi", "options": served},
        }
        yield folder, {"backends": backends}


async def settled(scheduler: Scheduler, uuid: str) -> Any:
    with trio.fail_after(120):
        return await scheduler.until_settled(uuid)


async def ready(scheduler: Scheduler) -> None:
    with trio.fail_after(120):
        while not all(each.inventories for each in scheduler.status().backends):  # noqa: ASYNC110  # no events
            await trio.sleep(0.1)


async def test_a_guest_with_volumes_of_two_back_ends_lives_and_moves(config: tuple[Path, dict[str, Any]]) -> None:
    folder, settings = config
    async with open_scheduler(settings) as scheduler:
        await ready(scheduler)
        await scheduler.submit(SetBackend(name="disks", enabled=False))
        data = (await scheduler.submit(CreateVolume(request=guest_volume(1, project_id="p").request))).selection
        await scheduler.submit(SetBackend(name="disks", enabled=True))
        await scheduler.submit(SetBackend(name="served", enabled=False))
        boot = guest_volume(1, image="banner.raw", project_id="p")
        decision = await scheduler.create_guest(REQUEST, volumes=(boot,))
        await scheduler.submit(SetBackend(name="served", enabled=True))
        uuid, node = decision.selections[0].instance_uuid, decision.selections[0].node
        found = await settled(scheduler, uuid)
        assert (found.status, found.node, found.reason) == ("active", node, None)
        assert len(list((folder / "volumes").iterdir())) == 1
        await ready(scheduler)
        await scheduler.attach_volume(uuid, data.volume_id)
        found = await settled(scheduler, uuid)
        assert (found.status, found.volumes[1:], found.reason) == ("active", [data.volume_id], None)
        await scheduler.move_guest(uuid)
        found = await settled(scheduler, uuid)
        assert found.reason is None
        assert (found.status, found.node == node, len(found.volumes)) == ("active", False, 2)
        await scheduler.stop_guest(uuid)
        await settled(scheduler, uuid)
        await scheduler.detach_volume(uuid, data.volume_id)
        found = await settled(scheduler, uuid)
        assert (found.status, len(found.volumes)) == ("stopped", 1)
        await scheduler.delete_guest(uuid)
        assert await settled(scheduler, uuid) is None
        assert list((folder / "volumes").iterdir()) == []
        assert [each for each in (folder / "served").iterdir() if data.volume_id in each.name], "it is of no guest"
