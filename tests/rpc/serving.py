"""A service with its server in the test's own process, and certificates."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hostler.core.engine_commands import AddHosts
from hostler.core.journal.journal import Journal
from hostler.core.machine.event_log import KEPT, History
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.machine.replicated import Replayed
from hostler.core.rpc.addresses import Address
from hostler.core.rpc.server import Limits, RpcServer
from hostler.core.service import Service
from hostler.core.tasks import background
from hostler.core.writer.writer import open_writer
from tests.core.orders import LOCAL, NOW, hosts

from ..patience import HANG_SECONDS


@dataclass
class Served:
    """A running service: where it listens, and its parts."""

    addresses: list[str]
    service: Service
    server: RpcServer

    @property
    def address(self) -> str:
        return self.addresses[0]

    async def do(self, *commands: Any) -> None:
        """Have commands carried out by the service itself."""
        for command in commands:
            await self.service.writer.submit(Order(NOW, LOCAL, command))

    async def token(self, user: str, days: float = 1.0) -> str:
        """A new token of a user."""
        command, token = self.service.new_token(user, days)
        await self.do(command)
        return token.token


@asynccontextmanager
async def serving(
    *addresses: str,
    count: int = 3,
    journal: Path | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    open_to_all: bool = True,
    remembered: int = KEPT,
    **writer_limits: int,
) -> AsyncIterator[Served]:
    """A service of so many hosts that listens on addresses, on a free port without any."""
    machine = ServiceMachine()
    kept = Journal.in_folder(journal) if journal is not None else None
    history = History(machine, remembered)
    async with open_writer(machine, kept, Replayed(0, history.add), **writer_limits) as writer:
        service = Service(machine, writer, open_to_all=open_to_all, history=history)
        server = RpcServer(service, limits, tls=tls)
        if count and not len(machine.state.fleet):
            await writer.submit(Order(NOW, LOCAL, AddHosts(hosts=hosts(count))))
        async with background() as nursery:
            try:
                wanted = [Address.parse(address) for address in addresses or ("tcp:127.0.0.1:0",)]
                found = await nursery.start(server.serve, wanted)
                yield Served([str(address) for address in found], service, server)
            finally:
                nursery.cancel_scope.cancel()


class Authority:
    """A certificate authority that signs for ``localhost`` and for clients."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, *, expired: bool = False) -> tuple[Path, Path]:
        """(certificate, key) files for a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, days=-1 if expired else 1)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        stem = f"{name}-expired" if expired else name
        certificate, secret = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 1) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


async def raw_stream(address: str) -> trio.SocketStream:
    """A plain TCP connection to an address."""
    parsed = Address.parse(address)
    return await trio.open_tcp_stream(parsed.host, parsed.port)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens soon."""
    with trio.fail_after(HANG_SECONDS):
        while not condition():  # noqa: ASYNC110  there is no event to wait for
            await trio.sleep(0.01)
