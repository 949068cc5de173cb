"""Roles and tokens: who gives them, takes them back, and to whom."""

from __future__ import annotations

import pytest

from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed
from tests.core.orders import order, place

from .test_access import world


def test_a_role_is_taken_back_and_a_deleted_user_has_none() -> None:
    made = world()
    made.apply(order(place(7, project="own"), user="member"))
    made.apply(order(c.Revoke(user="member", role="member", scope="project:own"), user="project_admin"))
    with pytest.raises(NotAllowed):
        made.apply(order(place(8, project="own"), user="member"))
    made.apply(order(c.DeleteUser(id="project_admin")))
    with pytest.raises(NotAllowed):
        made.apply(order(place(8, project="own"), user="project_admin"))


def test_an_admin_cannot_hand_on_more_than_he_has() -> None:
    made = world()
    wanted: list[tuple[str, c.Role, str]] = [
        ("project_admin", "domain_admin", "domain:home"),
        ("project_admin", "cloud_admin", "cloud"),
        ("domain_admin", "reader", "cloud"),
        ("member", "reader", "project:own"),
    ]
    for user, role, scope in wanted:
        with pytest.raises(NotAllowed):
            made.apply(order(c.Grant(user="nobody", role=role, scope=scope), user=user))


def test_a_domain_admin_gets_no_token_of_somebody_who_is_more() -> None:
    made = world()
    with pytest.raises(NotAllowed):
        made.apply(order(c.CreateToken(id="x", user="cloud_admin", digest=bytes(32), expires=2e9), user="domain_admin"))


def test_every_user_may_have_a_token_of_their_own() -> None:
    made = world()
    made.apply(order(c.CreateToken(id="x", user="nobody", digest=bytes(32), expires=2e9), user="nobody"))
    made.apply(order(c.RevokeToken(id="x"), user="nobody"))
