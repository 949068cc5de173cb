"""Transactions at an etcd on this machine by its JSON gateway, as the service sends them, and by gRPC.

    pip install grpcio && python -m hostler.bench.etcd_transports [--rounds 3]

One transaction after the other, of one key and of a hundred, of 512 bytes each: transactions a second, and CPU of this
process for each. grpcio needs asyncio or threads, so that the service, which runs on trio, would have to reach it
through a thread; here it blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import cyclopts
import trio

from hostler.core.etcd.client import Etcd
from hostler.core.etcd.values import put

from .etcd_servers import ETCD, EtcdServers

app = cyclopts.App(name="etcd_transports", help="etcd by its JSON gateway and by gRPC.")

VALUE: Final = bytes(range(256)) * 2
METHOD: Final = "/etcdserverpb.KV/Txn"
COUNTS: Final = {1: 400, 100: 60}
"""Transactions by the keys of each."""


def message(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that is bytes or a message."""
    length, sizes = len(content), bytearray()
    while length > 0x7F:
        sizes.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((number << 3 | 2, *sizes, length)) + content


def transaction(keys: list[bytes]) -> bytes:
    """A TxnRequest that puts keys: ``success`` (2), each a PutRequest (2) of ``key`` (1) and ``value`` (2)."""
    return b"".join(message(2, message(2, message(1, key) + message(2, VALUE))) for key in keys)


def by_grpc(target: str, keys: int, count: int) -> None:
    """So many transactions by gRPC."""
    grpc: Any = import_module("grpc")
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        for number in range(count):
            call(transaction([b"g%d-%d" % (number, each) for each in range(keys)]))


async def by_gateway(url: str, keys: int, count: int) -> None:
    """The same by the service's own client."""
    etcd = Etcd([url])
    for number in range(count):
        await etcd.transaction((), [put(f"h{number}-{each}", VALUE) for each in range(keys)])
    await etcd.close()


def measured(work: Callable[[], None], count: int) -> str:
    """What is told of work that does so many transactions."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    return f"{count / seconds:8.0f} a second, {1e6 * used / count:6.0f} us CPU each"


@app.default
def main(*, rounds: int = 3) -> int:
    """Measure both ways in turn."""
    if ETCD is None:
        raise SystemExit("etcd is not installed (Debian: etcd-server)")
    with TemporaryDirectory() as folder, EtcdServers(Path(folder), 1) as servers:
        url = servers.endpoints[0]
        for number in range(rounds):
            for keys, count in COUNTS.items():
                ways = {
                    "gRPC": partial(by_grpc, url.removeprefix("http://"), keys, count),
                    "gateway": partial(trio.run, by_gateway, url, keys, count),
                }
                for name, work in ways.items():
                    print(f"round {number + 1}, {keys:3} keys, {name:>7}: {measured(work, count)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(app(result_action="return_value"))
