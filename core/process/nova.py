"""Nova's message bus beside the service: the table ``[nova]``, and the driver that is found by its entry point, so that
core imports nothing of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Annotated, Any, Final, Protocol

import msgspec
import trio

from ...placement.types.errors import InvalidValue
from ...placement.types.extras import not_importable
from ..service import Service
from .bus_metrics import BusMetrics

GROUP: Final = "hostler.buses"
_URL: Final = re.compile(r"[a-z0-9+.-]+://.*", re.IGNORECASE)
Positive = Annotated[float, msgspec.Meta(gt=0)]


class NovaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[nova]: where ``transport_url`` is set, the service answers Nova's scheduler RPC there.

    URLs may be @FILE. ``database`` is Nova's API database, ``cells`` those of cells, as URL or UUID=URL (none: those
    that the API database names). Seconds: between two looks at the databases, between two at all rows, how long one
    call may wait for its turn, after which age of its request a call is no longer carried out, and between two
    heartbeats in Nova's table ``services`` (Nova's report_interval)."""

    transport_url: str = ""
    database: str = ""
    cells: tuple[str, ...] = ()
    config_files: tuple[str, ...] = ()
    """Files of oslo.config, such as nova.conf, whose tables oslo_messaging_* say how the bus is used."""
    exchange: str = "nova"
    topic: str = "scheduler"
    host: str = ""
    """Name of this scheduler on the bus; empty: the machine's."""
    poll_seconds: Positive = 1.0
    full_seconds: Positive = 60.0
    call_seconds: Positive = 60.0
    stale_seconds: Positive = 1_800.0
    services_database: str = ""
    """Where Nova's table ``services`` has the row of this scheduler: a URL, @FILE, or ``cell0`` for the one that the
    API database names; empty: there is no row."""
    report_seconds: Positive = 10.0
    max_attempts: Annotated[int, msgspec.Meta(ge=1)] = 3
    """Hosts that are named for one instance, the chosen one among them (Nova's [scheduler] max_attempts)."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    """Calls that are read and answered at a time."""


class Bus(Protocol):
    """Serves a message bus on the service's state: `serve` in a service of its own; `stand_by`, and `lead` for each
    term, in a member of a cluster."""

    metrics: BusMetrics

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` or cancelled; started with what is to be shown as its address."""

    async def stand_by(self) -> str:
        """Check what can be checked while another member leads; what is to be shown as the address."""

    async def lead(self) -> None:
        """Serve for one term of a member that leads, until `drain` or cancelled. What the member then has not carried
        out goes back to the bus."""

    async def drain(self) -> None:
        """Take no more calls, and wait until those under way are answered."""

    def reload(self) -> None:
        """Have all that is read from elsewhere read again."""


def problems(options: NovaOptions) -> Iterator[tuple[str, str]]:
    """(key, problem) of values that cannot work."""
    if not options.transport_url:
        return
    if not options.transport_url.startswith("@") and not _URL.fullmatch(options.transport_url):
        yield "transport_url", "must be an URL such as rabbit://USER:PASSWORD@HOST:5672/, or @FILE with it"
    if not options.database:
        yield "database", "is needed: the URL of Nova's API database, or @FILE with it"
    if options.services_database not in ("", "cell0") and not re.match(r"@|.*:", options.services_database):
        yield "services_database", "must be an URL, @FILE with it, or cell0"


def open_bus(options: NovaOptions, service: Service, *, drain_seconds: float) -> Bus | None:
    """The bus of the table, None where it names none. InvalidValue if what it needs is not installed, or a value cannot
    work."""
    if not options.transport_url:
        return None
    found = {point.name: point for point in entry_points(group=GROUP)}
    if "nova" not in found:
        raise InvalidValue("no package that serves Nova's bus is installed", field="nova.transport_url")
    try:
        opened: Any = found["nova"].load()
    except Exception as error:
        raise not_importable(error, "Nova's bus", extra="openstack", field="nova.transport_url") from error
    bus: Bus = opened(options, service, drain_seconds=drain_seconds)
    return bus
