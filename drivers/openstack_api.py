"""Calls of OpenStack's services over HTTP: tokens of Keystone (API v3), endpoints of its catalog, microversions, pages,
and errors. Knows no servers, volumes and nodes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
import trio

from ..placement.types.errors import InvalidValue
from .http import LONGEST_TEXT, Http, failure_of, object_of, open_http, retry_after
from .log_ons import LogOns
from .protocol import Denied, DriverError, NotFound, Permanent, Quota, Transient, Unknown
from .tls import tls_of

MARK_KEY: Final = "hostler:mark"
NAME_KEY: Final = "hostler:name"
SIZE_KEY: Final = "hostler:size"
ZONE_KEY: Final = "hostler:zone"
"""Keys of metadata that say whose an object is, its user's name, and what was wanted."""
LONGEST_NAME: Final = 255
REPEATED: Final = 8
"""Characters of a secret by which its repetition in a message is found."""
Texts = Sequence[tuple[re.Pattern[str], type[DriverError]]]
"""What messages of errors say, by class: the first pattern that is found counts."""
QUOTA: Final = re.compile(r"quota|maximum number of|exceeds? .*limit|overlimit", re.IGNORECASE)
_MARKER: Final = re.compile(r"marker", re.IGNORECASE)
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")


class Account(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of every driver of an OpenStack service: ``auth_url`` of Keystone, with ``username``, ``password`` and
    ``project`` and their domains by name, or with an application credential; the ``region`` and ``interface`` of the
    endpoints in its catalog. ``ca_file`` with certificates, or ``insecure`` to check none. ``page``: objects of one
    page of a listing."""

    auth_url: str | None = None
    username: str | None = None
    password: str | None = None
    user_domain: str = "Default"
    project: str | None = None
    project_domain: str = "Default"
    application_credential_id: str | None = None
    application_credential_secret: str | None = None
    region: str | None = None
    interface: str = "public"
    ca_file: str | None = None
    insecure: bool = False
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    page: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 500


class _Token(NamedTuple):
    value: str
    catalog: Sequence[Mapping[str, Any]]


class Identity:
    """Tokens of Keystone, obtained when one is needed, and again when it has expired."""

    def __init__(self, http: Http, account: Account) -> None:
        self._http, self._account = http, account
        self._token: _Token | None = None
        self._lock, self._log_ons = trio.Lock(), LogOns()

    async def token(self, expired: str = "") -> str:
        """A token that is not ``expired``."""
        return (await self._current(expired)).value

    async def endpoint(self, kinds: Sequence[str]) -> str:
        """The address of the first of these types of service that the catalog has. Permanent if it has none."""
        account = self._account
        for kind in kinds:
            for service in (await self._current()).catalog:
                if service.get("type") != kind:
                    continue
                for each in service.get("endpoints") or ():
                    region = each.get("region_id") or each.get("region")
                    if each.get("interface") == account.interface and account.region in (None, region):
                        return str(each["url"])
        hint = "set the options region and interface as the catalog has them"
        raise Permanent(f"the catalog has no {account.interface} endpoint of {' or '.join(kinds)}", hint=hint)

    async def _current(self, expired: str = "") -> _Token:
        async with self._lock:
            if self._token is None or self._token.value == expired:
                self._token = None
                with self._log_ons.one():
                    self._token = await self._new()
            return self._token

    async def _new(self) -> _Token:
        url = str(self._account.auth_url).rstrip("/")
        url = url if url.endswith("/v3") else f"{url}/v3"
        answer = await self._http.send("POST", f"{url}/auth/tokens", json=credentials(self._account), reads=True)
        if not answer.is_success:
            raise error_of(answer, (), reads=True)
        value = answer.headers.get("X-Subject-Token", "")
        token = object_of(answer).get("token")
        if not value or not isinstance(token, dict):
            raise Transient(f"{answer.request.url.host} answered no token")
        return _Token(value, [each for each in token.get("catalog") or () if isinstance(each, dict)])


def credentials(account: Account) -> dict[str, Any]:
    """What Keystone is shown for a token. An application credential has its project, so that none is named."""
    if account.application_credential_id is not None:
        shown = {"id": account.application_credential_id, "secret": account.application_credential_secret}
        return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": shown}}}
    user = {"name": account.username, "password": account.password, "domain": {"name": account.user_domain}}
    scope = {"project": {"name": account.project, "domain": {"name": account.project_domain}}}
    return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}


class Service:
    """One service. Without an ``identity`` its requests carry no token."""

    def __init__(
        self,
        http: Http,
        identity: Identity | None,
        endpoint: str | None,
        kinds: Sequence[str],
        *,
        version: str = "",
        headers: Mapping[str, str],
        texts: Texts = (),
    ) -> None:
        """``endpoint``: its address, or None for that of the first of its ``kinds`` in the catalog; its last part is
        the ``version`` of the API, which may be left out there. ``headers``: of each request, such as the
        microversion."""
        self._http, self._identity, self._kinds, self._version = http, identity, kinds, version
        self._headers, self._texts = headers, texts
        self._endpoint = None if endpoint is None else self._with_version(endpoint)

    def _with_version(self, endpoint: str) -> str:
        endpoint = endpoint.rstrip("/")
        return (
            endpoint if endpoint.endswith(f"/{self._version}") or not self._version else f"{endpoint}/{self._version}"
        )

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str | int] | None = None,
        secrets: Sequence[str] = (),
    ) -> httpx.Response:
        """The successful answer to a request; ``path`` is below the endpoint, its parts quoted by ``path_of``. A token
        that has expired is replaced once. Errors do not repeat ``secrets`` of the body, which services like to."""
        answer = await self._send(method, path, body, params, "")
        if answer.status_code == 401 and self._identity is not None:
            answer = await self._send(method, path, body, params, answer.request.headers.get("X-Auth-Token", ""))
        if not answer.is_success:
            raise error_of(answer, self._texts, secrets=secrets)
        return answer

    async def _send(
        self, method: str, path: str, body: Any, params: Mapping[str, str | int] | None, expired: str
    ) -> httpx.Response:
        headers = dict(self._headers)
        if self._identity is not None:
            headers["X-Auth-Token"] = await self._identity.token(expired)
        if self._endpoint is None:
            assert self._identity is not None
            self._endpoint = self._with_version(await self._identity.endpoint(self._kinds))
        url = f"{self._endpoint}/{path}"
        return await self._http.send(method, url, json=body, params=params, headers=headers)

    async def get(self, path: str, *, params: Mapping[str, str | int] | None = None) -> dict[str, Any]:
        """The JSON object at a path."""
        return object_of(await self.call("GET", path, params=params))

    async def pages(
        self, path: str, name: str, page: int, *, params: Mapping[str, str | int] | None = None, key: str = "id"
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """All pages of a listing; items stand under ``name`` and continue after the ``key`` of the last one. Transient
        if the item after which the next page begins was removed meanwhile."""
        marker: dict[str, str] = {}
        while True:
            try:
                answer = await self.get(path, params={**(params or {}), "limit": page, **marker})
            except DriverError as error:
                if marker and _MARKER.search(str(error)):
                    raise Transient(f"the listing changed while it was read: {error}") from error
                raise
            items = objects_of(answer, name)
            yield items
            if not items or not _has_next(answer, name):
                return
            marker = {"marker": str(items[-1].get(key, ""))}


def objects_of(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The list of objects under a name of an answer. Transient if there is none."""
    found = answer.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Transient(f"the answer has no list of {name}: {str(answer)[:LONGEST_TEXT]}")
    return found


def _has_next(answer: Mapping[str, Any], name: str) -> bool:
    """True if another page follows: Nova and Cinder link it, Ironic names it."""
    return bool(answer.get("next")) or any(link.get("rel") == "next" for link in answer.get(f"{name}_links") or ())


def path_of(*parts: str) -> str:
    """A path of these parts; characters of a part that separate others are quoted, and parts that lead to another
    folder are refused."""
    for part in parts:
        if part in ("", ".", ".."):
            raise Permanent(f"{part!r} is no id of an object")
    return "/".join(quote(part, safe="") for part in parts)


def is_id(name: str) -> bool:
    """True for what is a uuid, and so no name to be looked up."""
    return _ID.fullmatch(name) is not None


def printable(name: str) -> str:
    """A user's name for an object as services take it: without control characters and spaces around it."""
    return _UNPRINTABLE.sub(" ", name).strip()[:LONGEST_NAME].strip()


async def named(service: Service, path: str, key: str, name: str) -> str:
    """The id of the one object of a name, such as an image. NotFound if there is none, Permanent if there are
    several."""
    found = objects_of(await service.get(path, params={"name": name}), key)
    ids = [str(each.get("id")) for each in found if each.get("name") == name]
    if not ids:
        raise NotFound(f"there is no {name} among the {key}")
    if len(ids) > 1:
        raise Permanent(f"there are {len(ids)} {key} {name}", hint="name one by its id")
    return ids[0]


def room(
    here: int, limits: Mapping[str, Any], most: str, used: str, limit: int | None = None, otherwise: int = 0
) -> int:
    """What a part of a project's cloud can have: what is used ``here`` and what the quota ``most`` leaves, at most the
    configured ``limit``; that, or ``otherwise``, where there is no quota."""
    quota = int(limits.get(most, -1))
    if quota < 0:
        return otherwise if limit is None else limit
    left = here + max(0, quota - int(limits.get(used, 0)))
    return left if limit is None else min(left, limit)


def zones_of(answer: Mapping[str, Any], wanted: Iterable[str] | None) -> dict[str, bool]:
    """The availability zones in use of those that Nova or Cinder names, and whether each is available."""
    found = {
        str(each.get("zoneName")): bool((each.get("zoneState") or {}).get("available"))
        for each in answer.get("availabilityZoneInfo") or ()
    }
    found.pop("internal", None)  # of Nova's own services
    return found if wanted is None else {name: found.get(name, False) for name in wanted}


def error_of(
    answer: httpx.Response, texts: Texts, *, reads: bool | None = None, secrets: Sequence[str] = ()
) -> DriverError:
    """The error for an answer of a service: by what its message says, else by its status. ``reads`` as in
    ``Http.send``, ``secrets`` as in ``Service.call``."""
    text, code = message_of(answer), str(answer.status_code)
    kind = next((kind for pattern, kind in texts if pattern.search(text)), None)
    starts = [each for secret in secrets if (each := text.find(secret[:REPEATED])) >= 0]
    text = f"{text[: min(starts)]}…" if starts else text
    if answer.status_code == 413:  # of services that have neither 429 nor 403 for it
        kind = Quota if QUOTA.search(text) and "Retry-After" not in answer.headers else Transient
    elif answer.status_code == 403 and kind is None:
        # A change may be forbidden for what it asks; reading is for lack of rights.
        kind = Quota if QUOTA.search(text) else Denied if answer.request.method == "GET" or reads else Permanent
    elif answer.status_code == 406 and kind is None:
        return Permanent(text, backend_code=code, hint="a newer release of the service is needed")
    if kind is None:
        return failure_of(answer, text, reads=reads)
    if kind is Unknown and (answer.request.method == "GET" if reads is None else reads):
        kind = Transient
    if kind is Transient:
        return Transient(text, after=retry_after(answer), backend_code=code)
    return kind(text, backend_code=code)


def message_of(answer: httpx.Response) -> str:
    """What an answer says of an error: ``{NAME: {"message"}}`` of Nova, Cinder and Keystone, ``{"error_message"}`` of
    Ironic, which may be JSON once more; else the beginning of its body."""
    try:
        found = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return answer.text[:LONGEST_TEXT]
    for _ in range(4):
        if isinstance(found, dict):
            for name in ("error_message", "faultstring", "message", "description"):
                if found.get(name):
                    found = found[name]
                    break
            else:
                found = next((each for each in found.values() if isinstance(each, dict)), str(found))
        elif isinstance(found, str) and found.startswith("{"):
            try:
                found = json.loads(found)
            except json.JSONDecodeError:
                break
        else:
            break
    return str(found)[:LONGEST_TEXT]


def check_account(account: Account) -> None:
    """InvalidValue if options contradict each other, or Keystone's are incomplete."""
    pairs = (
        ("application_credential_id", "application_credential_secret"),
        ("username", "password"),
    )
    for one, other in pairs:
        if (getattr(account, one) is None) != (getattr(account, other) is None):
            raise InvalidValue(f"{one} and {other} belong together", field=f"options.{other}")
    if account.auth_url is None or account.application_credential_id is not None:
        return
    if account.username is None or account.project is None:
        hint = "name both, or application_credential_id and application_credential_secret"
        raise InvalidValue("Keystone needs a username and a project", field="options.username", hint=hint)


@asynccontextmanager
async def open_account(account: Account) -> AsyncIterator[tuple[Http, Identity | None]]:
    """A client of an account. Without ``auth_url`` requests carry the username and password themselves, if there are
    any."""
    check_account(account)
    auth = None
    if account.auth_url is None and account.username is not None:
        auth = account.username, str(account.password)
    verify = tls_of(account.ca_file, account.insecure)
    async with open_http(concurrency=account.concurrency, auth=auth, verify=verify) as http:
        yield http, None if account.auth_url is None else Identity(http, account)
