"""Tokens that have expired are forgotten, whatever happened to the others, and after a snapshot as well."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.tenancy import commands as c
from hostler.core.tenancy.commands import CreateDomain, CreateToken, CreateUser, DeleteUser, RevokeToken
from hostler.core.tenancy.errors import QuotaExceeded
from hostler.core.tenancy.new_token import MOST_TOKENS, check_tokens
from hostler.core.tenancy.tenants import Tenants
from tests.core.orders import NOW

from .worlds import two_domains

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
        for user in USERS:
            good = [expires for owner, expires in expected.values() if owner == user and expires > now]
            assert tenants.tokens_at(user, now) == len(good)


def test_a_user_has_so_many_tokens_at_most_of_which_others_learn_nothing() -> None:
    made = two_domains(1)
    tenants = made.state.tenants
    for number in range(MOST_TOKENS):
        assert tenants.tokens_at("ann", NOW) == number
        check_tokens(tenants, "ann", "ann", NOW)
        command = c.CreateToken(id=f"t{number}", user="ann", digest=bytes(32), expires=NOW + 9 + number)
        tenants.create_token(command, NOW)
    for caller in ("ann", "ada", "root"):
        with pytest.raises(QuotaExceeded, match="1000 tokens"):
            check_tokens(tenants, caller, "ann", NOW)
    for caller in ("bob", "bea"):  # who are refused by what tells them nothing
        check_tokens(tenants, caller, "ann", NOW)
    check_tokens(tenants, "ann", "ann", NOW + 9)  # the first one has expired, though it is not forgotten yet
    tenants.revoke_token(RevokeToken(id="t5"))
    check_tokens(tenants, "ann", "ann", NOW)
