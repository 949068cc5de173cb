"""docs/how-to/beside-nova.md and docs/inside-openstack.md: what they tell an operator to run is run, on databases of
Nova's tables and on the in-memory bus, in their order."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import httpx
import pytest
from oslo_config import cfg

from hostler.drivers.openstack.options import register
from tests.daemon.processes import HOSTLER

from ..patience import HANG_SECONDS
from .clouds import Cloud

DOCS = Path(__file__).parents[2] / "docs"
FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PAGE = "how-to/beside-nova.md"


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """Two hosts in an aggregate, each with a guest."""
    cloud = Cloud(tmp_path)
    for number in (1, 2):
        provider = cloud.host(number, seen=time.time())
        cloud.instance(number, number, provider)
    return cloud


@pytest.fixture
def folder(cloud: Cloud) -> Iterator[Path]:
    """Where the page is run: what it names in /etc and /var is here."""
    with tempfile.TemporaryDirectory(prefix="hostler-page-") as name:  # the path of a socket is short
        folder = Path(name)
        (folder / "placement.url").write_text(cloud.url("placement"))
        (folder / "nova_api.url").write_text(cloud.url("api"))
        (folder / "transport.url").write_text("fake://")
        (folder / "nova.conf").write_text("[filter_scheduler]\ncpu_weight_multiplier = 0.5\n")
        yield folder


def below(page: str, title: str) -> str:
    """What a page says below a heading."""
    _, _, after = (DOCS / page).read_text(encoding="utf-8").partition(f"\n{title}\n")
    assert after, title
    return after.partition("\n## ")[0]


def section(page: str, title: str) -> list[tuple[str, str]]:
    """The language and text of the blocks of a page below a heading."""
    return [(kind, dedent(block)) for _, kind, block in FENCED.findall(below(page, title))]


def here(text: str, folder: Path) -> str:
    """A command or a configuration of the page with its paths in the folder, and a free port."""
    for named in ("/var/lib/hostler", "/run/hostler"):
        text = text.replace(named, f"{folder}{'' if named.startswith('/run') else '/data'}")
    text = re.sub(r"/etc/(?:hostler|nova)/", f"{folder}/", text)
    return text.replace("0.0.0.0:8778", "127.0.0.1:0")


def command(text: str, folder: Path) -> list[str]:
    program, *words = shlex.split(here(text, folder))
    assert program == "hostler"
    return [str(HOSTLER), *words]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)


def test_nova_s_databases_are_imported_as_the_page_says(folder: Path) -> None:
    ((_, text),) = section(PAGE, "## Import a cloud")
    done = run(command(text, folder), folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "cloud.hostler").stat().st_size
    assert (folder / "report.json").exists()


@pytest.mark.parametrize(
    ("title", "bus"),
    [("## Replace nova-scheduler and Placement", "nova:nova/scheduler/"), ("## Replace Placement alone", "")],
)
def test_services_of_nova_are_replaced_as_the_page_says(folder: Path, title: str, bus: str) -> None:
    imported = re.search(r"`(hostler import openstack [^`]*)`", below(PAGE, title))
    assert imported is not None
    done = run(command(imported[1], folder), folder)
    assert done.returncode == 0, done.stderr
    (_, config), (_, serve) = section(PAGE, title)
    ((_, compare),) = section(PAGE, "## Compare a service with the cloud")
    if not bus:
        compare = compare.replace("--nova-api @nova_api.url ", "")
    (folder / "hostler.toml").write_text(here(config, folder))
    with (folder / "log").open("w") as log:
        words = [*command(serve, folder), "--rpc", f"unix:{folder}/hostler.sock"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("ready"), (folder / "log").read_text()[-3000:]
        assert bus in ready
        url = next(word for word in ready.split() if word.startswith("http://"))
        assert httpx.get(url).json()["versions"][0]["max_version"] == "1.39"
        assert httpx.get(f"{url}/resource_providers").status_code == 401
        done = run(command(compare, folder), folder)
        assert (done.returncode, done.stdout) == (0, "2 providers and 2 consumers compared: no difference\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()
    the_way_back_compares(folder)


def the_way_back_compares(folder: Path) -> None:
    """The service that ended is started for comparison, and what the page asks it says that nothing differs."""
    (_, serve), (_, manage), (_, compare) = section(PAGE, "## Go back")
    assert all(line.startswith("nova-manage placement ") for line in manage.splitlines())
    process = subprocess.Popen(command(serve, folder), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready unix:")
        done = run(command(compare, folder), folder)
        assert (done.returncode, done.stdout) == (0, "2 providers and 2 consumers compared: no difference\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("title", ["## Try it beside your Nova in ten minutes", "## Go live", "## Cinder"])
def test_the_options_of_a_page_are_read_by_oslo_config(title: str, tmp_path: Path) -> None:
    (text,) = (text for kind, text in section("inside-openstack.md", title) if kind == "ini")
    (tmp_path / "nova.conf").write_text(text)
    conf = cfg.ConfigOpts()
    register(conf)
    conf([], default_config_files=[str(tmp_path / "nova.conf")])
    named = re.findall(r"^(\w+) = (.*)$", text.partition("[hostler]")[2], re.MULTILINE)
    assert named
    read = {name: getattr(conf.hostler, name) for name, _ in named}
    assert dict(named) == {
        name: ",".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in read.items()
    }
