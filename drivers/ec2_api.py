"""The query API of EC2 (version 2016-11-15): signed requests, pages, and error codes. Knows no instances and volumes.
Needs the extra ``ec2``."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from xml.etree import ElementTree

import msgspec
import trio
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.session import Session

from ..placement.types.errors import InvalidValue
from .http import Http, failure_of, open_http
from .protocol import Capacity, Conflict, Denied, DriverError, Mark, NotFound, Permanent, Quota, Transient, Unknown

VERSION: Final = "2016-11-15"
UUID_TAG: Final = "hostler:uuid"
MARK_TAG: Final = "hostler:mark"
READS: Final = ("Describe", "Get")
"""Actions that begin so change nothing."""

ERRORS: Final[Mapping[str, type[DriverError]]] = {
    "AddressLimitExceeded": Quota,
    "AttachmentLimitExceeded": Quota,
    "AuthFailure": Denied,
    "Blocked": Denied,
    "DryRunOperation": Permanent,
    "ExpiredToken": Denied,
    "IdempotentParameterMismatch": Conflict,
    "IncorrectInstanceState": Conflict,
    "IncorrectModificationState": Conflict,
    "IncorrectState": Conflict,
    "InsufficientAddressCapacity": Capacity,
    "InsufficientCapacity": Capacity,
    "InsufficientHostCapacity": Capacity,
    "InsufficientInstanceCapacity": Capacity,
    "InsufficientReservedInstanceCapacity": Capacity,
    "InsufficientVolumeCapacity": Capacity,
    "InstanceLimitExceeded": Quota,
    "InternalError": Unknown,
    "InternalFailure": Unknown,
    "InvalidClientTokenId": Denied,
    "MaxIOPSLimitExceeded": Quota,
    "MaxSpotInstanceCountExceeded": Quota,
    "OptInRequired": Denied,
    "PendingVerification": Denied,
    "RequestExpired": Transient,
    "RequestLimitExceeded": Transient,
    "ResourceCountExceeded": Quota,
    "ResourceLimitExceeded": Quota,
    "ServiceUnavailable": Transient,
    "SignatureDoesNotMatch": Denied,
    "Throttling": Transient,
    "ThrottlingException": Transient,
    "Unavailable": Transient,
    "UnauthorizedOperation": Denied,
    "Unsupported": Capacity,  # the zone does not offer the instance type
    "VcpuLimitExceeded": Quota,
    "VolumeInUse": Conflict,
    "VolumeLimitExceeded": Quota,
    "VolumeModificationRateExceeded": Transient,
}
"""Error codes by class."""
PATTERNS: Final[Sequence[tuple[re.Pattern[str], type[DriverError]]]] = (
    (re.compile(r"\.NotFound$"), NotFound),
    (re.compile(r"\.Duplicate$"), Conflict),
    (re.compile(r"LimitExceeded$"), Quota),
    (re.compile(r"^Insufficient\w*Capacity$"), Capacity),
    (re.compile(r"^(Invalid|Malformed|Missing|Unknown|Unsupported|Validation)|\.Malformed$"), Permanent),
)
"""Classes of the codes above that are not listed; what matches none is classed by the status of the answer."""
NAMESPACE: Final = re.compile(rb' xmlns="[^"]*"')


class Account(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of every driver of this API: the ``region``; an ``access_key`` with its ``secret_key`` and, for temporary
    ones, ``session_token`` (default: as botocore finds them, in the environment, files or the instance's role); another
    ``endpoint`` than that of the region."""

    region: str
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    endpoint: str | None = None
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    page: Annotated[int, msgspec.Meta(ge=5, le=1000)] = 1000


class Ec2Api:
    """One account in one region."""

    def __init__(self, http: Http, account: Account, credentials: Credentials) -> None:
        self._http, self._account, self._credentials = http, account, credentials
        self._endpoint = account.endpoint or f"https://ec2.{account.region}.amazonaws.com/"
        self._threads = trio.CapacityLimiter(1)

    async def call(self, action: str, parameters: Mapping[str, Any] | None = None) -> ElementTree.Element:
        """The answer of an action. ``parameters`` may hold mappings and sequences, which are numbered from 1."""
        body = urlencode({"Action": action, "Version": VERSION, **dict(_flat("", parameters or {}))}).encode()
        reads = action.startswith(READS)
        headers = await self._signed(body)
        answer = await self._http.send("POST", self._endpoint, content=body, headers=headers, reads=reads)
        try:
            tree = ElementTree.fromstring(NAMESPACE.sub(b"", answer.content, count=1))
        except ElementTree.ParseError:
            if answer.is_success:
                raise (Transient if reads else Unknown)(f"{action}: the answer is no XML") from None
            raise failure_of(answer, reads=reads) from None
        if answer.is_success and tree.tag != f"{action}Response":  # which must not pass for an empty listing
            raise (Transient if reads else Unknown)(f"{action}: the answer is a document {tree.tag}")
        if answer.is_success:
            return tree
        code, text = tree.findtext(".//Error/Code", ""), tree.findtext(".//Error/Message", "")
        raise error_of(code, text, reads=reads) or failure_of(answer, f"{code}: {text}", reads=reads)

    async def _signed(self, body: bytes) -> Mapping[str, str]:
        kind = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        request = AWSRequest("POST", self._endpoint, data=body, headers=kind)
        if type(self._credentials) is Credentials:
            frozen = self._credentials.get_frozen_credentials()
        else:  # renewed by HTTP now and then
            get = self._credentials.get_frozen_credentials
            frozen = await trio.to_thread.run_sync(get, abandon_on_cancel=True, limiter=self._threads)
        SigV4Auth(frozen, "ec2", self._account.region).add_auth(request)
        return dict(request.headers.items())

    async def pages(self, action: str, parameters: Mapping[str, Any]) -> AsyncGenerator[ElementTree.Element, None]:
        """All answers of a listing."""
        more: dict[str, Any] = {}
        while True:
            tree = await self.call(action, {**parameters, "MaxResults": self._account.page, **more})
            yield tree
            token = tree.findtext("nextToken")
            if not token:
                return
            more = {"NextToken": token}

    async def zones(self, wanted: Sequence[str] | None) -> dict[str, bool]:
        """The availability zones in use (default: all of the region), and whether each is available."""
        tree = await self.call("DescribeAvailabilityZones")
        found = {
            each.findtext("zoneName", ""): each.findtext("zoneState") == "available"
            for each in tree.iterfind("availabilityZoneInfo/item")
        }
        return found if wanted is None else {name: found.get(name, False) for name in wanted}


def error_of(code: str, text: str, *, reads: bool) -> DriverError | None:
    """The error for an error code; None for one that is not known. What only reads is never of unknown outcome."""
    kind = ERRORS.get(code) or next((kind for pattern, kind in PATTERNS if pattern.search(code)), None)
    if kind is Unknown and reads:
        kind = Transient
    return None if kind is None else kind(f"{code}: {text}", backend_code=code)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, each)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value, 1):
            yield from _flat(f"{prefix}.{number}", each)
    else:
        yield prefix, str(value).lower() if isinstance(value, bool) else str(value)


def tags_of(element: ElementTree.Element) -> dict[str, str]:
    """The tags of an instance or volume."""
    return {each.findtext("key", ""): each.findtext("value", "") for each in element.iterfind("tagSet/item")}


def mark_of(tags: Mapping[str, str]) -> Mark | None:
    """The mark in the tags of an instance or volume."""
    mark = Mark.parse(tags.get(MARK_TAG, ""))
    return mark if mark is not None and mark.uuid == tags.get(UUID_TAG) else None


def id_of(name: str, kind: str) -> str:
    """A user's name for an object of a ``kind``, which is its id. NotFound for a text that is not one."""
    if not re.fullmatch(rf"{kind}-[0-9a-zA-Z]+", name):
        raise NotFound(f"there is no {name!r}", hint=f"name it by its id, {kind}-…")
    return name


def tagging(kind: str, mark: Mark, name: str) -> list[dict[str, Any]]:
    """Tags that are set in the call that makes an instance or volume."""
    tags = {"Name": name, UUID_TAG: mark.uuid, MARK_TAG: str(mark)}
    return [{"ResourceType": kind, "Tag": [{"Key": key, "Value": value} for key, value in tags.items()]}]


@asynccontextmanager
async def open_api(account: Account) -> AsyncIterator[Ec2Api]:
    """A client of an account. InvalidValue without credentials."""
    if (account.access_key is None) != (account.secret_key is None):
        raise InvalidValue("access_key and secret_key belong together", field="options.secret_key")
    if account.access_key is not None:
        credentials = Credentials(account.access_key, account.secret_key, account.session_token)
    else:
        credentials = await trio.to_thread.run_sync(lambda: Session().get_credentials())
        if credentials is None:
            raise InvalidValue("there are no credentials", field="options.access_key", hint="set it and secret_key")
    async with open_http(concurrency=account.concurrency) as http:
        yield Ec2Api(http, account, credentials)
