"""``hostler domain``, ``project``, ``user``, ``quota`` and ``token``: identities, access rights and quotas."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter
from cyclopts.validators import Number

from ...placement.types.errors import InvalidValue
from ..tenancy.tenants import TOKEN
from .remote import LOCAL, Remote, moment

domain = cyclopts.App(name="domain", help="Domains: customers, with projects and users of their own.")
project = cyclopts.App(name="project", help="Projects, which guests belong to.")
user = cyclopts.App(name="user", help="Users and their roles.")
quota = cyclopts.App(name="quota", help="Limits of domains and projects.")
token = cyclopts.App(name="token", help="Tokens, with which users authenticate.")

Role = Literal["reader", "member", "project_admin", "domain_admin", "cloud_admin"]
Suffixes = Annotated[
    list[str] | None, Parameter(help=".example.org or @example.org, repeatable", negative="", name="--identity-suffix")
]
Days = Annotated[float, Parameter(help="that it is good for", validator=Number(gt=0, lte=3_650))]


@domain.command(name="list")
def list_domains(*, remote: Remote = LOCAL) -> int:
    """All domains."""
    names = remote.ask("domains")
    remote.show(names) if remote.as_json else print("\n".join(names) or "none")
    return 0


@domain.command(name="create")
def create_domain(name: str, *, identity_suffix: Suffixes = None, remote: Remote = LOCAL) -> int:
    """Make a domain."""
    values = {"id": name, "identity_suffixes": identity_suffix or []}
    return remote.do("create_domain", values, f"domain {name} created")


@domain.command(name="set")
def set_domain(name: str, *, identity_suffix: Suffixes = None, remote: Remote = LOCAL) -> int:
    """Replace the suffixes within which admins of a domain give certificate names; without any, they give none."""
    values = {"domain": name, "suffixes": identity_suffix or []}
    return remote.do("set_identity_suffixes", values, f"domain {name} set")


@domain.command(name="delete")
def delete_domain(name: str, *, remote: Remote = LOCAL) -> int:
    """Delete a domain without projects and users."""
    return remote.do("delete_domain", {"id": name}, f"domain {name} deleted")


@project.command(name="list")
def list_projects(*, domain: str | None = None, remote: Remote = LOCAL) -> int:
    """Projects of a domain, or all."""
    return remote.table(remote.ask("projects", {"domain": domain}))


@project.command(name="create")
def create_project(
    name: str,
    *,
    domain: str | None = None,
    parent: str | None = None,
    adopt: Annotated[bool, Parameter(help="own the guests that were placed under its name", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Make a project in a domain, or below another project."""
    values = {"id": name, "domain": domain, "parent": parent, "adopt": adopt}
    return remote.do("create_project", values, f"project {name} created")


@project.command(name="delete")
def delete_project(name: str, *, remote: Remote = LOCAL) -> int:
    """Delete a project without instances and projects below it."""
    return remote.do("delete_project", {"id": name}, f"project {name} deleted")


@user.command(name="list")
def list_users(*, domain: str | None = None, remote: Remote = LOCAL) -> int:
    """Users of a domain, or all, with their roles."""
    return remote.table(remote.ask("users", {"domain": domain}))


@user.command(name="create")
def create_user(name: str, *identities: str, domain: str, remote: Remote = LOCAL) -> int:
    """Create a user. IDENTITIES are names in client certificates that identify the user."""
    values = {"id": name, "domain": domain, "identities": identities}
    return remote.do("create_user", values, f"user {name} created")


@user.command(name="delete")
def delete_user(name: str, *, remote: Remote = LOCAL) -> int:
    """Delete a user with all roles and tokens."""
    return remote.do("delete_user", {"id": name}, f"user {name} deleted")


@user.command(name="grant")
def grant(name: str, role: Role, scope: str, *, remote: Remote = LOCAL) -> int:
    """Give a user a role in cloud, domain:ID or project:ID."""
    return remote.do("grant", {"user": name, "role": role, "scope": scope}, f"{name} is {role} of {scope}")


@user.command(name="revoke")
def revoke(name: str, role: Role, scope: str, *, remote: Remote = LOCAL) -> int:
    """Take a role back."""
    return remote.do(
        "revoke", {"user": name, "role": role, "scope": scope}, f"{name} no longer has the role {role} in {scope}"
    )


@quota.command(name="show")
def show_quota(scope: str, *, remote: Remote = LOCAL) -> int:
    """Limits of a domain or project, and what it uses."""
    from .hosts import show_usage

    return show_usage(scope, remote=remote)


@quota.command(name="set")
def set_quota(scope: str, limit: str, *more: str, remote: Remote = LOCAL) -> int:
    """Set limits, as NAME=NUMBER: instances, or a resource class; -1 lifts one."""
    limits: dict[str, Any] = {}
    for text in (limit, *more):
        name, _, number = text.partition("=")
        try:
            limits[name] = int(number)
        except ValueError:
            raise InvalidValue(f"{text!r} is not NAME=NUMBER", field="limit") from None
    return remote.do("set_limits", {"scope": scope, "limits": limits}, f"limits of {scope} set")


@token.command(name="list")
def list_tokens(user: str, *, remote: Remote = LOCAL) -> int:
    """Tokens of a user, without their secrets."""
    found = remote.ask("tokens", {"user": user})
    if remote.as_json:
        return remote.table(found)
    remote.lines(["id", "expires"], [[each.id, moment(each.expires)] for each in found])
    return 0


@token.command(name="create")
def create_token(user: str | None = None, *, days: Days = 90.0, remote: Remote = LOCAL) -> int:
    """Create a token for a user, or for oneself. It is shown only once."""
    made = remote.ask("create_token", {"user": user, "days": days})
    if remote.as_json:
        remote.show(made)
    else:
        print(made.token)
    return 0


@token.command(name="revoke")
def revoke_token(name: str, *, remote: Remote = LOCAL) -> int:
    """Revoke a token, given its id or its text."""
    match = TOKEN.fullmatch(name)
    name = match[1] if match else name
    return remote.do("revoke_token", {"id": name}, f"token {name} revoked")
