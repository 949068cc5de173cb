"""Tokens that have expired are forgotten, whatever happened to the others, and after a snapshot as well."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.tenancy.commands import CreateDomain, CreateToken, CreateUser, DeleteUser, RevokeToken
from hostler.core.tenancy.tenants import Tenants

USERS = ("ann", "ben")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.integers(0, 9), st.sampled_from(USERS), st.integers(1, 8)),
        st.tuples(st.just("revoke"), st.integers(0, 9), st.just(""), st.just(0)),
        st.tuples(st.just("delete user"), st.just(0), st.sampled_from(USERS), st.just(0)),
        st.tuples(st.just("snapshot"), st.just(0), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@pytest.mark.property
@given(steps)
def test_a_new_token_removes_all_that_have_expired_and_no_other(steps: list[tuple[str, int, str, int]]) -> None:
    tenants, expected = Tenants(), dict[str, tuple[str, float]]()
    tenants.create_domain(CreateDomain(id="d"))
    for user in USERS:
        tenants.create_user(CreateUser(id=user, domain="d"), 1)
    for now, (step, number, user, lifetime) in enumerate(steps):
        name = f"t{number}"
        if step == "create" and name not in tenants.tokens:
            tenants.create_token(CreateToken(id=name, user=user, digest=bytes(32), expires=now + lifetime), now)
            expected = {each: values for each, values in expected.items() if values[1] > now}
            expected[name] = (user, now + lifetime)
        elif step == "revoke" and name in tenants.tokens:
            tenants.revoke_token(RevokeToken(id=name))
            del expected[name]
        elif step == "delete user":
            tenants.delete_user(DeleteUser(id=user))
            tenants.create_user(CreateUser(id=user, domain="d"), 1)
            expected = {each: values for each, values in expected.items() if values[0] != user}
        elif step == "snapshot":
            tenants = msgspec.msgpack.decode(msgspec.msgpack.encode(tenants), type=Tenants)
        assert {each: (token.user, token.expires) for each, token in tenants.tokens.items()} == expected
