"""The program of a member's guardian: waits for the member's process to end, and then ends the lease that it had last.
Run by its path with nothing but the standard library, so that it starts fast and stays small."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

PATIENCE: Final = 5.0
"""Seconds in which some endpoint has to answer; then the lease ends by itself."""
ATTEMPT: Final = 1.0
"""Seconds for one endpoint."""
_CHUNK: Final = 65_536


def main(process: int) -> None:
    """Guard a process, which says on standard input what it has: lines of JSON, the first one how etcd is reached, the
    others the number of the lease, 0 for none."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(0, False)
    heard = bytearray()
    with suppress(ProcessLookupError):
        watched = os.pidfd_open(process)
        if os.getppid() == process:  # else it has ended already, and the number may be another one's
            hear_until_its_end(watched, heard)
    while _hear(heard):
        pass
    settings, *leases = (json.loads(line) for line in bytes(heard).split(b"\n")[:-1] or [b"{}"])
    if leases and leases[-1]:
        revoke(settings, leases[-1])


def hear_until_its_end(watched: int, heard: bytearray) -> None:
    """Take up what a process says until it has ended; perhaps not the last of it."""
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        ready = {handle for handle, _ in poll.poll()}
        if watched in ready:
            return
        if not _hear(heard):
            poll.unregister(0)


def _hear(heard: bytearray) -> bool:
    """False at the end of what there is."""
    try:
        chunk = os.read(0, _CHUNK)
    except BlockingIOError:
        return False
    heard += chunk
    if b"\n" in chunk and heard.count(b"\n") > 2:  # how etcd is reached, and the last lease
        first, *_, last, rest = heard.split(b"\n")
        heard[:] = b"\n".join((first, last, rest))
    return bool(chunk)


def revoke(settings: dict[str, Any], lease: int) -> None:
    """End a lease at the first endpoint of etcd that does it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for endpoint in settings["endpoints"]:
            try:
                if _revoked(endpoint, settings, lease):
                    return
            except (OSError, ValueError, http.client.HTTPException):
                continue
        time.sleep(0.1)


def _revoked(endpoint: str, settings: dict[str, Any], lease: int) -> bool:
    url, headers = urlsplit(endpoint), {}
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        import ssl

        context = ssl.create_default_context()  # as the member's own client has it
        if settings["ca"] is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(settings["ca"])
        if settings["certificate"] is not None:
            context.load_cert_chain(settings["certificate"], settings["key"])
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=ATTEMPT, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=ATTEMPT)
    try:
        if settings["user"] is not None:
            password = ""
            if settings["password_file"] is not None:
                with open(settings["password_file"], encoding="utf-8") as file:
                    password = file.read().strip()
            who = {"name": settings["user"], "password": password}
            found = _asked(connection, "/v3/auth/authenticate", who, {})[1]
            if "token" in found:
                headers["authorization"] = str(found["token"])
            elif "authentication is not enabled" not in str(found.get("error")):
                raise ValueError(f"etcd answers {found!r}")
        status, found = _asked(connection, "/v3/lease/revoke", {"ID": str(lease)}, headers)
    finally:
        connection.close()
    return status == 200 or found.get("code") == 5  # it is gone


def _asked(
    connection: http.client.HTTPConnection, path: str, body: dict[str, str], headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    found = json.loads(answer.read(_CHUNK))
    if not isinstance(found, dict):
        raise ValueError(f"etcd answers {found!r}")
    return answer.status, found


if __name__ == "__main__":
    main(int(sys.argv[1]))
