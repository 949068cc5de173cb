"""A client of etcd for trio. Speaks the JSON gateway of the v3 API with httpx, to one endpoint at a time; the next one
has its turn when that fails. Does not interpret keys."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import httpx
import msgspec
import trio

from .errors import (
    EtcdCompacted,
    EtcdError,
    EtcdLeaseGone,
    EtcdUnavailable,
    EtcdUntrusted,
    error_of,
    error_of_no_answer,
    is_stale_token,
    needs_no_user,
    said,
)
from .values import Answer, Change, KeyValue, Request, answer_of, changes_of, end_of, get, item_of, text

TIMEOUT: Final = 2.0
"""Seconds for one request, over all endpoints."""
ATTEMPT: Final = 0.75
"""Seconds for one endpoint to answer while there are others, where etcd is as fast as usual."""
LONGEST_ATTEMPT: Final = 5.0
"""The same, where all endpoints are slow: one that is given up before it answers is asked the same again for ever."""
PAUSE: Final = 0.02
"""Seconds before the endpoints are tried again when all have failed."""
_decode: Final = msgspec.json.decode
_encode: Final = msgspec.json.encode


class _Pace:
    """How fast etcd answers requests of one kind. ``attempt``: seconds for one endpoint to answer."""

    __slots__ = ("_late", "attempt")

    def __init__(self) -> None:
        self.attempt, self._late = ATTEMPT, 0

    def note(self, took: float, *, late: bool, endpoints: int) -> None:
        """An attempt took so many seconds, or was given up after these: have later ones wait for long enough."""
        if not late:
            self.attempt, self._late = max(ATTEMPT, min(3 * took, LONGEST_ATTEMPT)), 0
        elif took >= ATTEMPT:
            self._late += 1
            if self._late % endpoints == 0:
                self.attempt = min(2 * self.attempt, LONGEST_ATTEMPT)


class Etcd:
    """Requests to the endpoints of one cluster, from any number of tasks. Raises errors of ``EtcdError`` only."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        user: str | None = None,
        password: str = "",
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``endpoints``: URLs such as https://10.0.0.1:2379. ``transport``: instead of sockets, in tests."""
        self.endpoints = tuple(each.rstrip("/") for each in endpoints)
        self._user, self._password, self._timeout = user, password, timeout
        self._token: str | None = None
        """Empty: etcd does not ask for one."""
        self._at = 0
        self._closed = False
        self._paces: dict[str, _Pace] = {}
        """By path."""
        self.failovers = 0
        """How often an endpoint has failed and the next one had its turn."""
        self._transport = transport if transport is not None else self._of_sockets(tls)
        self._http = httpx.AsyncClient(transport=self._transport, timeout=None, trust_env=False)

    def _of_sockets(self, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        verify = tls if tls is not None else any(each.startswith("https:") for each in self.endpoints)
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=8)
        return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)

    def renew(self, password: str) -> None:
        """Authenticate with another password from the next time on."""
        self._password = password

    async def close(self) -> None:
        """Close all connections. May be called twice. Requests fail with EtcdUnavailable from then on."""
        self._closed = True
        with trio.CancelScope(shield=True):
            await self._http.aclose()

    # keys

    async def transaction(
        self,
        compare: Sequence[Request] = (),
        then: Sequence[Request] = (),
        otherwise: Sequence[Request] = (),
        *,
        within: float | None = None,
        repeat: bool = True,
        attempt: float = 0.0,
    ) -> Answer:
        """Carry out ``then`` if all comparisons hold, else ``otherwise``; all or nothing. Each endpoint has ``attempt``
        seconds to answer, or more where etcd is slow.

        EtcdUnavailable where the outcome is not known. With ``repeat`` it is sent again ``within`` so many seconds,
        which is right for one that can succeed only once, or does no harm the second time.
        """
        body = {"compare": compare, "success": then, "failure": otherwise}
        return answer_of(await self._ask("/v3/kv/txn", body, within=within, repeat=repeat, attempt=attempt))

    async def read(self, key: str, *, within: float | None = None) -> KeyValue | None:
        """A key as the whole cluster has it, or None."""
        found = await self._ask("/v3/kv/range", get(key)["request_range"], within=within)
        return next((item_of(each) for each in found.get("kvs", ())), None)

    async def read_all(self, prefix: str, *, within: float | None = None) -> list[KeyValue]:
        """All keys with a prefix, in order."""
        found = await self._ask("/v3/kv/range", get(prefix, end_of(prefix))["request_range"], within=within)
        return [item_of(each) for each in found.get("kvs", ())]

    async def compact(self, revision: int) -> None:
        """Forget what keys were before a revision. Nothing to be done is no error."""
        try:
            await self._ask("/v3/kv/compaction", {"revision": str(revision)})
        except EtcdCompacted:
            return

    async def size(self) -> tuple[int, int]:
        """(bytes of the database, bytes of it in use) of the endpoint that answers."""
        found = await self._ask("/v3/maintenance/status", {})
        return int(found.get("dbSize", 0)), int(found.get("dbSizeInUse", 0))

    # leases

    async def grant(self, seconds: int) -> tuple[int, float]:
        """A new lease: (its number, its seconds to live, which etcd may have raised)."""
        found = await self._ask("/v3/lease/grant", {"TTL": str(seconds)}, repeat=False)
        return int(found["ID"]), float(found["TTL"])

    async def keep_alive(self, lease: int, *, within: float | None = None, attempt: float = 0.0) -> float:
        """Refresh a lease; its seconds to live from when this was called. EtcdLeaseGone."""
        found = await self._ask("/v3/lease/keepalive", {"ID": str(lease)}, within=within, attempt=attempt)
        left = float(found.get("result", {}).get("TTL", 0))
        if left <= 0:
            raise EtcdLeaseGone(f"lease {lease:x} has expired")
        return left

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys. One that is gone is no error."""
        try:
            await self._ask("/v3/lease/revoke", {"ID": str(lease)})
        except EtcdLeaseGone:
            return

    # watching

    @asynccontextmanager
    async def watch(self, prefix: str, *, after: int = 0) -> AsyncIterator[AsyncGenerator[list[Change], None]]:
        """The changes of keys with a prefix, behind a revision or from now on, as lists of those that happened
        together; an empty list at first, once it watches. EtcdCompacted where the revision is gone, EtcdUnavailable
        when the stream ends."""
        async with aclosing(self._changes(prefix, after)) as changes:
            yield changes

    async def _changes(self, prefix: str, after: int) -> AsyncGenerator[list[Change], None]:
        key, end = text(prefix.encode()), text(end_of(prefix).encode())
        wish = {"key": key, "range_end": end, "start_revision": str(after + 1 if after else 0)}
        at, url = self._at, self.endpoints[self._at % len(self.endpoints)] + "/v3/watch"
        try:
            headers = await self._headers()
            async with self._http.stream(
                "POST", url, content=_encode({"create_request": wish}), headers=headers
            ) as answer:
                if answer.status_code != 200:
                    raise error_of(answer.status_code, _read(await answer.aread()))
                lines: Any = answer.aiter_lines()  # a generator, typed as an iterator
                async with aclosing(lines):
                    async for line in lines:
                        yield self._message(_read(line))
            raise EtcdUnavailable("the watch has ended")
        except (httpx.HTTPError, EtcdUnavailable) as error:
            self._leave(at)
            raise EtcdUnavailable(f"the watch has ended: {said(error)}") from error
        except RuntimeError as error:
            if not self._closed:
                raise
            raise EtcdUnavailable(f"the watch has ended: {error}") from error
        except EtcdError as error:
            if self._user is None or not is_stale_token(error):
                raise
            self._token = None
            raise EtcdUnavailable(f"the watch needs a new authentication: {error}") from error

    def _message(self, message: Any) -> list[Change]:
        if not isinstance(message, dict) or "result" not in message:
            raise error_of(200, message)
        result = message["result"]
        if result.get("canceled"):
            oldest = int(result.get("compact_revision", 0))
            if oldest:
                raise EtcdCompacted("the revision to watch from has been compacted", oldest)
            raise EtcdUnavailable(f"the watch was cancelled: {result.get('cancel_reason', '')}")
        return changes_of(result)

    # requests

    async def _ask(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        within: float | None = None,
        repeat: bool = True,
        attempt: float = 0.0,
    ) -> Mapping[str, Any]:
        """An answer of 200. Endpoints that fail are left for the next one, ``within`` so many seconds; each has
        ``attempt`` seconds at least."""
        pace = self._paces.setdefault(path, _Pace())
        deadline = trio.current_time() + (max(self._timeout, 2 * pace.attempt) if within is None else within)
        content, fresh, failed, distrusted = _encode(body), False, 0, 0
        known: EtcdUnavailable | None = None
        while True:
            at = self._at
            try:
                return await self._ask_one(at, path, content, deadline, max(pace.attempt, attempt))
            except EtcdUnavailable as error:
                self._leave(at)
                failed += 1
                if self._closed:
                    raise
                never_sent = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
                known = error if error.__cause__ is not None else known
                if not (repeat or never_sent) or trio.current_time() + PAUSE >= deadline:
                    if known is not None and known is not error:  # the last attempt may have had no time left to fail
                        raise known from known.__cause__
                    raise
                distrusted += isinstance(error, EtcdUntrusted)
                if distrusted == failed and failed % len(self.endpoints) == 0:  # which does not pass so soon
                    raise
                if failed % len(self.endpoints) == 0:
                    await trio.sleep(PAUSE)
            except EtcdError as error:
                if self._user is None or fresh or not is_stale_token(error):
                    raise
                self._token, fresh = None, True

    async def _ask_one(self, at: int, path: str, content: bytes, deadline: float, attempt: float) -> Mapping[str, Any]:
        url = self.endpoints[at % len(self.endpoints)]
        began = trio.current_time()
        left = deadline - began
        if len(self.endpoints) > 1:
            left = min(left, attempt)
        answer: httpx.Response | None = None
        try:
            with trio.move_on_after(max(left, 0.001)):
                answer = await self._post(url + path, content)
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not self._closed:  # httpx's, for a client that is closed
                raise
            raise error_of_no_answer(url, error) from error
        took = trio.current_time() - began
        self._paces[path].note(took, late=answer is None, endpoints=len(self.endpoints))
        if answer is None:
            raise EtcdUnavailable(f"no answer of etcd at {url} in time")
        found = _read(answer.content)
        if answer.status_code != 200 or not isinstance(found, dict) or "error" in found:
            raise error_of(answer.status_code, found)
        return found

    async def _post(self, url: str, content: bytes) -> httpx.Response:
        """The whole answer to a request, without what httpx's client does about cookies, redirects and authentication:
        a quarter of the processor time of a request."""
        if self._closed:
            raise httpx.ReadError("the client is closed")
        request = httpx.Request("POST", url, content=content, headers=await self._headers())
        answer = await self._transport.handle_async_request(request)
        try:
            await answer.aread()
        finally:
            await answer.aclose()
        return answer

    async def _headers(self) -> dict[str, str]:
        if self._user is None:
            return {}
        if self._token is None:
            url = self.endpoints[self._at % len(self.endpoints)] + "/v3/auth/authenticate"
            answer = await self._http.post(url, content=_encode({"name": self._user, "password": self._password}))
            found = _read(answer.content)
            if answer.status_code != 200 or not isinstance(found, dict) or "token" not in found:
                error = error_of(answer.status_code, found)
                if not needs_no_user(error):
                    raise error
                found = {"token": ""}
            self._token = str(found["token"])
        return {"authorization": self._token} if self._token else {}

    def _leave(self, at: int) -> None:
        """The endpoint ``at`` has failed: the next one has its turn, unless another task has said so already."""
        if self._at == at:
            self._at += 1
            self.failovers += 1


def _read(content: bytes | str) -> Any:
    try:
        return _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
