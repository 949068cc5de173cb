"""A session on a Hardware Management Console of IBM Power, by its REST API: calls, errors by class, and jobs. Knows no
guests. Needs the extra ``hmc``."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import quote
from xml.etree import ElementTree

import httpx
import trio

from ..http import Http, failure_of
from ..log_ons import LogOns
from ..ongoing import look_until
from ..protocol import Capacity, Conflict, Denied, DriverError, NotFound, Permanent, Quota, Transient, Unknown
from .hmc_values import WEB, Job, entries, job_document, job_of, logon_document, parsed, text_in

T = TypeVar("T")
LOGON: Final = "/rest/api/web/Logon"
OBJECTS: Final = "/rest/api/uom"
FEED: Final = "application/atom+xml"
MEDIA: Final = "application/vnd.ibm.powervm.{}+xml; type={}"
LONG: Final = 65_536
"""Bytes of an answer from which on it is read in a thread."""
LOGOFF_SECONDS: Final = 5.0

CODES: Final[Mapping[str, type[DriverError]]] = {
    "HSCL03EC": Capacity,  # too little memory to activate the partition
    "HSCL03F4": Capacity,  # too few processors to activate the partition
    "HSCL05DF": Conflict,  # the partition is in another state than the operation needs
    "HSCL0DB4": Conflict,  # its operating system takes no order to shut down
    "HSCL1558": Conflict,  # it is off already
    "HSCL350B": Denied,  # the user may not do that
    "HSCL3681": Conflict,  # it is on already
    "HSCLC63B": Permanent,  # characters that no description has
    "PVME01042026": Conflict,  # it is on already
    "PVME01050402": Conflict,  # its operating system takes no order to shut down
    "PVME01050901": Conflict,  # it is off already
    "PVME01050905": Conflict,  # its operating system takes no order to shut down
    "PVME04000005": Conflict,  # it is off already
}
"""Codes at the beginning of messages by class."""
SO_ALREADY: Final = frozenset({"HSCL1558", "HSCL3681", "PVME01042026", "PVME01050901", "PVME04000005"})
"""Codes of jobs that found what they were to do done."""
TEXTS: Final[Sequence[tuple[re.Pattern[str], type[DriverError]]]] = (
    (re.compile(r"not enough|insufficient|exceeds? the available", re.IGNORECASE), Capacity),
    (re.compile(r"maximum number of", re.IGNORECASE), Quota),
    (re.compile(r"already (exists|in use|used)|not unique", re.IGNORECASE), Conflict),
    (re.compile(r"\bbusy\b|\block(ed)?\b|in progress|retry the operation|try again", re.IGNORECASE), Transient),
)
"""What messages of other codes say; the first that matches counts, else the status does."""
STATUS: Final[Mapping[int, type[DriverError]]] = {HTTPStatus.PRECONDITION_REQUIRED: Conflict}
"""Status codes that are not of ``drivers.http``; a precondition that failed, 412, is a conflict there."""
_CODE: Final = re.compile(r"\b(HSC[A-Z]?[0-9A-F]{4}|PVME\d{8})\b")
ENDED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
"""Status of calls whose session has ended (reasons 4 and 5 of a 403), and of those that it may not make."""

PENDING: Final = frozenset({"NOT_ACTIVE", "NOT_STARTED", "RUNNING"})
"""Status of jobs that have not ended."""
DONE: Final = frozenset({"COMPLETED_OK", "COMPLETED_WITH_WARNINGS"})
"""Status of jobs that did what they were to do."""


class HmcApi:
    """Calls on a console, in one session that is renewed when it ends."""

    def __init__(self, http: Http, user: str, password: str, look_seconds: float) -> None:
        self._http, self._user, self._password, self._look_seconds = http, user, password, look_seconds
        self._session, self._renewing = "", trio.Lock()
        self._log_ons = LogOns()
        self._threads = trio.CapacityLimiter(1)

    async def log_on(self, ended: str = "") -> None:
        """Begin a session in place of one that has ended, unless another call has."""
        async with self._renewing:
            if self._session != ended:
                return
            with self._log_ons.one():
                self._session = await self._begun()
            if ended:  # it may be that only the call was refused
                await self.log_off(ended)

    async def _begun(self) -> str:
        """A new session."""
        headers = {"Content-Type": MEDIA.format("web", "LogonRequest"), "Accept": MEDIA.format("web", "LogonResponse")}
        body = logon_document(self._user, self._password)
        answer = await self._http.send("PUT", LOGON, content=body, headers=headers, reads=True)
        if answer.status_code in ENDED:  # whatever its message says, such as that the account is locked
            text = _message(answer)
            raise Denied(text or f"the console answered {answer.status_code}", backend_code=_backend_code(answer, text))
        if not answer.is_success:
            raise error_of(answer, reads=True)
        token = await self.read(answer, lambda root: text_in(root, "X-API-Session", WEB), reads=True)
        if not token:
            raise Transient(f"{answer.request.url.host} began no session")
        return token

    async def log_off(self, session: str = "") -> None:
        """End a session (default: the present one); what does not answer is left to end it by itself."""
        with trio.move_on_after(LOGOFF_SECONDS, shield=True), suppress(DriverError):
            await self._http.send("DELETE", LOGON, headers={"X-API-Session": session or self._session})

    async def call(
        self, method: str, path: str, *, content: bytes | None = None, kind: str = "", etag: str = ""
    ) -> httpx.Response:
        """The successful answer to a call on objects. ``kind``: the media type of ``content``. ``etag``: what is
        changed must be as it was read."""
        headers = {"Accept": FEED}
        if content is not None:
            headers["Content-Type"] = kind
        if etag:
            headers["If-Match"] = etag
        for renewed in (False, True):
            session = self._session
            sent = {**headers, "X-API-Session": session}
            answer = await self._http.send(method, f"{OBJECTS}{path}", content=content, headers=sent)
            if answer.status_code not in ENDED or renewed or _has_code(answer):
                break
            await self.log_on(session)
        if not answer.is_success:
            raise error_of(answer)
        return answer

    async def read(
        self, answer: httpx.Response, make: Callable[[ElementTree.Element], T], *, reads: bool | None = None
    ) -> T:
        """What an answer says; a long one is read in a thread. Unknown, or Transient if the request only reads, for one
        that is not of the API."""
        content = answer.content

        def work() -> T:
            return make(parsed(content))

        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads) if len(content) >= LONG else work()
        except ValueError as error:
            kind = Transient if (answer.request.method == "GET" if reads is None else reads) else Unknown
            raise kind(f"the answer of {answer.request.url.host} is malformed: {error}") from error

    async def listed(self, path: str, make: Callable[[ElementTree.Element], T]) -> list[T]:
        """All entries of a feed, which is not sent by pages. ``group=None`` leaves out what the console would ask
        operating systems for. Transient for one that is not there, which must not pass for one without entries:
        that is answered, by 200 or 204."""
        try:
            answer = await self.call("GET", f"{path}?group=None")
        except NotFound as error:
            raise Transient(f"{path} is not there now: {error}", backend_code=error.backend_code) from error
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return []
        return await self.read(answer, lambda root: [make(entry) for entry in entries(root)])

    async def found(self, kind: str, field: str, value: str, make: Callable[[ElementTree.Element], T]) -> list[T]:
        """Entries of all objects of a kind with a value in a field."""
        return await self.listed(f"/{kind}/search/({field}=='{quote(value, safe='')}')", make)

    async def run(self, key: str, operation: str, parameters: Mapping[str, str]) -> None:
        """Have a job done on a partition. One that finds it done already is no failure."""
        body, kind = job_document(operation, parameters), MEDIA.format("web", "JobRequest")
        answer = await self.call("PUT", f"/LogicalPartition/{key}/do/{operation}", content=body, kind=kind)
        job = await self._ended(await self.read(answer, _only_job))
        with suppress(DriverError):  # the console removes it after a while
            await self.call("DELETE", f"/jobs/{quote(job.key)}")
        if job.status not in DONE and code_of(job.text) not in SO_ALREADY:
            raise error_of_job(operation, job)

    async def _ended(self, job: Job) -> Job:
        """A job once it has ended. It goes on where it cannot be asked for."""
        first = [job]

        async def look() -> Job:
            if first:
                return first.pop()
            try:
                return await self.read(await self.call("GET", f"/jobs/{quote(job.key)}"), _only_job)
            except (NotFound, Transient) as error:
                raise Unknown(f"job {job.key} goes on: {error}", backend_code=error.backend_code) from error

        return await look_until(look, lambda found: found.status not in PENDING, seconds=self._look_seconds)


def _only_job(root: ElementTree.Element) -> Job:
    (entry,) = entries(root)
    return job_of(entry)


def code_of(text: str) -> str:
    """The code that a message begins with, or has in it; nothing if it has none."""
    found = _CODE.search(text)
    return found[1] if found else ""


def _message(answer: httpx.Response) -> str:
    """What an answer to a call that failed says."""
    try:
        root = parsed(answer.content)
    except ValueError:
        return ""
    return next((text for each in root.iter(f"{{{WEB}}}Message") if (text := (each.text or "").strip())), "")


def _has_code(answer: httpx.Response) -> bool:
    """True if an answer has a code of its own, so that its status is not that of a session that has ended."""
    return code_of(_message(answer)) in CODES


def class_of(text: str) -> type[DriverError] | None:
    """The class of a message; None if it says none."""
    return CODES.get(code_of(text)) or next((kind for pattern, kind in TEXTS if pattern.search(text)), None)


def error_of(answer: httpx.Response, *, reads: bool | None = None) -> DriverError:
    """The error for an answer: by its message, else by its status."""
    text = _message(answer)
    kind = class_of(text) or STATUS.get(answer.status_code)
    if kind is None:
        return failure_of(answer, text, reads=reads)
    return kind(text or f"the console answered {answer.status_code}", backend_code=_backend_code(answer, text))


def _backend_code(answer: httpx.Response, text: str) -> str:
    return code_of(text) or str(answer.status_code)


def error_of_job(operation: str, job: Job) -> DriverError:
    """The error for a job that failed. One that failed for a reason of its own was not done in part."""
    kind = class_of(job.text) or Permanent
    return kind(f"{operation}: {job.text or job.status}", backend_code=code_of(job.text) or job.status)


@asynccontextmanager
async def open_session(http: Http, user: str, password: str, look_seconds: float) -> AsyncIterator[HmcApi]:
    """A session, which is ended with the context."""
    api = HmcApi(http, user, password, look_seconds)
    await api.log_on()
    try:
        yield api
    finally:
        await api.log_off()
