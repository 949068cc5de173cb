"""TLS between a member and etcd: certificates that one of them does not accept, as the member starts and while it runs;
it says so, and goes on by itself once the files are mended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hostler.core.errors import NotLeader
from hostler.placement.types.errors import HostlerError

from ..daemon.processes import Daemon, http_of
from ..etcd.servers import NEEDS_ETCD, EtcdServers
from ..rpc.serving import Authority
from .members import until
from .test_etcd_refuses import begun, check_goes_on, check_waits, troubles

pytestmark = [NEEDS_ETCD, pytest.mark.xdist_group("etcd")]

FAULTS = {
    "the member trusts another authority": "unable to get local issuer certificate",
    "etcd's authority is another one": "unable to get local issuer certificate",
    "etcd's certificate is out of date": "certificate has expired",
    "etcd's certificate is another host's": "Hostname mismatch",
    "etcd does not accept the member's": "it does not accept this member's certificate",
}


class Files:
    """The files that etcd and the member use, and what can be wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("right", "wrong", "third")
        for name in names:
            (folder / name).mkdir()
        right, wrong, third = (Authority(folder / name, name) for name in names)
        self._cas = (right.ca, wrong.ca)
        self._servers = {
            "": right.sign("localhost"),
            "etcd's certificate is out of date": right.sign("localhost", expired=True),
            "etcd's certificate is another host's": right.sign("elsewhere"),
            "etcd's authority is another one": third.sign("localhost"),
        }
        self._clients = (right.sign("member"), wrong.sign("member"))
        self.ca, self.client_ca = folder / "ca.pem", right.ca
        self.etcd = folder / "etcd.pem", folder / "etcd.key"
        self.member = folder / "member.pem", folder / "member.key"
        self.have("")

    def have(self, fault: str) -> None:
        """Replace the files by those with a fault, or with none."""
        for source, target in zip(self._servers.get(fault, self._servers[""]), self.etcd, strict=True):
            _replace(source, target)
        _replace(self._cas["trusts another" in fault], self.ca)
        for source, target in zip(self._clients["the member's" in fault], self.member, strict=True):
            _replace(source, target)


def _replace(source: Path, target: Path) -> None:
    new = target.with_suffix(".new")
    shutil.copy(source, new)
    new.rename(target)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def etcd(files: Files) -> Iterator[EtcdServers]:
    (files.folder / "etcd").mkdir()
    with EtcdServers(files.folder / "etcd", 1, tls=files.etcd, client_ca=files.client_ca) as servers:
        yield servers


def trouble(daemon: Daemon) -> str:
    return str(httpx.get(f"{http_of(daemon)}/readyz").json().get("trouble", ""))


def add_host(daemon: Daemon, name: str, within: float = 20.0) -> None:
    with daemon.client(within=within) as client:
        client.call("add_hosts", {"hosts": [{"host": name, "vcpus_total": 8, "total_usable_ram_mb": 8_192}]})


def test_a_member_names_what_is_wrong_with_certificates_and_goes_on_once_they_are_mended(
    files: Files, etcd: EtcdServers
) -> None:
    more = f'ca = "{files.ca}"\ncertificate = "{files.member[0]}"\nkey = "{files.member[1]}"'
    (files.folder / "a").mkdir()
    first, *others = FAULTS
    files.have(first)
    with begun(files.folder / "a", etcd, more, scheme="https") as daemon:
        check_waits(daemon, "untrusted", FAULTS[first])
        for fault in others:
            files.have(fault)
            until(lambda fault=fault: FAULTS[fault] in trouble(daemon))  # type: ignore[misc]  # a default
        files.have("")
        check_goes_on(daemon)
        for number, fault in enumerate(others[1::2]):
            before = daemon.log().count("were read again")
            files.have(fault)
            until(lambda before=before: daemon.log().count("were read again") > before)  # type: ignore[misc]
            etcd.kill(0)
            etcd.start(0)
            until(lambda fault=fault: FAULTS[fault] in trouble(daemon))  # type: ignore[misc]
            until(lambda: troubles(daemon) == {"untrusted"})
            with pytest.raises(HostlerError) as caught, daemon.client(within=1) as client:
                client.call("remove_host", {"name": "h0"})
            assert isinstance(caught.value, NotLeader) or caught.value.code in ("deadline_exceeded", "storage_failed")
            with daemon.client() as client:
                assert len(client.call("hosts")) == 1 + number
            files.have("")
            until(lambda: httpx.get(f"{http_of(daemon)}/readyz").status_code == 200)
            add_host(daemon, f"later-{number}")
            until(lambda: "untrusted" not in troubles(daemon))
        assert "this member's entry in etcd could not be refreshed: no TLS with etcd" in daemon.log()
        assert "Traceback" not in daemon.log()
