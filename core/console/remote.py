"""Which service a command talks to, and how its answer is shown: tables for people, JSON for programs."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import structs

from ...placement.types.counting import counted
from ...placement.types.errors import InvalidValue
from ...placement.types.request import Flavor, Image, Request, RequestSpec
from .. import engine_commands as commands
from ..machine.queries import InstanceDetail
from ..rpc.client import BlockingClient
from ..rpc.tls import client_context

REFUSED: Final = 3
"""Exit code if no host fits the request."""
PLACES_SHOWN: Final = 20
"""Hosts or pools that ``fits`` lists."""
TIMES: Final = frozenset(("began", "created", "expires"))
"""Fields with times, in seconds since the epoch."""
PATIENCE: Final = 1.0
"""Seconds to wait for a service that is not there."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Remote:
    """The service, and the form of the answer."""

    server: Annotated[
        str,
        Parameter(
            env_var="HOSTLER_SERVER",
            help="unix:PATH, tcp:HOST:PORT or tls:HOST:PORT; of a cluster: several, with commas",
        ),
    ] = "unix:hostler.sock"
    token: Annotated[str | None, Parameter(env_var="HOSTLER_TOKEN", help="who you are")] = None
    ca: Annotated[Path | None, Parameter(env_var="HOSTLER_CA", help="authority of the service's certificate")] = None
    certificate: Annotated[Path | None, Parameter(env_var="HOSTLER_CERTIFICATE", help="your certificate")] = None
    private_key: Annotated[Path | None, Parameter(env_var="HOSTLER_PRIVATE_KEY", help="its key")] = None
    within: Annotated[float, Parameter(help="seconds to wait for an answer", validator=Number(gt=0, lte=86_400))] = 30.0
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="JSON instead of tables")] = False

    @contextmanager
    def client(self) -> Iterator[BlockingClient]:
        """A client of the service."""
        tls = None
        servers = [each.strip() for each in self.server.split(",")]
        if any(each.startswith("tls:") for each in servers):
            tls = client_context(self.ca, self.certificate, self.private_key)
        with BlockingClient(servers, token=self.token, within=self.within, patience=PATIENCE, tls=tls) as client:
            yield client

    def ask(self, method: str, params: Any = None) -> Any:
        """One call's answer."""
        with self.client() as client:
            return client.call(method, params)

    def do(self, method: str, params: Any, said: str) -> int:
        """Run one command; print ``said`` when it succeeds."""
        answer = self.ask(method, params)
        self.show(answer) if self.as_json else print(said)
        return 0

    def show(self, answer: Any) -> None:
        """A value as JSON."""
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode() + "\n")

    def table(self, rows: Sequence[Any], *, title: str | None = None) -> int:
        """Structs of one kind, a line each."""
        if self.as_json:
            self.show(rows)
            return 0
        if not rows:
            print("none")
            return 0
        names = rows[0].__struct_fields__
        lines = [[moment(value) if name in TIMES else value for name, value in _fields(row)] for row in rows]
        self.lines([name.replace("_", " ") for name in names], lines, title)
        return 0

    def listed(
        self,
        found: Sequence[Any],
        head: Sequence[str],
        row: Callable[[Any], Sequence[Any]],
        *,
        page: int = 0,
        by: str = "",
    ) -> int:
        """Values of one kind, a line each that ``row`` makes. ``page``: at most so many were asked for, in the order of
        the field ``by``; 0: all."""
        if self.as_json:
            self.show(found)
        elif not found:
            print("none")
        else:
            self.lines(head, [row(each) for each in found])
            if page:
                self.more(found, page, by)
        return 0

    def more(self, found: Sequence[Any], limit: int, name: str) -> None:
        """Say how to get the next page of a list, if there may be one. ``name``: the field that orders the list."""
        if len(found) == limit and not self.as_json:
            print(f"there may be more: --after {getattr(found[-1], name)}")

    def fitting(self, found: Any, place: str, what: str, *, heading: str = "") -> int:
        """How many more of ``what`` fit, and in the places that take most. ``place``: what one of those is called;
        ``heading``: in the table, if otherwise."""
        if self.as_json:
            self.show(found)
            return 0
        print(f"{found.count} more fit" + (f", on {counted(len(found.by_host), place)}" if found.by_host else ""))
        if found.by_host:
            best = sorted(found.by_host.items(), key=lambda pair: (-pair[1], pair[0]))
            self.lines([heading or place, what], best[:PLACES_SHOWN])
        return 0

    def lines(self, head: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
        """A table for people."""
        from rich.console import Console
        from rich.table import Table

        table = Table(*head, title=title, title_justify="left")
        for row in rows:
            table.add_row(*map(_cell, row))
        Console(width=None if sys.stdout.isatty() else 200).print(table)


def _fields(row: Any) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(row, name)) for name in row.__struct_fields__)


def moment(seconds: float | None) -> str | None:
    """A time in seconds since the epoch, in UTC to the minute."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="minutes")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(" of ".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in value)
    return str(value)


LOCAL: Final = Remote()
USUAL: Final = {"VCPU": 1, "MEMORY_MB": 1_024, "DISK_GB": 0}
"""Default size of a guest."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asked:
    """A guest that is asked for."""

    vcpus: Annotated[int | None, Parameter(help="virtual CPUs; 1, or as many as the guest has")] = None
    memory_mb: Annotated[int | None, Parameter(help="memory in MiB; 1024, or as the guest has")] = None
    disk_gb: Annotated[int | None, Parameter(help="root disk in GiB; 0, or as the guest has")] = None
    flavor: Annotated[
        str | None, Parameter(help="a flavor that the service keeps; beside a size or extra specs: the name of these")
    ] = None
    image: Annotated[str | None, Parameter(help="an image that the service keeps")] = None
    extra_spec: Annotated[list[str], Parameter(help="NAME=VALUE, repeatable", negative="")] = field(
        default_factory=list
    )
    image_property: Annotated[list[str], Parameter(help="NAME=VALUE, repeatable", negative="")] = field(
        default_factory=list
    )
    hint: Annotated[list[str], Parameter(help="NAME=VALUE, repeatable", negative="")] = field(default_factory=list)
    zone: Annotated[str | None, Parameter(help="availability zone")] = None
    project: Annotated[str, Parameter(help="the project it is for")] = ""
    user: Annotated[str, Parameter(help="the user it is for")] = ""
    group: Annotated[str | None, Parameter(help="uuid of a server group")] = None
    uuid: Annotated[list[str], Parameter(help="uuid of the instance, repeatable", negative="")] = field(
        default_factory=list
    )
    alternates: Annotated[int, Parameter(help="further hosts to name")] = 0

    def request(self, guest: InstanceDetail | None = None) -> Request:
        """The request; omitted values of size and group are taken from ``guest``. InvalidValue if they cannot be
        derived from the guest's allocations."""
        vcpus, memory_mb, disk_gb = self._size(guest)
        group = self.group
        if guest is not None and group is None:
            group = guest.server_group
        hints: dict[str, list[str]] = {}
        for name, value in map(pair, self.hint):
            hints.setdefault(name, []).append(value)
        properties = dict(map(pair, self.image_property))
        return Request(
            spec=RequestSpec(
                flavor=Flavor(
                    name=self.flavor or "custom",
                    vcpus=vcpus,
                    memory_mb=memory_mb,
                    root_gb=disk_gb,
                    extra_specs=dict(map(pair, self.extra_spec)),
                ),
                image=Image(properties=properties) if properties else None,
                availability_zone=self.zone,
                scheduler_hints={name: tuple(values) for name, values in hints.items()},
            ),
            instance_uuids=tuple(self.uuid),
            project_id=self.project,
            user_id=self.user,
            server_group=group,
            alternates=self.alternates,
        )

    def asked(self, guest: InstanceDetail | None = None) -> commands.Asked:
        """The request as it is sent: a named flavor or image by its name."""
        if self._names_flavor or (guest is not None and guest.asked and "flavor" not in self.changes):
            guest = None if guest is None else structs.replace(guest, resources={}, elsewhere={})
        sent = commands.asked(self.request(guest))
        if not self._names_flavor and self.image is None:
            return sent
        spec = msgspec.msgpack.decode(sent.spec)
        if self._names_flavor:
            spec["flavor"] = self.flavor
        if self.image is not None:
            spec["image"] = self.image
        return structs.replace(sent, spec=msgspec.Raw(msgspec.msgpack.encode(spec)))

    @property
    def changes(self) -> tuple[commands.SpecField, ...]:
        """The fields of a spec that are given."""
        size = (self.vcpus, self.memory_mb, self.disk_gb, self.flavor)
        given: dict[commands.SpecField, bool] = {
            "flavor": size != (None,) * 4 or bool(self.extra_spec),
            "image": self.image is not None or bool(self.image_property),
            "availability_zone": self.zone is not None,
            "scheduler_hints": bool(self.hint),
        }
        return tuple(name for name, is_given in given.items() if is_given)

    @property
    def _names_flavor(self) -> bool:
        size = (self.vcpus, self.memory_mb, self.disk_gb)
        return self.flavor is not None and size == (None, None, None) and not self.extra_spec

    def _size(self, guest: InstanceDetail | None) -> tuple[int, int, int]:
        """CPUs, MiB of memory and GiB of disk."""
        given = (self.vcpus, self.memory_mb, self.disk_gb)
        if guest is None:
            held = USUAL
        else:
            held = {name: guest.resources.get(name, 0) for name in USUAL}
            more = sorted({*guest.resources, *(name for each in guest.elsewhere.values() for name in each)} - {*USUAL})
            if more and not self.extra_spec:
                problem = f"instance {guest.uuid} holds {', '.join(more)} as well, and its flavor is not known"
                raise InvalidValue(problem, field="extra_spec", hint="give its complete size, including extra specs")
        vcpus, memory_mb, disk_gb = (
            amount if amount is not None else held[name] for name, amount in zip(USUAL, given, strict=True)
        )
        return vcpus, memory_mb, disk_gb


def pair(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE. InvalidValue if it is malformed."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidValue(f"{text!r} is not NAME=VALUE", field="extra_spec, image_property or hint")
    return name, value


SMALL: Final = Asked()
