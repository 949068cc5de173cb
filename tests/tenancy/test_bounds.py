"""How much tenants' admins may have the service keep, and that nothing of it is looked for through all tenants."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.machine import queries as q
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.tenant_queries import ShowUsage
from hostler.core.tenancy import bounds
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.tenants import Tenants
from hostler.placement.types.errors import HostlerError
from tests.core.orders import NOW, order

from .worlds import do, old, refused, replayed, two_domains


def token(number: int, user: str) -> c.CreateToken:
    return c.CreateToken(id=f"x{number}", user=user, digest=bytes(32), expires=NOW + 9)


def few(monkeypatch: pytest.MonkeyPatch) -> ServiceMachine:
    """Two domains that may have what they have now and one more of each kind."""
    made = two_domains(1)
    counts = made.state.tenants._index.counts
    for kind in bounds.MOST:
        monkeypatch.setitem(bounds.MOST, kind, counts["domain:b", kind] + 1)
    return made


MORE: dict[str, tuple[Any, Any]] = {
    "projects": (c.CreateProject(id="x1", domain="b"), c.CreateProject(id="x2", parent="b1")),
    "users": (c.CreateUser(id="x1", domain="b"), c.CreateUser(id="x2", domain="b")),
    "tokens": (token(1, "bob"), token(2, "bea")),
    "roles": (
        c.Grant(user="bob", role="project_admin", scope="project:b1"),
        c.Grant(user="bob", role="reader", scope="domain:b"),
    ),
    "limits": (
        c.SetLimits(scope="project:b1", limits={"VCPU": 9}),
        c.SetLimits(scope="project:b1", limits={"CUSTOM_X": 9}),
    ),
}
UNDO: dict[str, Any] = {
    "projects": c.DeleteProject(id="x1"),
    "users": c.DeleteUser(id="x1"),
    "tokens": c.RevokeToken(id="x1"),
    "roles": c.Revoke(user="bob", role="project_admin", scope="project:b1"),
    "limits": c.SetLimits(scope="project:b1", limits={"VCPU": -1}),
}


@pytest.mark.parametrize("kind", bounds.MOST)
def test_a_domain_has_so_much_at_most(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, (first, second) = few(monkeypatch), MORE[kind]
    do(made, first, user="bea")
    code, text = refused(made, second, "bea")
    assert code == "quota_exceeded"
    count = bounds.MOST[kind]
    told = kind == "users"  # which only the domain's admins make; of projects, here, one is made below another
    words = (
        f"domain:b has {count} {kind}, and may have {count}" if told else f"there may be no more {kind} in the domain"
    )
    assert words in text
    do(made, UNDO[kind], second, user="bea")


@pytest.mark.parametrize("kind", bounds.MOST)
def test_the_operator_sets_another_number(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, (first, second) = few(monkeypatch), MORE[kind]
    do(made, c.SetLimits(scope="domain:b", limits={kind: 0}), user="root")
    assert refused(made, first, "bea")[0] == "quota_exceeded"
    assert refused(made, c.SetLimits(scope="domain:b", limits={kind: 99}), "bea")[0] == "not_allowed"
    do(made, c.SetLimits(scope="domain:b", limits={kind: 99}), user="root")
    do(made, first, second, user="bea")
    shown = q.answer(made.state, "bea", ShowUsage(scope="domain:b"))
    assert shown.used[kind] == made.state.tenants._index.counts["domain:b", kind]


def test_a_project_has_as_many_below_it_as_its_limit_says() -> None:
    made = two_domains(1)
    do(made, c.SetLimits(scope="project:b1", limits={"projects": 2}), user="bea")
    do(made, c.CreateProject(id="x1", parent="b1"), c.CreateProject(id="x2", parent="x1"), user="pat")
    assert refused(made, c.CreateProject(id="x3", parent="x2"), "pat")[0] == "quota_exceeded"
    do(made, c.CreateProject(id="x3", domain="b"), user="bea")


def test_projects_are_so_deep_at_most() -> None:
    made = two_domains(1)
    for depth in range(2, bounds.MOST_DEPTH + 1):
        do(made, c.CreateProject(id=f"b{depth}", parent=f"b{depth - 1}"), user="pat")
    assert refused(made, c.CreateProject(id="deeper", parent=f"b{bounds.MOST_DEPTH}"), "pat")[0] == "invalid_value"


def test_one_user_and_one_scope_have_so_much_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    made = two_domains(1)
    monkeypatch.setattr(bounds, "MOST_ROLES", 2)
    monkeypatch.setattr(bounds, "MOST_LIMITS", 2)
    readers = [c.Grant(user="bob", role="reader", scope=scope) for scope in ("domain:b", "project:b1")]
    do(made, readers[0], readers[0], user="bea")
    assert refused(made, readers[1], "bea")[0] == "quota_exceeded"
    many = tuple(f"{number}.example" for number in range(bounds.MOST_IDENTITIES + 1))
    assert refused(made, c.CreateUser(id="x", domain="b", identities=many), "root")[0] == "invalid_value"
    do(made, c.SetLimits(scope="project:b1", limits={"VCPU": 1, "MEMORY_MB": 1}), user="bea")
    do(made, c.SetLimits(scope="project:b1", limits={"VCPU": -1, "DISK_GB": 1}), user="bea")
    for limits in ({"VCPU": 1}, {"X" * 256: 1}, {"": 1}, {f"X{number}": -1 for number in range(5)}):
        assert refused(made, c.SetLimits(scope="project:b1", limits=limits), "bea")[0] == "invalid_value"


def test_a_journal_from_before_keeps_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = two_domains(1)
    monkeypatch.setattr(bounds, "MOST", dict.fromkeys(bounds.MOST, 0))
    for first, second in MORE.values():
        data = [msgspec.msgpack.encode([NOW, "bea", each, 7]) for each in (first, second)]
        assert not [each for each in replayed(made, *data) if isinstance(each, HostlerError)]
    assert not isinstance(replayed(made, old(c.CreateProject(id="x9", domain="b"), "bea"))[0], HostlerError)
    assert refused(made, c.CreateProject(id="x10", domain="b"), "bea")[0] == "quota_exceeded"


IDS, PROJECTS = st.sampled_from("uvw"), st.sampled_from("pqr")
SCOPES = st.one_of(PROJECTS.map("project:{}".format), st.sampled_from(("domain:d", "domain:e", "cloud")))
DOMAINS = st.sampled_from("de")
COMMANDS = st.lists(
    st.one_of(
        st.builds(c.CreateProject, id=PROJECTS, domain=DOMAINS | st.none(), parent=PROJECTS | st.none()),
        st.builds(c.DeleteProject, id=PROJECTS),
        st.builds(c.CreateUser, id=IDS, domain=DOMAINS, identities=st.lists(st.sampled_from("ij")).map(tuple)),
        st.builds(c.DeleteUser, id=IDS),
        st.builds(c.Grant, user=IDS, role=st.sampled_from(("reader", "member")), scope=SCOPES),
        st.builds(c.Revoke, user=IDS, role=st.sampled_from(("reader", "member")), scope=SCOPES),
        st.builds(c.SetLimits, scope=SCOPES, limits=st.dictionaries(st.sampled_from("xyz"), st.integers(-1, 2))),
        st.builds(c.DeleteDomain, id=DOMAINS),
        st.builds(c.CreateDomain, id=DOMAINS),
        st.builds(c.CreateToken, id=IDS, user=IDS, digest=st.just(bytes(32)), expires=st.just(NOW + 9)),
        st.builds(c.RevokeToken, id=IDS),
    ),
    max_size=40,
)


@pytest.mark.property
@given(COMMANDS)
def test_what_is_derived_is_that_of_the_records(commands: list[Any]) -> None:
    made = ServiceMachine()
    do(made, c.CreateDomain(id="d"), c.CreateDomain(id="e"))
    for command in commands:
        with contextlib.suppress(HostlerError):
            made.apply(order(command))
        tenants = made.state.tenants
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(tenants), type=Tenants)
        assert vars(tenants._index) == vars(again._index)
        for user in tenants.users.values():
            for _, scope in user.roles:
                tenants.check_scope(scope)
