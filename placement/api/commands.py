"""Every write of the Placement API as a plain value, which a journal can keep; `PlacementModel.apply` carries it out.

Uuids are texts, dashed or not. ``now`` is the time of the command in seconds since the epoch: it becomes the time of
the last change of what the command writes. Encoded with msgspec, a command is a map whose key ``command`` names it.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from ..fleet.inventories import Inventory


class _Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True, tag_field="command"):
    now: float


# providers


class CreateProvider(_Command, frozen=True, kw_only=True):
    """Add a provider (POST /resource_providers): a root, or below ``parent``. Returns a Provider.

    ``uuid`` must be given: the creator of the command chooses it, so that a replay repeats it. Errors: BadRequest for
    an unknown parent, or one that is the provider itself; Conflict (duplicate_name) for a name or uuid that is taken.
    """

    uuid: str
    name: str
    parent: str | None = None


class UpdateProvider(_Command, frozen=True, kw_only=True):
    """Rename a provider, and put it elsewhere in the trees (PUT /resource_providers/{uuid}). Returns a Provider.

    ``parent``: left out, it stays; None, it becomes a root. ``may_move`` False (below 1.37): a provider that has a
    parent keeps it. The generation stays. Errors: NotFound; BadRequest for a parent that is unknown, below the
    provider, or not allowed; Conflict (duplicate_name).
    """

    uuid: str
    name: str
    parent: str | UnsetType | None = UNSET
    may_move: bool = True


class DeleteProvider(_Command, frozen=True, kw_only=True):
    """Remove a provider with its inventories, traits and memberships (DELETE /resource_providers/{uuid}).

    Errors: NotFound; Conflict: cannot_delete_parent while it has children, inuse while it has allocations.
    """

    uuid: str


# inventories


class AddInventory(_Command, frozen=True, kw_only=True):
    """Give a provider an inventory of one more class (POST .../inventories). Returns Inventories of that class.

    ``may_reserve_all`` False (below 1.26): reserved must leave something. Errors: NotFound; BadRequest for an unknown
    class or figures that leave less than no capacity; Conflict (concurrent_update) if there is one already.
    """

    provider: str
    resource_class: str
    inventory: Inventory
    may_reserve_all: bool = True


class SetInventories(_Command, frozen=True, kw_only=True):
    """Replace all inventories of a provider (PUT .../inventories). Returns all its Inventories.

    Errors: NotFound; BadRequest as AddInventory; Conflict: concurrent_update for another ``generation``,
    inventory.inuse for a class that would go and has allocations.
    """

    provider: str
    generation: int
    inventories: dict[str, Inventory]
    may_reserve_all: bool = True


class SetInventory(_Command, frozen=True, kw_only=True):
    """Change the inventory of one class (PUT .../inventories/{class}). Returns Inventories of that class.

    Errors: NotFound for the provider or a class that does not exist; BadRequest if the provider has none of the class,
    or for bad figures; Conflict (concurrent_update).
    """

    provider: str
    resource_class: str
    generation: int
    inventory: Inventory
    may_reserve_all: bool = True


class DeleteInventory(_Command, frozen=True, kw_only=True):
    """Take the inventory of one class away (DELETE .../inventories/{class}). Errors: NotFound; Conflict if it is in
    use."""

    provider: str
    resource_class: str


class DeleteInventories(_Command, frozen=True, kw_only=True):
    """Take all inventories away (DELETE .../inventories). Errors: NotFound; Conflict (inventory.inuse)."""

    provider: str


# traits, aggregates


class SetTraits(_Command, frozen=True, kw_only=True):
    """Replace a provider's traits (PUT .../traits). The generation moves only if they change. Returns ProviderTraits.

    Errors: NotFound; BadRequest for an unknown trait; Conflict (concurrent_update) for another ``generation``.
    """

    provider: str
    generation: int
    traits: tuple[str, ...]


class DeleteProviderTraits(_Command, frozen=True, kw_only=True):
    """Take all traits from a provider (DELETE .../traits). Errors: NotFound."""

    provider: str


class SetAggregates(_Command, frozen=True, kw_only=True):
    """Say which aggregates a provider is in (PUT .../aggregates). Returns ProviderAggregates.

    With ``generation`` (from 1.19) it is checked and moves, also if nothing else does; None neither checks nor moves
    it. Errors: NotFound; Conflict (concurrent_update).
    """

    provider: str
    aggregates: tuple[str, ...]
    generation: int | None = None


class CreateTrait(_Command, frozen=True, kw_only=True):
    """Make a trait known (PUT /traits/{name}). Returns True if it was not. Errors: BadRequest for a name that is
    neither standard nor CUSTOM_."""

    name: str


class DeleteTrait(_Command, frozen=True, kw_only=True):
    """Forget a trait (DELETE /traits/{name}). Errors: BadRequest for a standard one; NotFound; Conflict if a provider
    has it."""

    name: str


# resource classes


class CreateResourceClass(_Command, frozen=True, kw_only=True):
    """Create a custom resource class (POST /resource_classes; with ``may_exist``, PUT /resource_classes/{name}).
    Returns True if it was created. Errors: BadRequest for a name that is not CUSTOM_ (with ``may_exist``, or if it is
    not a standard class); Conflict if it exists.
    """

    name: str
    may_exist: bool = False


class RenameResourceClass(_Command, frozen=True, kw_only=True):
    """Call a custom resource class by another custom name (PUT /resource_classes/{name} below 1.7). Errors: NotFound;
    BadRequest for a standard class; Conflict if the new name exists."""

    name: str
    new_name: str


class DeleteResourceClass(_Command, frozen=True, kw_only=True):
    """Forget a custom resource class (DELETE /resource_classes/{name}). Errors: NotFound; BadRequest for a standard
    one; Conflict if a provider has inventory of it."""

    name: str


# allocations


class ConsumerAllocations(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All allocations of one consumer: ``allocations`` = {provider uuid: {resource class: amount}}; empty: remove it.

    ``generation``: that of the consumer, None if it must be new; omitted, it is not checked (below 1.28).
    ``consumer_type``: omitted, it is unchanged, None for a new one (below 1.38).
    """

    allocations: dict[str, dict[str, int]]
    project_id: str
    user_id: str
    generation: int | UnsetType | None = UNSET
    consumer_type: str | UnsetType | None = UNSET


class SetAllocations(_Command, frozen=True, kw_only=True):
    """Replace all allocations of each consumer (by uuid), all or none (PUT /allocations/{consumer}, POST /allocations).

    Errors: BadRequest for a malformed consumer uuid, an unknown provider or class; Conflict for no such inventory, no
    capacity, broken unit rules; Conflict (concurrent_update) for another consumer generation.

    ``infer_types``: a consumer whose type is not said stays what it was, or is recognised as a migration by what it
    takes over from an instance in the same command; False, as in journals of release 0.1: it is an instance.
    """

    consumers: dict[str, ConsumerAllocations]
    infer_types: bool = False


class DeleteAllocations(_Command, frozen=True, kw_only=True):
    """Take all allocations of a consumer away (DELETE /allocations/{consumer}). Errors: NotFound if it has none."""

    consumer: str


class ReshapedProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The final inventories of one provider, and its generation before."""

    generation: int
    inventories: dict[str, Inventory]


class Reshape(_Command, frozen=True, kw_only=True):
    """Move inventories and allocations between providers in one step (POST /reshaper), all or none.

    Capacity is checked against old and new inventories together, the new ones where both have a class. Errors:
    BadRequest (resource_provider.not_found) for an unknown provider among the inventories; else as SetInventories and
    SetAllocations.
    """

    providers: dict[str, ReshapedProvider]
    consumers: dict[str, ConsumerAllocations]
    infer_types: bool = False


PlacementCommand: TypeAlias = (
    CreateProvider
    | UpdateProvider
    | DeleteProvider
    | AddInventory
    | SetInventories
    | SetInventory
    | DeleteInventory
    | DeleteInventories
    | SetTraits
    | DeleteProviderTraits
    | SetAggregates
    | CreateTrait
    | DeleteTrait
    | CreateResourceClass
    | RenameResourceClass
    | DeleteResourceClass
    | SetAllocations
    | DeleteAllocations
    | Reshape
)
"""All commands; `msgspec.msgpack.Decoder(PlacementCommand)` reads what `msgspec.msgpack.encode` wrote."""
