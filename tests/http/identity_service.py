"""A real Keystone as a process: sqlite, fernet tokens, its WSGI application on the standard library's server."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from hostler.bench import environments
from hostler.bench.free_ports import free_ports

from ..patience import HANG_SECONDS

KEYSTONE: Final = "keystone==30.0.0"
PASSWORD: Final = "s3cret"

TOKENS_LAST: Final = 20
"""Seconds."""

_SETTINGS = """
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.sqlite
[fernet_tokens]
key_repository = {folder}/fernet
[token]
expiration = {expiration}
"""

_PROGRAM = """
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server
port, sys.argv = int(sys.argv[1]), ["keystone"]
from keystone.wsgi.api import application
class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
make_server("127.0.0.1", port, application, Server).serve_forever()
"""


@contextmanager
def keystone(folder: Path) -> Iterator[str]:
    """The address of its API, with the user ``admin`` in the project ``admin``; it is made from PyPI the first time."""
    python = environments.ready(environments.kept(KEYSTONE.replace("==", "-")), [KEYSTONE])
    settings, (port,) = folder / "keystone.conf", free_ports(1)
    url = f"http://127.0.0.1:{port}/v3"
    settings.write_text(_SETTINGS.format(folder=folder, expiration=TOKENS_LAST))
    (folder / "fernet").mkdir(mode=0o700)
    environment = environments.clean() | {"OS_KEYSTONE_CONFIG_FILES": str(settings)}
    me = ["--keystone-user", pwd.getpwuid(os.getuid()).pw_name, "--keystone-group", grp.getgrgid(os.getgid()).gr_name]
    admin = ["--bootstrap-password", PASSWORD, "--bootstrap-public-url", url, "--bootstrap-region-id", "here"]
    for words in (["db_sync"], ["fernet_setup", *me], ["bootstrap", *admin]):
        manage = [str(python.with_name("keystone-manage")), "--config-file", str(settings), *words]
        environments.run(f"keystone-manage {words[0]}", manage, environment, folder)
    with (folder / "output").open("w") as output:
        command = [str(python), "-c", _PROGRAM, str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)
    try:
        _wait(process, url, folder / "output")
        yield url
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


def _wait(process: subprocess.Popen[bytes], url: str, output: Path) -> None:
    for _ in range(round(10 * HANG_SECONDS)):
        assert process.poll() is None, output.read_text()
        try:
            if httpx.get(url, timeout=HANG_SECONDS).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(output.read_text())
