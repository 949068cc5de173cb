"""The Placement API's face on a fleet: `apply` carries a command out, the other methods read. Deterministic, not
thread-safe, no HTTP: who serves it translates microversions, bodies and errors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, Final

from ..fleet.fleet import Fleet
from ..request.placement_query import PlacementQuery, RequestGroup
from ..types.errors import HostlerError, InvalidValue
from ..types.validation import shown
from . import allocations, candidate_query, in_steps, inventories, provider_query, providers, reshaper, usages
from . import answers as v
from . import commands as c
from . import names as vocabulary
from . import traits_and_aggregates as memberships

_RULES: Final[dict[type, Callable[[Fleet, Any], object]]] = {
    c.CreateProvider: providers.create,
    c.UpdateProvider: providers.update,
    c.DeleteProvider: providers.delete,
    c.AddInventory: inventories.add,
    c.SetInventories: inventories.set_all,
    c.SetInventory: inventories.set_one,
    c.DeleteInventory: inventories.delete_one,
    c.DeleteInventories: inventories.delete_all,
    c.SetTraits: memberships.set_traits,
    c.DeleteProviderTraits: memberships.delete_traits,
    c.SetAggregates: memberships.set_aggregates,
    c.CreateTrait: vocabulary.create_trait,
    c.DeleteTrait: vocabulary.delete_trait,
    c.CreateResourceClass: vocabulary.create_resource_class,
    c.RenameResourceClass: vocabulary.rename_resource_class,
    c.DeleteResourceClass: vocabulary.delete_resource_class,
    c.SetAllocations: allocations.set_allocations,
    c.DeleteAllocations: allocations.delete_allocations,
    c.Reshape: reshaper.reshape,
}
"""What carries each command out."""


class PlacementModel:
    """One fleet as Placement shows it. Any number of models of one fleet are the same: they hold nothing themselves."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        """The version of the fleet that the model shows and changes."""

    def __repr__(self) -> str:
        return f"<PlacementModel of {self.fleet!r}>"

    def apply(self, command: c.PlacementCommand) -> object:
        """Carry a command out, whole or not at all; what it returns is said where the command is defined.

        Raises BadRequest, NotFound or Conflict, with Placement's code; other HostlerErrors are the caller's fault too.
        """
        rule = _RULES.get(type(command))
        if rule is None:
            raise InvalidValue(f"no such command: {shown(command)}", field="command")
        self.fleet._reclaim.if_due()
        with self.fleet._history.undoing():
            return rule(self.fleet, command)

    def apply_in_steps(self, command: c.PlacementCommand) -> Generator[None, None, object]:
        """``apply`` in steps of about a millisecond where allocations of many consumers are written. Between two steps
        others may read the fleet, where some of them are written, and change forks of it."""
        fleet = self.fleet
        steps = in_steps.write_in_steps(fleet, command)
        if steps is not None:
            fleet._reclaim.if_due()
            with suppress(HostlerError):  # said below, as of all together
                with fleet._history.undoing():
                    try:
                        yield from steps
                    finally:
                        fleet._entered()  # others may have used other versions since
                return None
        return self.apply(command)

    # providers

    def providers(
        self, *, name: str | None = None, uuid: str | None = None, group: RequestGroup | None = None
    ) -> list[v.Provider]:
        """Providers that meet all that is given, in row order.

        ``group``: resources each provider has free by itself, traits, direct memberships, ``in_tree``. BadRequest for
        an unknown class or trait; an unknown aggregate or tree has no members. O(rows), vectorised.
        """
        return provider_query.providers(self.fleet, name, uuid, group)

    def provider(self, uuid: str) -> v.Provider:
        """NotFound if there is none. O(1)."""
        return providers.show(self.fleet, providers.found(self.fleet, uuid))

    def inventories(self, provider: str) -> v.Inventories:
        """All inventories of a provider; NotFound. O(classes)."""
        return inventories.show_all(self.fleet, provider)

    def inventory(self, provider: str, resource_class: str) -> v.Inventories:
        """The inventory of one class; NotFound for the provider, or if it has none of that class. O(1)."""
        return inventories.show_one(self.fleet, provider, resource_class)

    def provider_usages(self, provider: str) -> v.ProviderUsages:
        """What is used of a provider; NotFound. O(classes)."""
        return inventories.usages(self.fleet, provider)

    def provider_aggregates(self, provider: str) -> v.ProviderAggregates:
        """NotFound for the provider. O(aggregates)."""
        return memberships.show_aggregates(self.fleet, provider)

    def provider_traits(self, provider: str) -> v.ProviderTraits:
        """NotFound for the provider. O(traits)."""
        return memberships.show_traits(self.fleet, provider)

    def provider_allocations(self, provider: str) -> v.ProviderAllocations:
        """What consumers hold of a provider; NotFound. O(its consumers)."""
        return allocations.show_provider(self.fleet, provider)

    # names

    def traits(
        self, *, names: Iterable[str] | None = None, prefix: str | None = None, associated: bool | None = None
    ) -> list[v.Named]:
        """Known traits: the standard ones sorted, then the others in the order they came. ``names``: only these;
        ``prefix``: only those that begin so (case counts); ``associated``: only those that some provider has, or
        none. O(traits), with ``associated`` also O(host classes)."""
        return vocabulary.list_traits(self.fleet, names, prefix, associated)

    def trait(self, name: str) -> v.Named:
        """NotFound if it is not known. O(1)."""
        return vocabulary.show_trait(self.fleet, name)

    def resource_classes(self) -> list[v.Named]:
        """The standard classes in their order, then the custom ones in the order they came. O(classes)."""
        return vocabulary.list_resource_classes(self.fleet)

    def resource_class(self, name: str) -> v.Named:
        """NotFound if it is not known. O(1)."""
        return vocabulary.show_resource_class(self.fleet, name)

    # consumers

    def allocations(self, consumer: str) -> v.ConsumerView | None:
        """What a consumer holds; None if it is not known. BadRequest for a malformed uuid. O(its allocations)."""
        return allocations.show_consumer(self.fleet, consumer)

    def usages(self, project_id: str, *, user_id: str | None = None) -> dict[str, int]:
        """{resource class: amount} that the consumers of a project, or of one user in it, hold. O(consumers of
        the project), vectorised."""
        return usages.of_project(self.fleet, project_id, user_id)

    def usages_by_type(
        self, project_id: str, *, user_id: str | None = None, consumer_type: str | None = None
    ) -> dict[str, v.TypeUsage]:
        """The same by consumer type, "unknown" for consumers without one. ``consumer_type``: only that one; "all":
        everything under "all". O(consumers of the project)."""
        return usages.by_type(self.fleet, project_id, user_id, consumer_type)

    # candidates

    def allocation_candidates(
        self,
        query: PlacementQuery,
        *,
        nested: bool = True,
        breadth_first: bool = False,
        preferred: Iterable[str] | None = None,
        seed: int | tuple[int, ...] | None = None,
        steps: int | None = None,
        patience: int | None = None,
    ) -> v.Candidates:
        """Allocation candidates for ``query``, at most ``query.limit``, found lazily in a fixed order.

        ``nested`` False (below 1.29): none that uses several providers of one tree, and only summaries of providers
        used. ``breadth_first``: the first candidate of each tree, then the second of each, and so on, instead of tree
        after tree. ``preferred``: uuids of providers whose trees come first, in this order: what ``Engine.rank`` gives
        is the order of a policy's weighers. ``seed``: the other trees are in random order, equal for equal seeds, so
        that clients with a limit do not all get the same hosts. ``steps``: limit of search steps within trees
        (`Effort`); the answer then contains the candidates found so far. ``patience``: steps after which
        SearchTakesLong is raised, for callers that run long searches elsewhere. BadRequest for an unknown class or
        trait, or if nothing was found within the steps.
        """
        return candidate_query.candidates(
            *(self.fleet, query),
            nested=nested,
            breadth_first=breadth_first,
            preferred=preferred,
            seed=seed,
            steps=steps,
            patience=patience,
        )
