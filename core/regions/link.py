"""A parent's connection to one region: calls, the summary that the region pushes, and how far both can be trusted."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from ...placement.types.errors import HostlerError, InvalidValue
from ..machine.region_summary import RegionSummary, problem_of
from ..rpc.client import Client, ConnectionLost
from ..rpc.tls import client_context, renewal
from .choice import Known
from .options import RegionOptions

PING_SECONDS: Final = 1.0
DISTRUST_SECONDS: Final = 1.0
LONGEST_DISTRUST: Final = 60.0
IN_CIRCLE: Final = "this parent is among its own regions"

log = logging.getLogger("hostler.regions")


def secret_of(text: str, field: str) -> str:
    """What ``env:VARIABLE`` or ``file:/PATH`` stands for. InvalidValue for anything else, and where it is missing."""
    kind, _, name = text.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
    elif kind == "file":
        try:
            value = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidValue(f"{name} cannot be read: {error}", field=field) from error
    else:
        raise InvalidValue("a token is named as env:VARIABLE or file:/PATH", field=field)
    if not value.strip():
        raise InvalidValue(f"{text} is empty", field=field)
    return value.strip()


class Links(dict[str, "Link"]):
    """Regions by name, in the order of the configuration."""

    def find(self, name: str) -> Link | None:
        """The region that has a name, or had it before; None if none does. O(regions) for a former name."""
        known = self.get(name)
        if known is None:
            known = next((each for each in self.values() if name in each.options.formerly), None)
        return known


class Link:
    """One region. ``run`` keeps the connection, for ever."""

    def __init__(self, name: str, options: RegionOptions, ask_seconds: float, changed: Callable[[], None]) -> None:
        """``changed`` is called when the region's summary has. InvalidValue for a token or a file that is missing."""
        self.name, self.options = name, options
        self.parent = ""
        """The random name of the parent whose link this is."""
        self.in_circle = False
        """True once it turned out that the parent is among this region's own regions; for good."""
        self._ca = None if options.ca is None else Path(options.ca)
        self._ask_seconds, self._changed = ask_seconds, changed
        self._token = self._read_token()
        self._tls: ssl.SSLContext | None = None
        if any(each.startswith("tls:") for each in options.addresses):
            self._tls = client_context(self._ca)
        self._client: Client | None = None
        self.alive = False
        """True while the region answers."""
        self.suspended = False
        """True while it is given no claims, because too much is open of those before."""
        self.problem = ""
        self.summary: RegionSummary | None = None
        self._summary_at = 0.0
        self._claimed = (0, 0)
        self._distrust, self._distrusted_until = 0.0, 0.0
        self.asked = self.placed = self.refused = self.unanswered = self.summaries = 0
        self.summaries_ignored = 0
        """Summaries that cannot be used."""
        self._ignored: str | None = None
        """What is wrong with the last one, if it was ignored."""

    def _read_token(self) -> str | None:
        token = self.options.token
        return None if token is None else secret_of(token, f"regions.{self.name}.token")

    def read_again(self) -> Callable[[], None]:
        """Read the token, from its file or variable, and the file of authorities as they are now, which may take time;
        what is returned uses them for new connections. InvalidValue if one of them cannot be used."""
        token = self._read_token()
        renew = None if self._tls is None else renewal(self._tls, self._ca)

        def take() -> None:
            if renew is not None:
                renew()
            self._token = token
            if self._client is not None:
                self._client.renew(token)

        return take

    @property
    def age(self) -> float | None:
        """Seconds since the summary came; None without one."""
        return None if self.summary is None else trio.current_time() - self._summary_at

    @property
    def known(self) -> Known:
        """The region as it is chosen by."""
        distrusted = trio.current_time() < self._distrusted_until
        return Known(self.name, self.options, self.summary, self._claimed, distrusted, self.alive)

    def took(self, vcpus: int, memory_mb: int, since: int) -> None:
        """It has claimed so much (in MiB), which its next summary will say. ``since``: ``summaries`` when it was asked;
        one that came meanwhile may say it already, and if not, the next one comes soon, which would else never come."""
        self.placed += 1
        if self.summaries == since:
            self._claimed = (self._claimed[0] + vcpus, self._claimed[1] + memory_mb)
        self._distrust = 0.0

    def gave_back(self, vcpus: int, memory_mb: int) -> None:
        """So much (in MiB) was released there."""
        self._claimed = (self._claimed[0] - vcpus, self._claimed[1] - memory_mb)

    def suspend(self, suspended: bool) -> None:
        """Have it be given no claims, or have it be given some again."""
        if suspended != self.suspended:
            self.suspended = suspended
            problem = "is given no claims: it does not say what became of too many" if suspended else "is given claims"
            log.warning("region %s %s", self.name, problem)

    def broke_its_word(self) -> None:
        """It has refused what its summary promised: for a while, the longer the more often, others come first."""
        self._distrust = min(max(2 * self._distrust, DISTRUST_SECONDS), LONGEST_DISTRUST)
        self._distrusted_until = trio.current_time() + self._distrust

    async def call(self, method: str, params: Any, *, key: str | None = None, within: float | None = None) -> Any:
        """Call a method there. HostlerError."""
        if self.in_circle:
            raise ConnectionLost(f"region {self.name}: {IN_CIRCLE}")
        if self._client is None:
            raise ConnectionLost(f"region {self.name} is not connected")
        return await self._client.call(method, params, key=key, within=within or self._ask_seconds)

    async def run(self) -> None:
        """Watch the region's summary, and ask once in a while whether it answers, for ever."""
        async with trio.open_nursery() as nursery:
            addresses = list(self.options.addresses)
            self._client = client = Client(
                addresses, nursery, token=self._token, within=self._ask_seconds, tls=self._tls
            )
            try:
                nursery.start_soon(self._take_summaries, client)
                watched = False
                while True:
                    try:
                        if not watched:
                            await client.call("watch", {"kinds": ["summary"]})
                            watched = True
                        await client.call("status")
                        self._found(True, "")
                    except HostlerError as error:
                        self._found(False, str(error))
                    await trio.sleep(PING_SECONDS)
            finally:
                self._client, self.alive = None, False

    def _found(self, alive: bool, problem: str) -> None:
        if self.in_circle:
            alive, problem = False, IN_CIRCLE
        if alive != self.alive:
            log.log(
                logging.INFO if alive else logging.WARNING, "region %s %s", self.name, "answers" if alive else problem
            )
            self._changed()
        self.alive, self.problem = alive, problem

    async def _take_summaries(self, client: Client) -> None:
        async for event in client.events:
            if event.summary is not None:
                self._take(event.summary)

    def _take(self, summary: RegionSummary) -> None:
        """Choose by a summary from now on, unless it is malformed: the one before is kept then."""
        problem = problem_of(summary)
        if problem is not None:
            self.summaries_ignored += 1
            if self._ignored != problem:
                log.error("the summaries of region %s are ignored: %s; is it of another version?", self.name, problem)
            self._ignored = problem
            return
        self._ignored = None
        if self.parent and self.parent in summary.parents and not self.in_circle:
            self.in_circle, self.summary = True, None
            log.error("region %s is asked nothing: %s, see [regions] of both", self.name, IN_CIRCLE)
            self._found(False, IN_CIRCLE)
        if self.in_circle:
            return
        self.summaries += 1
        self.summary, self._summary_at = summary, trio.current_time()
        self._claimed = (0, 0)
        self._changed()
