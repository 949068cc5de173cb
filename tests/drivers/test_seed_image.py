"""Images of user data, read by programs that know nothing of Hostler."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hostler.drivers.compute.seed_image import seed_image

UUID = "5f0c1a8e-9a57-4d43-8f7e-5d0e6b1b7c11"


def _by_bsdtar(image: Path, name: str) -> bytes:
    return subprocess.run(["bsdtar", "-xOf", image, name], capture_output=True, check=True).stdout


def _by_isoinfo(image: Path, name: str) -> bytes:
    return subprocess.run(["isoinfo", "-J", "-i", image, "-x", f"/{name}"], capture_output=True, check=True).stdout


@pytest.mark.parametrize("size", [1, 2_046, 2_047, 2_048, 262_144])
@pytest.mark.parametrize("read", [_by_bsdtar, _by_isoinfo])
def test_both_files_are_read_as_they_are(read: Callable[[Path, str], bytes], size: int, tmp_path: Path) -> None:
    program = read.__name__.removeprefix("_by_")
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    text = "ü" + "x" * (size - 1)
    image = tmp_path / "seed.iso"
    image.write_bytes(seed_image(UUID, "web-1", text))
    assert image.stat().st_size % 2_048 == 0
    assert read(image, "user-data") == text.encode()
    assert json.loads(read(image, "meta-data")) == {"instance-id": UUID, "local-hostname": "web-1"}


@pytest.mark.skipif(shutil.which("blkid") is None, reason="blkid is not installed")
def test_it_has_the_label_that_cloud_init_looks_for(tmp_path: Path) -> None:
    image = tmp_path / "seed.iso"
    image.write_bytes(seed_image(UUID, "web-1", "x"))
    done = subprocess.run(["blkid", "-p", "-o", "export", image], capture_output=True, text=True, check=True)
    assert {"LABEL=cidata", "TYPE=iso9660"} <= set(done.stdout.split())


@pytest.mark.parametrize("name", ["a b", "-web", "web-", "x" * 64, "a\nb", "ünïcödé", ""])
def test_a_name_that_no_host_can_have_is_none(name: str) -> None:
    assert b"local-hostname" not in seed_image(UUID, name, "x")


def test_the_same_guest_has_the_same_image() -> None:
    assert seed_image(UUID, "web", "x") == seed_image(UUID, "web", "x")
