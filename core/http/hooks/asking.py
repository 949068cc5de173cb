"""What a hook asks the service: which of some hosts are best for a spec."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from ...engine_commands import Asked
from ...machine.ranking import Rank, Ranking
from ...service import Identity, Service
from ...tenancy.tenants import LOCAL


class Asking(Protocol):
    """Answers to questions, as hooks need them."""

    async def rank(self, spec: dict[str, Any], hosts: Iterable[str], project: str = "") -> Ranking:
        """Those of ``hosts`` that pass for a spec as RPC has it, best first. HostlerError if it is malformed."""


class OfService:
    """Asks a service, as its own user."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def rank(self, spec: dict[str, Any], hosts: Iterable[str], project: str = "") -> Ranking:
        asked = Asked(spec=msgspec.Raw(msgspec.msgpack.encode(spec)), project_id=project)
        question = Rank(request=asked, hosts=tuple(dict.fromkeys(hosts)), limit=0)
        if self._service.takes_long(question):
            raw = await self._service.ask_aside(Identity(LOCAL), question)
            return msgspec.msgpack.decode(raw, type=Ranking)
        answer: Ranking = self._service.ask(Identity(LOCAL), question)
        return answer
