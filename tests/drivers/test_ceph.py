"""The ceph driver passes the conformance suite on a small cluster of Ceph, by the real programs. Its errors are tested
with programs that print and end as the real ones do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hostler.drivers.conformance import StorageBench, StorageConformance
from hostler.drivers.conformance.bench import OURS, all_of
from hostler.drivers.protocol import (
    Capacity,
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Quota,
    Transient,
    Unknown,
)
from hostler.drivers.storage import ceph
from hostler.placement.types.errors import InvalidValue

from . import ceph_cluster


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The configuration of a cluster."""
    if ceph_cluster.missing():
        pytest.skip(f"{', '.join(ceph_cluster.missing())} are not installed")
    if os.geteuid() != 0:
        pytest.skip("the daemons are started by root")
    try:
        with ceph_cluster.running(tmp_path_factory.mktemp("ceph")) as conf:
            yield conf
    except (TimeoutError, subprocess.SubprocessError) as error:
        pytest.skip(f"Ceph does not start here: {error}")


def bench_of(conf: Path, folder: Path) -> StorageBench:
    lost, real = folder / "lost", folder / "rbd"
    real.write_text(
        f'#!/bin/sh\nrbd "$@"\ncode=$?\ncase $1 in create|rm) [ ! -e {lost} ] || exit 110;; esac\nexit $code\n'
    )
    real.chmod(0o755)

    @contextmanager
    def lose_answers() -> Iterator[None]:
        lost.touch()
        try:
            yield
        finally:
            lost.unlink()

    async def make_stranger() -> str:
        await trio.run_process(["rbd", "--conf", str(conf), "create", "volumes/theirs", "--size", "1M"])
        return "theirs"

    options = {"pools": {"fast": "volumes"}, "conf": str(conf), "rbd": str(real)}
    return StorageBench(
        open=lambda context: ceph.open_driver(options, context),
        pool="fast",
        lose_answers=lose_answers,
        make_stranger=make_stranger,
        page=3,
    )


@pytest.mark.soak  # a process for each call
class TestCephStores(StorageConformance):
    @pytest.fixture
    def bench(self, conf: Path, tmp_path: Path) -> StorageBench:
        return bench_of(conf, tmp_path)


async def test_a_volume_is_a_clone_of_its_image_and_can_be_attached(conf: Path, tmp_path: Path) -> None:
    bench = bench_of(conf, tmp_path)

    async def rbd(*command: str) -> None:
        await trio.run_process(["rbd", "--conf", str(conf), *command], capture_stdout=True, capture_stderr=True)

    await rbd("create", "volumes/debian", "--size", "1G")
    await rbd("snap", "create", "volumes/debian@12")
    async with bench.driver() as driver:
        (before,) = await all_of(driver.pools())
        spec = bench.spec(size_gb=2)._replace(image="volumes/debian@12")
        made = await driver.create_volume(spec)
        assert (made.size_gb, made.mark, made.state) == (2, spec.mark, "available")
        assert await driver.create_volume(spec) == made
        connection = await driver.connect(spec.mark.uuid, "node")
        assert (connection.protocol, connection.address) == ("rbd", f"volumes/{made.name}")
        assert connection.options["hosts"].startswith("127.0.0.1:")
        await rbd("snap", "create", f"{connection.address}@s")
        with pytest.raises(Conflict, match="snapshots"):
            await driver.delete_volume(spec.mark.uuid)
        await rbd("snap", "rm", f"{connection.address}@s")
        await driver.delete_volume(spec.mark.uuid)
        with pytest.raises(NotFound):
            await driver.create_volume(bench.spec()._replace(image="volumes/none@1"))
        (pool,) = await all_of(driver.pools())
        assert (pool.thin, pool.provisioned_gb) == (True, before.provisioned_gb)
        assert pool.total_gb >= pool.free_gb > 0


UUID = "5f0c1a8e-9a57-4d43-8f7e-5d0e6b1b7c11"

# programs that fail as the real ones do


def options_of(folder: Path, *, command: str = "create", code: int = 0, text: str = "") -> dict[str, Any]:
    """Programs of which ``command`` ends with a code."""
    for name, answers in (
        ("rbd", "ls) echo '[]';;"),
        ("ceph", """version) echo '{"version": "16"}';;\n mon) echo '{"mons": []}';;\n df) echo '{"pools": []}';;"""),
    ):
        script = folder / name
        script.write_text(f'#!/bin/sh\ncase $1 in\n {command}) echo "{text}" >&2; exit {code};;\n {answers}\nesac\n')
        script.chmod(0o755)
    return {"pools": {"fast": "volumes"}, "rbd": str(folder / "rbd"), "ceph": str(folder / "ceph")}


def bench_that_fails(folder: Path, **how: Any) -> StorageBench:
    options = options_of(folder, **how)
    return StorageBench(open=lambda context: ceph.open_driver(options, context), pool="fast")


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (1, "rbd: couldn't connect to the cluster!", Transient),
        (1, "monclient: authenticate NOTE: no keyring found", Denied),
        (1, "rbd: unrecognised option '--x'", Permanent),
        (1, "", Unknown),
        (2, "error opening pool", NotFound),
        (13, "", Denied),
        (22, "", Permanent),
        (28, "", Capacity),
        (108, "", Transient),
        (110, "", Unknown),
        (122, "", Quota),
        (137, "", Unknown),
    ],
)
async def test_each_exit_code_of_a_change_has_its_class(
    tmp_path: Path, code: int, text: str, kind: type[DriverError]
) -> None:
    bench = bench_that_fails(tmp_path, code=code, text=text)
    async with bench.driver() as driver:
        with pytest.raises(DriverError) as caught:
            await driver.create_volume(bench.spec())
        assert (type(caught.value), caught.value.backend_code) == (kind, str(code))


@pytest.mark.parametrize(("code", "kind"), [(16, Conflict), (39, Conflict), (110, Transient)])
async def test_what_only_reads_is_of_no_unknown_outcome(tmp_path: Path, code: int, kind: type[DriverError]) -> None:
    bench = bench_that_fails(tmp_path, command="ls", code=code)
    with pytest.raises(kind):
        async with bench.driver():
            pass


async def test_a_pool_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with bench_that_fails(tmp_path).driver() as driver:
        with pytest.raises(NotFound, match="no pool volumes"):
            await all_of(driver.pools())


async def test_a_pool_that_is_gone_says_nothing_of_its_volumes(tmp_path: Path) -> None:
    async with bench_that_fails(tmp_path).driver() as driver:
        options_of(tmp_path, command="ls", code=2, text="error opening pool 'volumes'")
        for call in (lambda: driver.get_volume(OURS), lambda: driver.delete_volume(OURS), driver.check):
            with pytest.raises(NotFound if call == driver.check else Transient):
                await call()


async def test_a_missing_program_and_a_long_id_are_said(tmp_path: Path) -> None:
    options = options_of(tmp_path)
    with pytest.raises(Permanent, match="install ceph-common"):
        async with ceph.open_driver({**options, "ceph": "no-such-ceph"}, DriverContext("a", OURS)):
            pass
    with pytest.raises(InvalidValue, match="longer than 32"):
        async with ceph.open_driver(options, DriverContext("a", "b" * 33)):
            pass
    with pytest.raises(InvalidValue):
        async with ceph.open_driver({**options, "pools": {}}, DriverContext("a", OURS)):
            pass


@pytest.mark.parametrize(
    "image",
    ["debian", "--help", "-c/a@b", "volumes/-x@1", f"volumes/hostler_{OURS}_{UUID}_1@s", "a/b@c\n", "a/../b@c"],
)
async def test_what_is_no_name_of_an_image_or_that_of_a_volume_is_not_found(tmp_path: Path, image: str) -> None:
    """The programs say yes to whatever they are asked."""
    bench = bench_that_fails(tmp_path)
    async with bench.driver() as driver:
        with pytest.raises(NotFound, match="no image"):
            await driver.create_volume(bench.spec()._replace(image=image))
