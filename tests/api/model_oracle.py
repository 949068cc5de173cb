"""The rules of Placement's writes on plain dictionaries: slow, obvious, without any of the engine's parts."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import os_resource_classes
import os_traits
from msgspec import UNSET

from hostler.placement.api import commands as c
from hostler.placement.fleet.fleet import Inventory

STANDARD_TRAITS = frozenset(os_traits.get_traits())
STANDARD_CLASSES = frozenset(os_resource_classes.STANDARDS)


class Refused(Exception):
    """``kind`` and Placement's code of an error."""

    def __init__(self, kind: str, placement_code: str = "undefined_code") -> None:
        super().__init__(kind, placement_code)
        self.kind, self.placement_code = kind, f"placement.{placement_code}"


@dataclass
class P:
    """A provider; ``allocations`` are found with the consumers."""

    name: str
    parent: str | None
    generation: int = 0
    inventories: dict[str, Inventory] = field(default_factory=dict)
    traits: set[str] = field(default_factory=set)
    aggregates: set[str] = field(default_factory=set)


@dataclass
class C:
    """A consumer: {provider: {class: amount}}, empty if it was only named."""

    allocations: dict[str, dict[str, int]]
    project_id: str
    user_id: str
    generation: int
    consumer_type: str | None


class Oracle:
    """All of the state, and a method for each command."""

    def __init__(self) -> None:
        self.providers: dict[str, P] = {}
        self.consumers: dict[str, C] = {}
        self.traits: set[str] = set()
        self.classes: set[str] = set()

    def apply(self, command: Any) -> None:
        """Refused, with nothing changed, or done."""
        before = copy.deepcopy(self.__dict__)
        try:
            getattr(self, type(command).__name__)(command)
        except Refused:
            self.__dict__ = before
            raise

    # what is there

    def at(self, uuid: str) -> P:
        if uuid not in self.providers:
            raise Refused("not_found")
        return self.providers[uuid]

    def knows_class(self, name: str) -> bool:
        return name in STANDARD_CLASSES or name in self.classes

    def used(self, uuid: str, name: str) -> int:
        return sum(one.allocations.get(uuid, {}).get(name, 0) for one in self.consumers.values())

    def lineage(self, uuid: str | None) -> list[str]:
        found: list[str] = []
        while uuid is not None:
            found.append(uuid)
            uuid = self.providers[uuid].parent
        return found

    def at_generation(self, provider: P, given: int) -> None:
        if provider.generation != given:
            raise Refused("conflict", "concurrent_update")

    # providers

    def CreateProvider(self, command: c.CreateProvider) -> None:
        if command.parent is not None and (command.parent == command.uuid or command.parent not in self.providers):
            raise Refused("bad_request")
        if command.uuid in self.providers or any(p.name == command.name for p in self.providers.values()):
            raise Refused("conflict", "duplicate_name")
        self.providers[command.uuid] = P(command.name, command.parent)

    def UpdateProvider(self, command: c.UpdateProvider) -> None:
        mine = self.at(command.uuid)
        if command.parent is not UNSET and command.parent != mine.parent:
            parent = command.parent
            if parent is not None and parent not in self.providers:
                raise Refused("bad_request")
            if mine.parent is not None and not command.may_move:
                raise Refused("bad_request")
            if parent is not None and command.uuid in self.lineage(str(parent)):
                raise Refused("bad_request")
            mine.parent = None if parent is None else str(parent)
        if any(p.name == command.name for p in self.providers.values() if p is not mine):
            raise Refused("conflict", "duplicate_name")
        mine.name = command.name

    def DeleteProvider(self, command: c.DeleteProvider) -> None:
        self.at(command.uuid)
        if any(p.parent == command.uuid for p in self.providers.values()):
            raise Refused("conflict", "resource_provider.cannot_delete_parent")
        if any(command.uuid in one.allocations for one in self.consumers.values()):
            raise Refused("conflict", "resource_provider.inuse")
        del self.providers[command.uuid]

    # inventories

    def checked(self, inventory: Inventory, may_reserve_all: bool) -> None:
        capacity = int((inventory.total - inventory.reserved) * inventory.allocation_ratio)
        if capacity < 0 or (capacity == 0 and not may_reserve_all):
            raise Refused("bad_request")

    def AddInventory(self, command: c.AddInventory) -> None:
        mine = self.at(command.provider)
        if not self.knows_class(command.resource_class):
            raise Refused("bad_request")
        self.checked(command.inventory, command.may_reserve_all)
        if command.resource_class in mine.inventories:
            raise Refused("conflict", "concurrent_update")
        mine.inventories[command.resource_class] = command.inventory
        mine.generation += 1

    def SetInventories(self, command: c.SetInventories) -> None:
        mine = self.at(command.provider)
        self.at_generation(mine, command.generation)
        for inventory in command.inventories.values():
            self.checked(inventory, command.may_reserve_all)
        if not all(map(self.knows_class, command.inventories)):
            raise Refused("bad_request")
        self.replace(command.provider, command.inventories)

    def replace(self, uuid: str, inventories: dict[str, Inventory]) -> None:
        mine = self.providers[uuid]
        if any(self.used(uuid, name) for name in mine.inventories.keys() - inventories.keys()):
            raise Refused("conflict", "inventory.inuse")
        mine.inventories = dict(inventories)
        mine.generation += 1

    def SetInventory(self, command: c.SetInventory) -> None:
        mine = self.at(command.provider)
        self.at_generation(mine, command.generation)
        self.checked(command.inventory, command.may_reserve_all)
        if not self.knows_class(command.resource_class):
            raise Refused("not_found")
        if command.resource_class not in mine.inventories:
            raise Refused("bad_request")
        mine.inventories[command.resource_class] = command.inventory
        mine.generation += 1

    def DeleteInventory(self, command: c.DeleteInventory) -> None:
        mine = self.at(command.provider)
        if command.resource_class not in mine.inventories:
            raise Refused("not_found")
        if self.used(command.provider, command.resource_class):
            raise Refused("conflict", "concurrent_update")
        del mine.inventories[command.resource_class]
        mine.generation += 1

    def DeleteInventories(self, command: c.DeleteInventories) -> None:
        self.at(command.provider)
        self.replace(command.provider, {})

    # traits, aggregates, resource classes

    def SetTraits(self, command: c.SetTraits) -> None:
        mine = self.at(command.provider)
        self.at_generation(mine, command.generation)
        if not set(command.traits) <= STANDARD_TRAITS | self.traits:
            raise Refused("bad_request")
        mine.generation += mine.traits != set(command.traits)
        mine.traits = set(command.traits)

    def DeleteProviderTraits(self, command: c.DeleteProviderTraits) -> None:
        mine = self.at(command.provider)
        mine.generation += bool(mine.traits)
        mine.traits = set()

    def SetAggregates(self, command: c.SetAggregates) -> None:
        mine = self.at(command.provider)
        if command.generation is not None:
            self.at_generation(mine, command.generation)
            mine.generation += 1
        mine.aggregates = set(command.aggregates)

    def CreateTrait(self, command: c.CreateTrait) -> None:
        if command.name not in STANDARD_TRAITS:
            if not command.name.startswith("CUSTOM_"):
                raise Refused("bad_request")
            self.traits.add(command.name)

    def DeleteTrait(self, command: c.DeleteTrait) -> None:
        if command.name in STANDARD_TRAITS:
            raise Refused("bad_request")
        if command.name not in self.traits:
            raise Refused("not_found")
        if any(command.name in p.traits for p in self.providers.values()):
            raise Refused("conflict")
        self.traits.remove(command.name)

    def CreateResourceClass(self, command: c.CreateResourceClass) -> None:
        standard = command.name in STANDARD_CLASSES
        if not command.may_exist and (standard or command.name in self.classes):
            raise Refused("conflict")
        if standard or not command.name.startswith("CUSTOM_"):
            raise Refused("bad_request")
        self.classes.add(command.name)

    def RenameResourceClass(self, command: c.RenameResourceClass) -> None:
        self.changeable(command.name)
        old, new = command.name, command.new_name
        if old == new:
            return
        if self.knows_class(new):
            raise Refused("conflict")
        self.classes = self.classes - {old} | {new}
        for p in self.providers.values():
            p.inventories = {new if name == old else name: value for name, value in p.inventories.items()}
        for one in self.consumers.values():
            for resources in one.allocations.values():
                if old in resources:
                    resources[new] = resources.pop(old)

    def changeable(self, name: str) -> None:
        if name in STANDARD_CLASSES:
            raise Refused("bad_request")
        if name not in self.classes:
            raise Refused("not_found")

    def DeleteResourceClass(self, command: c.DeleteResourceClass) -> None:
        self.changeable(command.name)
        if any(command.name in p.inventories for p in self.providers.values()):
            raise Refused("conflict")
        self.classes.remove(command.name)

    # allocations

    def SetAllocations(self, command: c.SetAllocations) -> None:
        self.inspect(command.consumers)
        self.write(command.consumers)

    def inspect(self, consumers: dict[str, c.ConsumerAllocations]) -> None:
        for uuid, asked in consumers.items():
            present = self.consumers[uuid].generation if uuid in self.consumers else None
            if asked.generation is not UNSET and asked.generation != present:
                raise Refused("conflict", "concurrent_update")
        if any(uuid not in self.providers for asked in consumers.values() for uuid in asked.allocations):
            raise Refused("bad_request")

    def write(self, consumers: dict[str, c.ConsumerAllocations]) -> None:
        wanted = [(uuid, resources) for asked in consumers.values() for uuid, resources in asked.allocations.items()]
        if not all(self.knows_class(name) for _, resources in wanted for name in resources):
            raise Refused("bad_request")
        before = copy.deepcopy(self.consumers)
        moved: set[str] = set()
        for uuid, asked in consumers.items():
            moved |= set(asked.allocations or (before[uuid].allocations if uuid in before else ()))
            self.put(uuid, asked)
        for uuid, resources in wanted:
            for name, amount in resources.items():
                self.fits(uuid, name, amount, before)
        for uuid in moved:
            self.providers[uuid].generation += 1

    def put(self, uuid: str, asked: c.ConsumerAllocations) -> None:
        known = self.consumers.get(uuid)
        kind = known.consumer_type if known is not None else None
        kind = kind if asked.consumer_type is UNSET else asked.consumer_type
        if not asked.allocations and known is not None and known.allocations:
            del self.consumers[uuid]
            return
        generation = 0 if known is None else known.generation
        allocations = copy.deepcopy(asked.allocations)
        more = 1 if allocations else 0
        self.consumers[uuid] = C(allocations, asked.project_id, asked.user_id, generation + more, kind)

    def fits(self, uuid: str, name: str, amount: int, before: dict[str, C]) -> None:
        inventory = self.providers[uuid].inventories.get(name)
        if inventory is None or not inventory.min_unit <= amount <= inventory.max_unit or amount % inventory.step_size:
            raise Refused("conflict")
        now, was = self.used(uuid, name), sum(o.allocations.get(uuid, {}).get(name, 0) for o in before.values())
        if now > (inventory.total - inventory.reserved) * inventory.allocation_ratio and now > was:
            raise Refused("conflict")

    def DeleteAllocations(self, command: c.DeleteAllocations) -> None:
        if command.consumer not in self.consumers or not self.consumers[command.consumer].allocations:
            raise Refused("not_found")
        del self.consumers[command.consumer]

    def Reshape(self, command: c.Reshape) -> None:
        for uuid, asked in command.providers.items():
            if uuid not in self.providers:
                raise Refused("bad_request", "resource_provider.not_found")
            self.at_generation(self.providers[uuid], asked.generation)
        self.inspect(command.consumers)
        if not all(self.knows_class(name) for asked in command.providers.values() for name in asked.inventories):
            raise Refused("bad_request")
        for uuid, asked in command.providers.items():
            if asked.inventories:
                self.providers[uuid].inventories.update(asked.inventories)
                self.providers[uuid].generation += 1
        self.write(command.consumers)
        for uuid, asked in command.providers.items():
            self.replace(uuid, asked.inventories)
