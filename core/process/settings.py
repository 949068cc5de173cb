"""All settings of the service with defaults: a Struct for each table of the configuration file.

``config`` reads and checks them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from ...placement.types.errors import HostlerError, InvalidValue
from ..cluster.options import ClusterOptions
from ..http.config import MEMORY, PlacementConfig
from ..http.config import check as check_placement
from ..http.hooks.config import HooksConfig
from ..http.hooks.config import check as check_hooks
from ..machine.request_limits import RequestLimits
from ..rates import RateLimits
from ..reconcile.backend import BackendConfig
from ..regions.options import CascadeOptions, RegionOptions
from ..rpc.addresses import Address
from ..rpc.server import Limits
from ..rpc.tls import TlsVersion
from ..tenancy.admission import TenancyOptions
from ..writer.command_queue import QUEUE_LIMIT
from ..writer.writer import ANSWERS_KEPT, SNAPSHOT_EVERY
from .audit import FILE_BYTES, FILES
from .exposure import exposures
from .nova import NovaOptions
from .nova import problems as nova_problems

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
URL: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}/?")
_PLACEMENT_URL: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(/[^\s?#]*)?")
_ANY: Final = ("0.0.0.0", "::", "*")
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
KeyPath = tuple[str | int, ...]
"""Names of tables and keys, and positions in lists."""


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables: unknown keys are refused."""


class Tls(Table, frozen=True):
    """[rpc.tls]: PEM files, and the minimum protocol version. With ``client_ca`` clients may authenticate with
    certificates; with ``client_certificates`` required, they must."""

    certificate: str
    key: str
    client_ca: str | None = None
    client_certificates: Literal["optional", "required"] = "optional"
    minimum_version: TlsVersion = "1.2"


class Rpc(Table, frozen=True):
    """[rpc]: addresses (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT) and authentication: with ``auth`` tokens callers need
    a token or a certificate, except the service's own user on a Unix socket; with none every caller is a cloud
    admin."""

    listen: tuple[str, ...] = ("unix:hostler.sock",)
    auth: Literal["tokens", "none"] = "tokens"
    tls: Tls | None = None
    limits: Limits = Limits()


class EtcdTable(Table, frozen=True):
    """[data.etcd]: the URLs of the members of an etcd cluster, the prefix of all keys, a user of etcd with the file of
    the password, and for https the authorities of etcd's certificates and this client's own certificate and key, as PEM
    files."""

    endpoints: tuple[str, ...]
    prefix: str = "/hostler/"
    user: str | None = None
    password_file: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


class Data(Table, frozen=True):
    """[data]: where the journal is: ``sqlite``, in the folder, or ``etcd``, which makes the service one member of
    several. The folder of journal and snapshots (none: state is lost when the process ends), number of commands between
    two snapshots, whether the whole history is kept, and number of idempotency keys that are kept."""

    store: Literal["sqlite", "etcd"] = "sqlite"
    etcd: EtcdTable | None = None
    folder: str | None = None
    snapshot_every: Positive = SNAPSHOT_EVERY
    keep_history: bool = False
    keys_kept: Positive = ANSWERS_KEPT
    queue: Positive = QUEUE_LIMIT
    audit: bool = True
    audit_file_bytes: Positive = FILE_BYTES
    """Length at which the audit log begins a new file."""
    audit_files: Positive = FILES
    """Older files of it that are kept."""


class Operation(Table, frozen=True):
    """[operation]: where to serve /metrics, /healthz and /readyz over HTTP (HOST:PORT; none: nowhere), how much to log
    and in which form, where spans go (an installed OpenTelemetry exporter; none: as the process has set it up), how
    long to wait for answers to be read when stopping, and whether to start although people come in who do not say who
    they are."""

    http: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    traces: str | None = None
    drain_seconds: Seconds = 10.0
    insecure: bool = False


class Reconcile(Table, frozen=True):
    """[reconcile]: the folder of cloud-init user data, whose files guests name."""

    user_data: str | None = None


class Config(Table, frozen=True):
    """The whole file. ``policy`` is the path of a policy file (docs/policies.md), read again at SIGHUP; without one the
    policy in force stays, at first Nova's default. ``storage_policy``: a file that says how volumes are placed, such as
    a cinder.conf; without ``policy`` guests are then placed by Nova's defaults. ``shadow_policy``: one that each
    decision is compared with."""

    policy: str | None = None
    storage_policy: str | None = None
    shadow_policy: str | None = None
    rpc: Rpc = Rpc()
    limits: RequestLimits = RequestLimits()
    """What one request or call may ask for."""
    rates: RateLimits = RateLimits()
    """How often one user may call."""
    tenancy: TenancyOptions = TenancyOptions()
    """What users who are not cloud admins may specify."""
    data: Data = Data()
    operation: Operation = Operation()
    placement: PlacementConfig = PlacementConfig()
    """Where ``listen`` is set, the Placement API is served on the same state, with the same folder."""
    hooks: HooksConfig = HooksConfig()
    """Where ``listen`` is set, other schedulers' hooks are served there (docs/how-to/hooks.md)."""
    nova: NovaOptions = NovaOptions()
    """Where ``transport_url`` is set, Nova's scheduler RPC is answered (docs/how-to/beside-nova.md)."""
    backends: dict[str, BackendConfig] = {}
    """Back ends that carry out guests, by name."""
    reconcile: Reconcile = Reconcile()
    cluster: ClusterOptions = ClusterOptions()
    """How this member takes part, where [data] has the store etcd (docs/high-availability.md)."""
    regions: dict[str, RegionOptions] = {}
    """Regions that this service is the parent of, by name (docs/regions.md)."""
    cascade: CascadeOptions = CascadeOptions()

    @property
    def folder(self) -> str | None:
        """The data folder: that of [data], else that of the Placement API, if it is served."""
        if self.data.folder is None and self.placement.listen and self.placement.data != MEMORY:
            return self.placement.data or None
        return self.data.folder

    @property
    def addresses(self) -> list[Address]:
        """Where to listen."""
        return [Address.parse(text) for text in self.rpc.listen]


def http_address(text: str) -> Address:
    """Parse HOST:PORT. InvalidValue if it is malformed."""
    try:
        return Address.parse(f"tcp:{text}")
    except InvalidValue:
        hint = "such as 127.0.0.1:9464"
        raise InvalidValue(f"{text!r} is not HOST:PORT", field="operation.http", hint=hint) from None


def cluster_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Problems with [data] ``store``, [data.etcd] and [cluster]."""
    data, cluster, etcd = config.data, config.cluster, config.data.etcd
    if data.store != "etcd":
        if etcd is not None:
            yield ("data", "etcd"), 'is for the store etcd: set store = "etcd" in [data], or remove the table'
        return
    if etcd is None or not etcd.endpoints:
        yield ("data", "etcd"), 'the store etcd needs endpoints, such as ["https://10.0.0.1:2379"]'
        return
    for position, url in enumerate(etcd.endpoints):
        if not URL.fullmatch(url):
            yield ("data", "etcd", "endpoints", position), f"{url!r} is not http://HOST:PORT or https://HOST:PORT"
    if not etcd.prefix.strip("/") or not etcd.prefix.isascii():
        yield ("data", "etcd", "prefix"), "must be ASCII and not empty, such as /hostler/"
    if (etcd.user is None) != (etcd.password_file is None):
        yield ("data", "etcd", "user"), "a user needs a password_file, and the other way round"
    if (etcd.certificate is None) != (etcd.key is None):
        yield ("data", "etcd", "certificate"), "a certificate needs a key, and the other way round"
    if config.folder is None:
        yield ("data", "folder"), "is needed for snapshots"
    if data.keep_history:
        yield ("data", "keep_history"), "is not possible with the store etcd, which keeps what snapshots need"
    if cluster.name and not NAME.fullmatch(cluster.name):
        yield ("cluster", "name"), "a name has 1 to 64 letters, digits and ._-"
    yield from _advertise_problems(config)


def region_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Problems with [regions]."""
    for name, region in config.regions.items():
        if not NAME.fullmatch(name):
            yield ("regions", name), "a name has 1 to 64 letters, digits and ._-"
        if not region.addresses:
            yield ("regions", name, "addresses"), "needs an address, such as tls:10.0.0.1:7777"
        for position, text in enumerate(region.addresses):
            try:
                Address.parse(text)
            except InvalidValue as error:
                yield ("regions", name, "addresses", position), str(error)
        if region.token is not None and not region.token.startswith(("env:", "file:/")):
            yield ("regions", name, "token"), "is named as env:VARIABLE or file:/PATH"
        for position, former in enumerate(region.formerly):
            others = [each for other, each in config.regions.items() if other != name]
            if former in config.regions or any(former in each.formerly for each in others):
                yield ("regions", name, "formerly", position), f"{former} is another region's name"
    if config.regions:
        yield from _problems_of_a_parent(config)


def _problems_of_a_parent(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What works on hosts, of which a parent of regions has none."""
    why = "a parent of regions has no hosts: set this for its regions"
    if config.placement.listen:
        yield ("placement", "listen"), why
    if config.hooks.listen:
        yield ("hooks", "listen"), why
    if config.backends:
        yield ("backends",), why
    for name in ("storage_policy", "shadow_policy"):
        if getattr(config, name) is not None:
            yield (name,), why


def _advertise_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    given = config.cluster.advertise
    for position, text in enumerate(given or config.rpc.listen):
        path: KeyPath = ("cluster", "advertise", position) if given else ("cluster", "advertise")
        try:
            address = Address.parse(text)
        except InvalidValue as error:
            if given:
                yield path, str(error)
            continue
        if address.kind != "unix" and address.host in _ANY:
            yield path, f"{text} is no address that others can use: name one in advertise"
    yield from _placement_problems(config)


def _placement_problems(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """With the URL to which a member's clients of Placement are redirected."""
    key, url, listen = ("cluster", "advertise_placement"), config.cluster.advertise_placement, config.placement.listen
    if url:
        if not _PLACEMENT_URL.fullmatch(url) or urlsplit(url).hostname in _ANY:
            yield key, f"{url!r} is no URL that others can use, such as http://10.0.0.1:8778 or https://cloud/placement"
    elif listen and listen.rpartition(":")[0].strip("[]") in _ANY:
        yield key, f"{listen} is no address that others can use: name a URL in advertise_placement"


def problems_of(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """(key, problem) of values that have the right type but cannot work. Looks at no files."""
    rpc = config.rpc
    for position, text in enumerate(rpc.listen):
        try:
            address = Address.parse(text)
        except InvalidValue as error:
            yield ("rpc", "listen", position), str(error)
            continue
        if address.kind == "tls" and rpc.tls is None:
            yield ("rpc", "listen", position), "tls: needs a table [rpc.tls]"
    if rpc.tls is not None and rpc.tls.client_certificates == "required" and rpc.tls.client_ca is None:
        yield ("rpc", "tls", "client_certificates"), "required needs client_ca, the authority that signs them"
    for name in Limits.__struct_fields__:
        if getattr(rpc.limits, name) <= 0:
            yield ("rpc", "limits", name), "must be above 0"
    for name in RequestLimits.__struct_fields__:
        if getattr(config.limits, name) <= 0:
            yield ("limits", name), "must be above 0"
    for name in RateLimits.__struct_fields__:
        if not getattr(config.rates, name) >= 0:
            yield ("rates", name), "must not be negative"
    if config.operation.http is not None:
        try:
            http_address(config.operation.http)
        except InvalidValue as error:
            yield ("operation", "http"), str(error)
    if config.data.folder == MEMORY:
        yield ("data", "folder"), f"{MEMORY} is not a folder: remove the key to run without durable state"
    yield from cluster_problems(config)
    yield from region_problems(config)
    if not config.operation.insecure:
        yield from exposures(rpc.auth, rpc.listen, config.placement, config.hooks)
    if config.hooks.listen:
        try:
            check_hooks(config.hooks)
        except InvalidValue as error:
            yield ("hooks", *(error.field or "").split(".")), str(error)
    for key, problem in nova_problems(config.nova):
        yield ("nova", key), problem
    for name, backend in config.backends.items():
        if not NAME.fullmatch(name):
            yield ("backends", name), "a name has 1 to 64 letters, digits and ._-"
        if not backend.grace > 0:
            yield ("backends", name, "grace"), "must be above 0"
    try:
        check_placement(config.placement)
    except HostlerError as error:
        yield ("placement", *(error.field or "").split(".")), str(error)


def changed_for_a_start(old: Config, new: Config) -> list[str]:
    """Dotted keys that differ, of those that are read only when the service starts."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for values in (before, after):
        for read_again in ("policy", "storage_policy", "shadow_policy"):
            del values[read_again]
        del values["operation"]["log_level"], values["operation"]["log_format"]
        if old.rpc.tls is not None and new.rpc.tls is not None:
            values["rpc"]["tls"] = values["rpc"]["tls"]["client_certificates"]
    changed = [
        f"{table}.{key}"
        for table in before
        for key in before[table] | after[table]
        if before[table].get(key) != after[table].get(key)
    ]
    if (old.shadow_policy is None) != (new.shadow_policy is None):
        changed.append("shadow_policy")
    return changed
