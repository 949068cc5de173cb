"""Two domains with projects, members and admins, on a few hosts, for the tests of tenancy."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from hostler.core.engine_commands import Asked, Place
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.tenancy import commands as c
from hostler.placement.types.decision import Decision
from hostler.placement.types.errors import HostlerError
from tests.core.orders import LOCAL, NOW, machine, order, uuid_of

ROLES: Final = {
    "ann": ("member", "project:a1"),
    "bob": ("member", "project:b1"),
    "ada": ("domain_admin", "domain:a"),
    "bea": ("domain_admin", "domain:b"),
    "pat": ("project_admin", "project:b1"),
    "root": ("cloud_admin", "cloud"),
}
"""User -> role and scope; each lives in the domain that the scope is in, root in a."""


def two_domains(count: int = 4) -> ServiceMachine:
    """Domains a and b with projects a1 and b1, and the users above."""
    made = machine(count)
    for domain in "ab":
        do(made, c.CreateDomain(id=domain), c.CreateProject(id=f"{domain}1", domain=domain))
    for user, (role, scope) in ROLES.items():
        home = "b" if "b" in scope else "a"
        do(made, c.CreateUser(id=user, domain=home), c.Grant(user=user, role=role, scope=scope))  # type: ignore[arg-type]  # one of them
    return made


def do(made: ServiceMachine, *commands: Any, user: str = LOCAL) -> Any:
    """Have commands carried out; the last answer."""
    answer = None
    for command in commands:
        answer = made.apply(order(command, user=user))
    return answer


def refused(made: ServiceMachine, command: Any, user: str) -> tuple[str, str]:
    """(code, message and hint) of a command that is refused, and changes nothing."""
    before = made.state.fleet.version, msgspec.msgpack.encode(made.state.tenants)
    with pytest.raises(HostlerError) as error:
        made.apply(order(command, user=user))
    assert (made.state.fleet.version, msgspec.msgpack.encode(made.state.tenants)) == before
    return error.value.code, str(error.value)


def asking(project: str, *uuids: int, flavor: Any = None, group: Any = None, user: str = "", **spec: Any) -> Asked:
    """A request of a project; ``flavor`` is fields over a small one's, or a name."""
    size = flavor if isinstance(flavor, str) else {"name": "small", "vcpus": 1, "memory_mb": 1_024, **(flavor or {})}
    raw = msgspec.Raw(msgspec.msgpack.encode({"flavor": size, **spec}))
    named = tuple(map(uuid_of, uuids))
    return Asked(spec=raw, instance_uuids=named, project_id=project, server_group=group, user_id=user)


def placed(made: ServiceMachine, user: str, project: str, *uuids: int, **what: Any) -> Decision:
    """The decision on a request of a user."""
    decision = do(made, Place(request=asking(project, *uuids, **what)), user=user)
    assert isinstance(decision, Decision)
    return decision


def node_of(decision: Decision) -> str:
    """Node of a guest that was placed."""
    assert decision.refusal is None, decision.refusal
    return decision.selections[0].node


def old(command: Any, user: str = LOCAL) -> bytes:
    """An order as journals of version 0.1 have it."""
    return msgspec.msgpack.encode([NOW, user, command])


def replayed(made: ServiceMachine, *orders: bytes) -> list[Any]:
    """Outcomes of orders out of a journal."""
    read: list[Order] = [made.decode(data) for data in orders]
    return made.apply_batch(read)
