"""A model of etcd for fast tests: the part of its JSON gateway that Hostler uses, as plain dictionaries in one process.
``test_client`` checks it against real servers. It fails as they do: out of reach, full, compacted, a lease gone, or
with the answer lost after the work is done."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

Json = dict[str, Any]
NO_SPACE = (429, 8, "etcdserver: mvcc: database space exceeded")
LEASE_GONE = (404, 5, "etcdserver: requested lease not found")
COMPACTED = (400, 11, "etcdserver: mvcc: required revision has been compacted")
TOO_LARGE = (400, 3, "etcdserver: request is too large")
REQUEST_LIMIT = 1_572_864


class Refusal(Exception):
    """An answer that is not 200."""


@dataclass
class Entry:
    """A key's value and numbers."""

    value: bytes
    created: int
    modified: int
    version: int
    lease: int


@dataclass
class Lease:
    """Seconds, and when they end on trio's clock."""

    seconds: int
    ends: float
    keys: set[bytes] = field(default_factory=set)


class EtcdModel(httpx.AsyncBaseTransport):
    """One cluster. Give it to ``Etcd`` as ``transport``. ``least_ttl``: as etcd raises the seconds of a lease."""

    def __init__(self, *, least_ttl: int = 1) -> None:
        self.revision, self.compacted, self.least_ttl = 1, 0, least_ttl
        self.keys: dict[bytes, Entry] = {}
        self.leases: dict[int, Lease] = {}
        self.history: list[tuple[int, bool, bytes, Entry]] = []
        self.full = False
        self.cut: set[str] = set()
        """Hosts (of the URL) that do not answer."""
        self.lose_answer: Callable[[str], bool] = lambda path: False
        """True for a request whose answer is lost after it was carried out."""
        self.requests: list[str] = []
        self._next_lease = 7_000
        self._changed = trio.Event()

    # transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        path, body = request.url.path, json.loads(await request.aread() or b"{}")
        self.requests.append(path)
        if request.url.host in self.cut:
            raise httpx.ConnectError("the model is cut off")
        self._expire()
        if path == "/v3/watch":
            return httpx.Response(200, stream=_Lines(self._watch(request.url.host, body["create_request"])))
        try:
            found = self._answer(path, body)
        except Refusal as refusal:
            status, code, text = refusal.args
            return httpx.Response(status, json={"error": text, "message": text, "code": code})
        if self.lose_answer(path):
            raise httpx.ReadError("the answer was lost")
        return httpx.Response(200, json=found)

    def _answer(self, path: str, body: Json) -> Json:
        header = {"header": {"revision": str(self.revision)}}
        match path:
            case "/v3/kv/txn":
                return self._transaction(body)
            case "/v3/kv/range":
                return header | self._range(body)
            case "/v3/kv/compaction":
                revision = int(body["revision"])
                if revision <= self.compacted:
                    raise Refusal(*COMPACTED)
                self.compacted = revision
                self.history = [each for each in self.history if each[0] > revision]
                return header
            case "/v3/lease/grant":
                if self.full:
                    raise Refusal(*NO_SPACE)
                self._next_lease += 1
                seconds = max(int(body["TTL"]), self.least_ttl)
                self.leases[self._next_lease] = Lease(seconds, trio.current_time() + seconds)
                return header | {"ID": str(self._next_lease), "TTL": str(seconds)}
            case "/v3/lease/keepalive":
                lease = self.leases.get(int(body["ID"]))
                if lease is None:
                    return {"result": header | {"ID": body["ID"]}}
                lease.ends = trio.current_time() + lease.seconds
                return {"result": header | {"ID": body["ID"], "TTL": str(lease.seconds)}}
            case "/v3/lease/revoke":
                if int(body["ID"]) not in self.leases:
                    raise Refusal(*LEASE_GONE)
                self._end(int(body["ID"]))
                return header
            case "/v3/maintenance/status":
                size = sum(len(entry.value) for _, _, _, entry in self.history)
                return header | {"dbSize": str(size), "dbSizeInUse": str(size)}
        raise Refusal(404, 5, "Not Found")

    # leases

    def _expire(self) -> None:
        for number in [each for each, lease in self.leases.items() if lease.ends <= trio.current_time()]:
            self._end(number)

    def _end(self, number: int) -> None:
        lease = self.leases.pop(number)
        if lease.keys:
            self.revision += 1
        for key in sorted(lease.keys):
            self._delete(key)

    # keys

    def _transaction(self, body: Json) -> Json:
        if len(json.dumps(body)) * 3 // 4 > REQUEST_LIMIT:
            raise Refusal(*TOO_LARGE)
        held = all(self._holds(each) for each in body.get("compare", ()))
        operations = body.get("success" if held else "failure", ())
        puts = [each["request_put"] for each in operations if "request_put" in each]
        if self.full and puts:
            raise Refusal(*NO_SPACE)
        if any(int(each.get("lease", 0)) not in {0, *self.leases} for each in puts):
            raise Refusal(*LEASE_GONE)
        writes = bool(puts) or any(
            self._keys(each["request_delete_range"]) for each in operations if "request_delete_range" in each
        )
        if writes:
            self.revision += 1
        found: Json = {"responses": [self._operation(each) for each in operations]}
        if held:
            found["succeeded"] = True
        return {"header": {"revision": str(self.revision)}} | found

    def _holds(self, compare: Json) -> bool:
        entry = self.keys.get(b64decode(compare["key"]))
        if compare["target"] == "CREATE":
            return (entry.created if entry else 0) == int(compare["create_revision"])
        assert compare["target"] == "MOD"
        return (entry.modified if entry else 0) == int(compare["mod_revision"])

    def _operation(self, operation: Json) -> Json:
        if "request_put" in operation:
            body = operation["request_put"]
            self._put(b64decode(body["key"]), b64decode(body["value"]), int(body.get("lease", 0)))
            return {"response_put": {}}
        if "request_range" in operation:
            return {"response_range": self._range(operation["request_range"])}
        for key in self._keys(operation["request_delete_range"]):
            self._delete(key)
        return {"response_delete_range": {}}

    def _keys(self, body: Json) -> list[bytes]:
        key = b64decode(body["key"])
        if "range_end" not in body:
            return [key] if key in self.keys else []
        end = b64decode(body["range_end"])
        return sorted(each for each in self.keys if key <= each < end)

    def _range(self, body: Json) -> Json:
        found = self._keys(body)
        if body.get("sort_order") == "DESCEND":
            found.reverse()
        if int(body.get("limit", 0)):
            found = found[: int(body["limit"])]
        return {"kvs": [_shown(key, self.keys[key]) for key in found]} if found else {}

    def _put(self, key: bytes, value: bytes, lease: int) -> None:
        old = self.keys.get(key)
        created, version = (old.created, old.version + 1) if old else (self.revision, 1)
        if old and old.lease in self.leases:
            self.leases[old.lease].keys.discard(key)
        if lease:
            self.leases[lease].keys.add(key)
        self.keys[key] = Entry(value, created, self.revision, version, lease)
        self._happened(False, key, self.keys[key])

    def _delete(self, key: bytes) -> None:
        old = self.keys.pop(key)
        if old.lease in self.leases:
            self.leases[old.lease].keys.discard(key)
        self._happened(True, key, Entry(b"", 0, self.revision, 0, 0))

    def _happened(self, deleted: bool, key: bytes, entry: Entry) -> None:
        self.history.append((self.revision, deleted, key, entry))
        self._changed.set()
        self._changed = trio.Event()

    # watching

    async def _watch(self, host: str, body: Json) -> AsyncIterator[bytes]:
        start = int(body.get("start_revision", 0)) or self.revision + 1
        key, end = b64decode(body["key"]), b64decode(body["range_end"])
        yield _line({"result": {"header": {"revision": str(self.revision)}, "created": True}})
        if start <= self.compacted:
            told = {"canceled": True, "compact_revision": str(self.compacted)}
            yield _line({"result": told})
            return
        while True:
            changed = self._changed
            new = [each for each in self.history if each[0] >= start and key <= each[2] < end]
            for revision in sorted({each[0] for each in new}):
                events = [
                    {"kv": _shown(each[2], each[3])} | ({"type": "DELETE"} if each[1] else {})
                    for each in new
                    if each[0] == revision
                ]
                yield _line({"result": {"header": {"revision": str(revision)}, "events": events}})
                start = revision + 1
            if host in self.cut:
                raise httpx.ReadError("the model is cut off")
            with trio.move_on_after(0.2):
                await changed.wait()
            self._expire()


class _Lines(httpx.AsyncByteStream):
    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        self._lines = lines

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for line in self._lines:
            yield line


def _line(message: Json) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _shown(key: bytes, entry: Entry) -> Json:
    shown: Json = {"key": b64encode(key).decode(), "value": b64encode(entry.value).decode()}
    numbers = {"create_revision": entry.created, "mod_revision": entry.modified, "version": entry.version}
    numbers["lease"] = entry.lease
    return shown | {name: str(number) for name, number in numbers.items() if number}
