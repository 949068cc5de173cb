"""Guests of libvirt that the host cannot start with another size. The test driver starts any."""

from __future__ import annotations

from typing import Any

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed")

from hostler.drivers.compute import libvirt as driver_module  # noqa: E402  # after the skip
from hostler.drivers.compute import libvirt_host as host_module  # noqa: E402  # after the skip
from hostler.drivers.conformance import ComputeBench  # noqa: E402  # after the skip
from hostler.drivers.protocol import Capacity, DriverError, Permanent  # noqa: E402  # after the skip

from .test_libvirt import URI, _error, open_driver  # noqa: E402  # after the skip


class Scarce:
    """A connection, or a domain of it, to a host on which no domain of more than 1 GiB starts."""

    def __init__(self, thing: Any, error: Any) -> None:
        self._thing, self._error = thing, error

    def create(self) -> int:
        if self._thing.maxMemory() > 1024**2:
            raise self._error
        return int(self._thing.create())

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._thing, name)

        def request(*arguments: Any) -> Any:
            answer = method(*arguments)
            parts = answer if isinstance(answer, list) else [answer]
            scarce = [Scarce(each, self._error) if isinstance(each, libvirt.virDomain) else each for each in parts]
            return scarce if isinstance(answer, list) else scarce[0]

        return request


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("cannot set up guest memory 'pc.ram': Cannot allocate memory", Capacity),
        ("process exited while connecting to monitor", Permanent),
    ],
)
async def test_a_guest_that_does_not_start_with_another_size_runs_with_its_own(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: type[DriverError]
) -> None:
    """libvirt defines any size: only the start finds that the host cannot give it."""
    keep, connect, error = libvirt.open(URI), host_module._connect, _error(1, text)
    error.args = (text,)  # libvirt sets that of the last error of the process
    monkeypatch.setattr(host_module, "_connect", lambda uri: Scarce(connect(uri), error))
    options = {"uri": URI, "node": "host", "domain_type": "test", "shutdown_seconds": 0.0}
    bench = ComputeBench(open=lambda context: open_driver(options, context), node="host")
    async with bench.driver() as driver:
        assert isinstance(driver, driver_module.LibvirtDriver)
        spec = bench.spec()
        made = await driver.create_guest(spec)
        with pytest.raises(kind):
            await driver.resize_guest(spec.mark.uuid, made.vcpus, 2_048)
        assert await driver.get_guest(spec.mark.uuid) == made
        assert made.state == "on"
        await driver.delete_guest(spec.mark.uuid)
    keep.close()
