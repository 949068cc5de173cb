"""Virtual guests of SoftLayer (IBM Cloud Classic). Nodes are datacenters: the cloud selects the host, and shows no
capacity, so each datacenter has the limits of its options. Needs the extra ``softlayer``.

The service has no key that joins two creations, and no call that sets a tag with a creation. So a guest's mark is its
host name and domain, by which it is looked up before it is made; of several that a lost answer left, the first one
counts, and the others are removed."""

from __future__ import annotations

import re
import xmlrpc.client
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Final, NamedTuple
from xml.parsers.expat import ExpatError

import msgspec
import trio

from ..http import Http, failure_of, open_http
from ..ongoing import Ongoing, look_until, open_ongoing
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    Facts,
    Guest,
    GuestSpec,
    GuestState,
    Mark,
    Node,
    NodeState,
    NotFound,
    Page,
    Permanent,
    Power,
    Quota,
    Transient,
    Unknown,
    read_options,
)

VERSION: Final = "3.1"
ENDPOINT: Final = "https://api.softlayer.com/xmlrpc/v3.1/"
TIMEOUT: Final = 900.0
"""Seconds for one change; a guest that is being made refuses all others for some minutes."""
READS: Final = "get"
"""Methods that begin so change nothing."""
MASK: Final = (
    "mask[id,hostname,domain,notes,maxCpu,maxMemory,datacenter[name],powerState[keyName],provisionDate,"
    "activeTransaction[transactionStatus[name]]]"
)

POWER: Final[Mapping[str, GuestState]] = {"RUNNING": "on", "HALTED": "off", "PAUSED": "paused"}
"""Power states of guests that are made."""
FAULTS: Final[Mapping[str, type[DriverError]]] = {
    "-32700": Permanent,  # the request is not well formed
    "-32701": Permanent,
    "-32702": Permanent,
    "-32600": Permanent,
    "-32601": Permanent,  # no such method
    "-32602": Permanent,  # wrong parameters
    "-32603": Unknown,  # internal error
    "-32500": Unknown,  # application error
    "-32400": Unknown,  # system error
    "-32300": Unknown,  # transport error
    "SoftLayer_Exception_ObjectNotFound": NotFound,
    "SoftLayer_Exception_InvalidLegacyToken": Denied,
    "SoftLayer_Exception_PermissionDenied": Denied,
    "SoftLayer_Exception_EncryptedToken_Expired": Denied,
    "SoftLayer_Exception_MissingCreationProperty": Permanent,
    "SoftLayer_Exception_InvalidValue": Permanent,
    "SoftLayer_Exception_WebService_RateLimitExceeded": Transient,
    "SoftLayer_Exception_Virtual_Host_Pool_InsufficientResources": Capacity,
}
"""Codes of faults by class."""
TEXTS: Final[Sequence[tuple[re.Pattern[str], type[DriverError]]]] = (
    (re.compile(r"insufficient (resources|capacity)|no (available|eligible) (host|router)", re.IGNORECASE), Capacity),
    (re.compile(r"rate limit|too many requests|try again", re.IGNORECASE), Transient),
    (re.compile(r"transaction", re.IGNORECASE), Transient),  # one is in progress
    (re.compile(r"(limit|maximum|quota).*(exceed|reach)|(exceed|reach).*(limit|maximum|quota)", re.IGNORECASE), Quota),
    (re.compile(r"invalid api token|permission|not authorized|access denied", re.IGNORECASE), Denied),
    (re.compile(r"unable to find object", re.IGNORECASE), NotFound),
)
"""What faults of other codes say, as SoftLayer_Exception_Public stands for most; the first that matches counts, else
they are permanent."""
_FLAVOR: Final = re.compile(r"[A-Z]+\d*_(\d+)X(\d+)X(\d+)(_\w+)?")
_HOSTNAME: Final = re.compile(r"hostler-([0-9a-f-]{36})-(\d{1,18})")
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_IMAGE: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NETWORK: Final = re.compile(r"(public|private):(\d{1,9})")
NETWORKS: Final = {"public": "primaryNetworkComponent", "private": "primaryBackendNetworkComponent"}
MEMORY_STEP: Final = 1_024
LONGEST_NOTES: Final = 1_000
LONGEST_LABEL: Final = 63


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``username`` and ``api_key``; the ``domain`` that domains of guests end with. ``types``: the flavors to
    use, such as ``B1_2X8X25``, with their price per hour: of those that a guest fits on, the cheapest is taken; without
    them guests have the CPUs and memory that they ask for. ``zones``, datacenters (default: all), each with limits of
    ``zone_vcpus``, ``zone_memory_mb`` and ``zone_disk_gb``, which the cloud does not tell. ``ssh_keys``: ids of keys of
    new guests. ``shutdown_seconds`` that a guest has to shut down before it is switched off."""

    username: str
    api_key: str
    domain: str = "hostler.internal"
    types: dict[str, float] = {}
    zones: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    zone_vcpus: Annotated[int, msgspec.Meta(ge=0)] = 1_024
    zone_memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 4_194_304
    zone_disk_gb: Annotated[int, msgspec.Meta(ge=0)] = 65_536
    ssh_keys: tuple[int, ...] = ()
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    look_seconds: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    endpoint: str = ENDPOINT
    poll: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    page: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 100


class Flavor(NamedTuple):
    """A size of guests."""

    vcpus: int
    memory_mb: int
    disk_gb: int = 0


class SoftLayerApi:
    """Calls of methods by XML-RPC."""

    def __init__(self, http: Http, options: Options) -> None:
        self._http, self._endpoint = http, options.endpoint.rstrip("/")
        self._login = {"username": options.username, "apiKey": options.api_key}

    async def call(
        self,
        service: str,
        method: str,
        *arguments: Any,
        key: int | None = None,
        limits: tuple[int, int] | None = None,
        only: Mapping[str, Any] | None = None,
    ) -> Any:
        """The result of a method. ``key``: id of the object; ``limits``: offset and number of the items wanted;
        ``only``: a filter of items, which services may ignore."""
        reads, name = method.startswith(READS), f"SoftLayer_{service}"
        headers: dict[str, Any] = {"authenticate": self._login}
        if key is not None:
            headers[f"{name}InitParameters"] = {"id": key}
        if limits is not None:
            headers["resultLimit"] = {"offset": limits[0], "limit": limits[1]}
        if only is not None:
            headers[f"{name}ObjectFilter"] = only
        if method in ("getVirtualGuests", "getObject") and service in ("Account", "Virtual_Guest"):
            headers["SoftLayer_ObjectMask"] = {"mask": MASK}
        body = xmlrpc.client.dumps(({"headers": headers}, *arguments), method, allow_none=True).encode()
        kind = {"Content-Type": "text/xml; charset=utf-8"}
        answer = await self._http.send("POST", f"{self._endpoint}/{name}", content=body, headers=kind, reads=reads)
        try:
            values, _ = xmlrpc.client.loads(answer.content, use_builtin_types=True)
        except xmlrpc.client.Fault as fault:
            raise error_of(str(fault.faultCode), str(fault.faultString), reads=reads) from None
        except (ExpatError, xmlrpc.client.Error, LookupError, TypeError, ValueError) as error:
            if not answer.is_success:
                raise failure_of(answer, reads=reads) from None
            raise (Transient if reads else Unknown)(f"{method}: the answer is no XML-RPC: {error}") from error
        return values[0]


def error_of(code: str, text: str, *, reads: bool) -> DriverError:
    """The error for a fault. What only reads is never of unknown outcome."""
    kind = FAULTS.get(code) or next((kind for pattern, kind in TEXTS if pattern.search(text)), Permanent)
    if kind is Unknown and reads:
        kind = Transient
    return kind(f"{code}: {text}", backend_code=code)


class SoftLayerDriver:
    """An account."""

    def __init__(self, api: SoftLayerApi, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._api, self._options, self._installation, self._ongoing = api, options, installation, ongoing
        self._flavors = {name: _flavor(name) for name in options.types}
        self._domain = f"{installation}.{options.domain}"
        can = Can.COMPUTE | Can.CHOOSES_HOST
        self.facts = Facts("softlayer", VERSION, can, options.poll, options.concurrency, TIMEOUT)

    async def check(self) -> None:
        """Ask for the account."""
        await self._api.call("Account", "getVirtualGuests", limits=(0, 1))

    # what there is

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The datacenters, with what all guests of the account in them take. One that takes no more orders, and has
        guests, is in maintenance."""
        options, guests = self._options, [guest async for page in self.guests() for guest in page.items]
        nodes, offered = [], await self._zones()
        closed = set() if options.zones is not None else {guest.node for guest in guests} - {"", *offered}
        for zone in [*offered, *sorted(closed)]:
            here = [guest for guest in guests if guest.node == zone]
            used = sum(guest.vcpus for guest in here), sum(guest.memory_mb for guest in here)
            limits = options.zone_vcpus, options.zone_memory_mb, options.zone_disk_gb
            state: NodeState = "maintenance" if zone in closed else "up"
            nodes.append(Node(zone, *limits, *used, state=state, hypervisor="SoftLayer"))
        yield Page(tuple(nodes))

    async def _zones(self) -> list[str]:
        if self._options.zones is not None:
            return self._options.zones
        found = await self._api.call("Virtual_Guest", "getCreateObjectOptions")
        try:
            return sorted({each["template"]["datacenter"]["name"] for each in found["datacenters"]})
        except (LookupError, TypeError) as error:
            raise Transient(f"getCreateObjectOptions names no datacenters: {error!r}") from error

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """All guests of the account."""
        async with aclosing(self._pages()) as pages:
            async for items in pages:
                yield Page(tuple(_seen(item, self._options.domain) for item in items if not _is_gone(item)))

    async def _pages(self) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Items by pages, each of which begins with the last item of the one before: where that is not so, guests
        before it were removed meanwhile, and what moved into their places is read too."""
        seen, last, offset, size = set[int](), None, 0, self._options.page
        by_id = {"virtualGuests": {"id": {"operation": "orderBy", "options": [{"name": "sort", "value": ["ASC"]}]}}}
        while True:
            found = await self._api.call("Account", "getVirtualGuests", limits=(offset, size), only=by_id)
            items = _items_of(found)
            keys = [_id_of(item) for item in items]
            if offset and last not in keys:
                offset = max(0, offset - size // 2)
                last = None if offset == 0 else last
                continue
            yield [item for item, key in zip(items, keys, strict=True) if key not in seen]
            seen.update(keys)
            if len(items) < size:
                return
            last, offset = keys[-1], offset + size - 1

    async def get_guest(self, uuid: str) -> Guest:
        """Look a guest up by its host name."""
        return _seen(await self._item(uuid), self._options.domain)

    async def _item(self, uuid: str) -> dict[str, Any]:
        found = await self._items(uuid)
        if not found:
            raise NotFound(f"there is no guest {uuid}")
        return found[0]

    async def _items(self, uuid: str) -> list[dict[str, Any]]:
        """All guests of this installation with a uuid, the first one first."""
        by_name, found = {"virtualGuests": {"hostname": {"operation": f"^= hostler-{uuid}-"}}}, []
        for item in _items_of(await self._api.call("Account", "getVirtualGuests", only=by_name)):
            mark = _mark_of(item, self._options.domain)
            if mark is not None and mark[:2] == (self._installation, uuid) and not _is_gone(item):
                found.append(item)
        return sorted(found, key=_id_of)

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Order a guest, which is made within some minutes."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: GuestSpec) -> Guest:
        name, size = self._size(want)
        found = await self._items(want.mark.uuid)
        if found:
            guest = _seen(found[0], self._options.domain)
            if (guest.mark, guest.node, guest.vcpus, guest.memory_mb) != (want.mark, want.node, *size[:2]):
                raise Conflict(f"guest {want.mark.uuid} exists with another claim, datacenter or size")
            await self._remove(found[1:])
            key = _id_of(found[0])
        else:
            key = _id_of(await self._api.call("Virtual_Guest", "createObject", self._order(want, name, size)))
        if want.power == "off":
            await self._power(key, "off")
        return _seen(await self._look(key), self._options.domain)

    def _size(self, want: GuestSpec) -> tuple[str, Flavor]:
        """The cheapest flavor that a guest fits on, or, without flavors, its own size. Permanent if there is none."""
        if not self._flavors:
            memory_mb = -(-want.memory_mb // MEMORY_STEP) * MEMORY_STEP
            return "", Flavor(want.vcpus, memory_mb, want.disk_gb)
        need = (want.vcpus, want.memory_mb, want.disk_gb)
        fit = [
            (self._options.types[name], name)
            for name, flavor in self._flavors.items()
            if all(has >= needed for has, needed in zip(flavor, need, strict=True))
        ]
        if not fit:
            raise Permanent(f"no configured flavor has {want.vcpus} vCPUs, {want.memory_mb} MiB and {want.disk_gb} GiB")
        return min(fit)[1], self._flavors[min(fit)[1]]

    def _order(self, want: GuestSpec, name: str, size: Flavor) -> dict[str, Any]:
        """What createObject is given."""
        if want.volumes:
            raise Permanent("this driver attaches no volumes")
        if not want.image:
            raise Permanent(
                "an image is needed: the code of an operating system or the id of a template", field="image"
            )
        order: dict[str, Any] = {
            "hostname": f"hostler-{want.mark.uuid}-{want.mark.claim}",
            "domain": self._domain,
            "notes": _UNPRINTABLE.sub(" ", want.name)[:LONGEST_NOTES],
            "datacenter": {"name": want.node},
            "hourlyBillingFlag": True,
        }
        if name:
            order["supplementalCreateObjectOptions"] = {"flavorKeyName": name}
        else:
            order |= {"startCpus": size.vcpus, "maxMemory": size.memory_mb, "localDiskFlag": False}
            if size.disk_gb:
                order["blockDevices"] = [{"device": "0", "diskImage": {"capacity": size.disk_gb}}]
        if _IMAGE.fullmatch(want.image):
            order["blockDeviceTemplateGroup"] = {"globalIdentifier": want.image}
        else:
            order["operatingSystemReferenceCode"] = want.image
        if want.user_data:
            order["userData"] = [{"value": want.user_data}]
        if self._options.ssh_keys:
            order["sshKeys"] = [{"id": key} for key in self._options.ssh_keys]
        return order | _networks(want)

    async def _look(self, key: int) -> dict[str, Any]:
        """A guest by its id."""
        item = await self._api.call("Virtual_Guest", "getObject", key=key)
        if not isinstance(item, dict) or _is_gone(item):
            raise NotFound(f"there is no guest with id {key}")
        return item

    async def _ready(self, key: int) -> dict[str, Any]:
        """A guest once no transaction is under way, which refuses changes."""
        return await look_until(lambda: self._look(key), _is_ready, seconds=self._options.look_seconds)

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Switch a guest on; or ask it to shut down, and switch it off if it does not."""
        return await self._ongoing.run(uuid, lambda: self._set_power(uuid, want))

    async def _set_power(self, uuid: str, want: Power) -> Guest:
        key = _id_of(await self._item(uuid))
        await self._power(key, want)
        return _seen(await self._look(key), self._options.domain)

    async def _power(self, key: int, want: Power) -> None:
        state = _state_of(await self._ready(key))
        if want == "on" and state != "on":
            await self._api.call("Virtual_Guest", "resume" if state == "paused" else "powerOn", key=key)
        elif want == "off" and state != "off":
            if self._options.shutdown_seconds and state == "on":
                with suppress(Conflict, Permanent):  # some operating systems do not take it
                    await self._api.call("Virtual_Guest", "powerOffSoft", key=key)
                with trio.move_on_after(self._options.shutdown_seconds):
                    await look_until(
                        lambda: self._look(key),
                        lambda item: _state_of(item) == "off",
                        seconds=self._options.look_seconds,
                    )
                    return
            await self._api.call("Virtual_Guest", "powerOff", key=key)

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Cancel a guest, once it is made."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        found = await self._items(uuid)
        marks = [_mark_of(item, self._options.domain) for item in found]
        await self._remove(
            item for item, mark in zip(found, marks, strict=True) if mark and claim in (None, mark.claim)
        )

    async def _remove(self, items: Iterable[Mapping[str, Any]]) -> None:
        for item in items:
            with suppress(NotFound):
                await self._ready(_id_of(item))
                await self._api.call("Virtual_Guest", "deleteObject", key=_id_of(item))


# Values of the API.


def _items_of(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Transient(f"the answer is no list of guests: {value!r:.100}")
    return value


def _id_of(item: Any) -> int:
    try:
        return int(item["id"])
    except (LookupError, TypeError, ValueError) as error:
        raise Unknown(f"the answer has no id: {error!r}") from error


def _transaction(item: Mapping[str, Any]) -> str | None:
    """The name of what is under way; None if nothing is."""
    active = item.get("activeTransaction") or None
    return None if active is None else str((active.get("transactionStatus") or {}).get("name") or "unnamed")


def _is_ready(item: Mapping[str, Any]) -> bool:
    return bool(item.get("provisionDate")) and _transaction(item) is None


def _is_gone(item: Mapping[str, Any]) -> bool:
    """True for a guest that was made and is being reclaimed; it is listed for a while."""
    return bool(item.get("provisionDate")) and "RECLAIM" in (_transaction(item) or "")


def _state_of(item: Mapping[str, Any]) -> GuestState:
    if not item.get("provisionDate"):
        return "building"
    return POWER.get((item.get("powerState") or {}).get("keyName", ""), "error")


def _mark_of(item: Mapping[str, Any], domain: str) -> Mark | None:
    """The mark in the host name and domain of a guest."""
    found, installation = _HOSTNAME.fullmatch(item.get("hostname", "")), item.get("domain", "")
    if found is None or not installation.endswith(f".{domain}"):
        return None
    return Mark.parse(str(Mark(installation.removesuffix(f".{domain}"), found[1], int(found[2]))))


def _seen(item: Mapping[str, Any], domain: str) -> Guest:
    return Guest(
        key=str(_id_of(item)),
        mark=_mark_of(item, domain),
        name=item.get("notes") or item.get("hostname", ""),
        node=(item.get("datacenter") or {}).get("name", ""),
        state=_state_of(item),
        vcpus=int(item.get("maxCpu") or 0),
        memory_mb=int(item.get("maxMemory") or 0),
    )


def _flavor(name: str) -> Flavor:
    """The size that the name of a flavor tells: CPUs, GiB of memory and of disk. Permanent for other names."""
    found = _FLAVOR.fullmatch(name)
    if found is None:
        raise Permanent(f"{name} is not the name of a flavor", field="options.types", hint="such as B1_2X8X25")
    return Flavor(int(found[1]), int(found[2]) * 1_024, int(found[3]))


def _networks(want: GuestSpec) -> dict[str, Any]:
    """The VLANs of a guest: at most a public and a private one."""
    parts = dict[str, Any]()
    for network in want.networks:
        found = _NETWORK.fullmatch(network)
        if found is None or NETWORKS[found[1]] in parts:
            raise Permanent(f"{network}: networks are public:VLAN and private:VLAN, each once", field="networks")
        parts[NETWORKS[found[1]]] = {"networkVlan": {"id": int(found[2])}}
    return parts


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[SoftLayerDriver]:
    """An account."""
    settings = read_options(options, Options)
    if len(context.installation) > LONGEST_LABEL:
        raise Permanent(f"the id of the installation is longer than the {LONGEST_LABEL} characters of a domain label")
    async with open_http(concurrency=settings.concurrency) as http, open_ongoing(TIMEOUT) as ongoing:
        driver = SoftLayerDriver(SoftLayerApi(http, settings), settings, context.installation, ongoing)
        await driver.check()
        yield driver
