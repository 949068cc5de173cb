"""A real Ironic as a process: API and conductor in one, sqlite, the driver fake-hardware, no identity service."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from hostler.bench import environments
from hostler.bench.free_ports import free_ports

from ..patience import HANG_SECONDS

IRONIC: Final = "ironic==39.0.0"
VERSION: Final = {"X-OpenStack-Ironic-API-Version": "1.61"}
_FAKE: Final = ("bios", "boot", "deploy", "firmware", "inspect", "management", "power", "raid", "vendor")
_SETTINGS = """
[DEFAULT]
auth_strategy = noauth
host = conductor-1
my_ip = 127.0.0.1
state_path = {folder}
tempdir = {folder}
log_file = {folder}/ironic.log
rpc_transport = none
enabled_hardware_types = fake-hardware
{interfaces}
enabled_console_interfaces = no-console
enabled_network_interfaces = noop
enabled_rescue_interfaces = no-rescue
enabled_storage_interfaces = noop
default_deploy_interface = fake
default_network_interface = noop
[api]
host_ip = 127.0.0.1
port = {port}
api_workers = 1
[conductor]
automated_clean = false
heartbeat_interval = 5
workers_pool_size = 60
[database]
connection = sqlite:///{folder}/ironic.sqlite
[sensor_data]
send_sensor_data = false
[oslo_messaging_notifications]
driver = noop
[deploy]
http_root = {folder}/http
[dhcp]
dhcp_provider = none
"""


@contextmanager
def ironic(folder: Path, nodes: int) -> Iterator[int]:
    """The port of its API, with nodes ``bm-1`` and so on; it is made from PyPI the first time."""
    python = environments.ready(environments.kept(IRONIC.replace("==", "-")), [IRONIC, "setuptools<81"])
    settings, (port,) = folder / "ironic.conf", free_ports(1)
    interfaces = "\n".join(f"enabled_{name}_interfaces = fake" for name in _FAKE)
    settings.write_text(_SETTINGS.format(folder=folder, port=port, interfaces=interfaces))
    configured, environment = ["--config-file", str(settings)], environments.clean()
    make = [str(python.with_name("ironic-dbsync")), *configured, "create_schema"]
    environments.run("ironic-dbsync create_schema", make, environment, folder)
    with (folder / "output").open("w") as output:
        command = [str(python.with_name("ironic")), *configured]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/", headers=VERSION, timeout=HANG_SECONDS) as client:
            _until(lambda: _alive(client, process))
            for number in range(1, nodes + 1):
                _enrol(client, number)
        yield port
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


def _enrol(client: httpx.Client, number: int) -> None:
    key, properties = f"00000000-0000-4000-9000-{number:012d}", {"cpus": 8, "memory_mb": 32_768, "local_gb": 100}
    node = {"uuid": key, "name": f"bm-{number}", "driver": "fake-hardware", "resource_class": "baremetal"}
    client.post("nodes", json={**node, "properties": properties}).raise_for_status()
    steps = (("provision", "manage", "manageable"), ("provision", "provide", "available"), ("power", "power off", ""))
    for what, target, state in steps:
        client.put(f"nodes/{key}/states/{what}", json={"target": target}).raise_for_status()
        wanted = {f"{what}_state": state or target}
        _until(lambda wanted=wanted: wanted.items() <= client.get(f"nodes/{key}").json().items())  # type: ignore[misc]  # mypy cannot infer a lambda with a default


def _alive(client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "ironic has ended"
    try:
        found: dict[str, Any] = client.get("conductors").json()
    except (httpx.HTTPError, ValueError):
        return False
    return any(each["alive"] for each in found.get("conductors", ()))


def _until(right: Callable[[], bool]) -> None:
    for _ in range(round(10 * HANG_SECONDS)):
        if right():
            return
        time.sleep(0.1)
    raise AssertionError("ironic did not become ready")
