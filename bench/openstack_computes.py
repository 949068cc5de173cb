"""Several nova-computes in one process, each with its own name, RPC servers, periodic tasks and row in Nova's table
``services``, for a cloud of many hosts with Nova's fake driver on one machine; for bench/openstack_cloud.py.

Run by the Python of an environment that holds nova:

    python openstack_computes.py HOST,HOST... --config-file FILE

The hosts are those beside the one that the file names.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from nova.cmd import compute


def main() -> None:
    """What nova-compute does, but that other services are started after its own; until the process is killed."""
    hosts, service = sys.argv.pop(1).split(","), compute.service

    def serve(server: Any, **_: object) -> None:
        server.start()
        for host in hosts:
            made = service.Service.create(
                host=host, binary=server.binary, topic=server.topic, topic_alt=server.topic_alt
            )
            made.start()

    service.serve, service.wait = serve, threading.Event().wait
    compute.main()


if __name__ == "__main__":
    main()
