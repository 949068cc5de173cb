"""Commands on tenants, pools, flavors, images and volume types, and what else of a state follows from them."""

from __future__ import annotations

from typing import Any

from ...placement.types.errors import InUse
from ..tenancy import commands as c
from ..tenancy.tenants import name_taken
from .orders import REPORTS_BY_UUID
from .state import ServiceState


def change_tenants(state: ServiceState, command: Any, now: float, rules: int) -> None:
    """Execute a command. HostlerError, with nothing changed, if it is refused."""
    tenants, pools = state.tenants, state.pools
    match command:
        case c.CreateDomain():
            tenants.create_domain(command)
        case c.SetIdentitySuffixes():
            tenants.set_identity_suffixes(command)
        case c.DeleteDomain(id=name):
            tenants.delete_domain(command)
            pools.forget_scope(f"domain:{name}")
        case c.CreateProject():
            _create_project(state, command, rules)
        case c.DeleteProject(id=name):
            if state.usage.of(f"project:{name}") or next(state.lives.of_project(name), None) is not None:
                hint = "release and remove them first"
                raise InUse(f"project {name} has instances, volumes or server groups", field="id", hint=hint)
            tenants.delete_project(command)
            pools.forget_scope(f"project:{name}")
            state.catalog.forget_project(name)
        case c.CreateUser():
            tenants.create_user(command, rules)
        case c.DeleteUser():
            tenants.delete_user(command)
        case c.Grant():
            tenants.grant(command, rules)
        case c.Revoke():
            tenants.revoke(command)
        case c.CreateToken():
            tenants.create_token(command, now, rules)
        case c.RevokeToken():
            tenants.revoke_token(command)
        case c.SetLimits():
            tenants.set_limits(command, rules)
        case (
            c.CreateFlavor()
            | c.DeleteFlavor()
            | c.CreateImage()
            | c.DeleteImage()
            | c.CreateVolumeType()
            | c.DeleteVolumeType()
        ):
            _change_catalog(state, command)
        case _:
            _change_pools(state, command)


def _create_project(state: ServiceState, command: c.CreateProject, rules: int) -> None:
    """Guests that were placed under the project's name belong to the cloud until a cloud admin has them adopted."""
    held = state.usage.of(f"project:{command.id}")
    if rules and held and command.id not in state.tenants.projects and not command.adopt:
        state.tenants.domain_of(command)
        raise name_taken(command.id)
    state.tenants.create_project(command, rules)
    if rules and held:
        if rules < REPORTS_BY_UUID:
            state.sum_up()  # usage, of other projects too, may still have what has expired
        else:
            state.usage.adopt(state.tenants, command.id)


def _change_catalog(state: ServiceState, command: c.CatalogCommand) -> None:
    match command:
        case c.CreateFlavor():
            state.catalog.create_flavor(state.tenants, command)
        case c.DeleteFlavor():
            state.catalog.delete_flavor(command)
        case c.CreateImage():
            state.catalog.create_image(state.tenants, command)
        case c.DeleteImage():
            state.catalog.delete_image(command)
        case c.CreateVolumeType():
            state.catalog.create_volume_type(state.tenants, command)
        case c.DeleteVolumeType(name=name):
            state.catalog.delete_volume_type(command, in_use=state.volumes.has_type(name))
    state.volume_specs.forget_all(state.catalog)
    state.specs.forget_named(state.catalog)


def _change_pools(state: ServiceState, command: Any) -> None:
    match command:
        case c.CreatePool():
            state.pools.create(state.fleet, command)
        case c.DeletePool():
            state.pools.delete(state.fleet, command)
        case c.SetPoolHosts():
            state.pools.set_hosts(state.fleet, command)
        case c.GrantPool():
            state.pools.grant(state.tenants, command)
        case c.UngrantPool():
            state.pools.ungrant(command)
