"""The pure-Python twin of _packed_decisions.pyx."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from .tables_py import format_uuid


def pack_decisions(
    labels: tuple[bytes, bytes, bytes, bytes, bytes],
    sequences: npt.NDArray[np.uint64],
    heads: list[bytes],
    places: list[bytes],
    amounts: list[bytes],
    hosts: list[str],
    nodes: list[str],
    uuids: npt.NDArray[np.uint64],
    providers: npt.NDArray[np.uint64],
    weights: npt.NDArray[np.float64],
    seeds: npt.NDArray[np.uint64],
) -> list[bytes]:
    """MessagePack of each of n decisions, with their numbers ``sequences``; see the kernel."""
    n = len(heads)
    columns = sequences, places, amounts, hosts, nodes, uuids, providers, weights, seeds
    if any(len(column) != n for column in columns) or uuids.shape[1:] != (2,) or providers.shape[1:] != (2,):
        raise ValueError("columns of decisions differ in length")
    first, before_host, before_node, before_provider, before_allocations = labels
    made = []
    for i in range(n):
        provider = _text(format_uuid(int(providers[i, 0]), int(providers[i, 1])))
        pieces = (
            *(first, _uint(int(sequences[i])), heads[i]),
            *(_text(format_uuid(int(uuids[i, 0]), int(uuids[i, 1]))), before_host),
            *(_text(hosts[i]), before_node),
            *(_text(nodes[i]), before_provider),
            *(provider, places[i]),
            *(struct.pack(">Bd", 0xCB, weights[i]), before_allocations),
            *(provider, amounts[i]),
            _uint(int(seeds[i])),
        )
        made.append(b"".join(pieces))
    return made


def _uint(value: int) -> bytes:
    if value < 1 << 7:
        return struct.pack(">B", value)
    for code, form, bits in ((0xCC, ">BB", 8), (0xCD, ">BH", 16), (0xCE, ">BI", 32)):
        if value < 1 << bits:
            return struct.pack(form, code, value)
    return struct.pack(">BQ", 0xCF, value)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 32:
        return struct.pack(">B", 0xA0 | len(data)) + data
    for code, form, bits in ((0xD9, ">BB", 8), (0xDA, ">BH", 16)):
        if len(data) < 1 << bits:
            return struct.pack(form, code, len(data)) + data
    return struct.pack(">BI", 0xDB, len(data)) + data
