"""Placement's rules once more, slow and obvious, in plain dicts: what a request at 1.39 must be answered with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

CONCURRENT = "placement.concurrent_update"
INUSE = "placement.inventory.inuse"
PLAIN = "placement.undefined_code"
STANDARD_CLASSES = {"VCPU", "MEMORY_MB"}
STANDARD_TRAITS = {"HW_CPU_X86_VMX", "MISC_SHARES_VIA_AGGREGATE"}
DEFAULTS = {"reserved": 0, "min_unit": 1, "max_unit": 2**31 - 1, "step_size": 1, "allocation_ratio": 1.0}

Json = Any
Reply = tuple[int, Json]
"""A status, and the error code or the body that counts; None where there is none."""


class Refused(Exception):
    """A status and an error code."""


def refuse(status: int, code: str = PLAIN) -> Refused:
    return Refused(status, code)


@dataclass
class Rp:
    """A provider."""

    name: str
    parent: str | None = None
    generation: int = 0
    inventories: dict[str, Json] = field(default_factory=dict)
    traits: set[str] = field(default_factory=set)
    aggregates: set[str] = field(default_factory=set)


@dataclass
class Consumer:
    """A consumer and what it holds: {provider: {class: amount}}."""

    project: str
    user: str
    kind: str
    generation: int = 0
    held: dict[str, dict[str, int]] = field(default_factory=dict)


class Oracle:
    """Answers requests given as (method, path, body)."""

    def __init__(self) -> None:
        self.rps: dict[str, Rp] = {}
        self.consumers: dict[str, Consumer] = {}
        self.classes = set(STANDARD_CLASSES)
        self.traits = set(STANDARD_TRAITS)

    def __call__(self, method: str, path: str, body: Json = None) -> Reply:
        parts = path.strip("/").split("/")
        name = "_".join([method.lower(), *parts[0::2]] + (["one"] if len(parts) % 2 == 0 else []))
        before = copy.deepcopy(self.__dict__)
        try:
            reply: Reply = getattr(self, name)(*parts[1::2], *([] if body is None else [body]))
        except Refused as refused:
            self.__dict__.update(before)
            status, code = refused.args
            return status, code
        return reply

    # providers

    def rp(self, uuid: str) -> Rp:
        if uuid not in self.rps:
            raise refuse(404)
        return self.rps[uuid]

    def root(self, uuid: str) -> str:
        parent = self.rps[uuid].parent
        return uuid if parent is None else self.root(parent)

    def below(self, uuid: str) -> set[str]:
        return {uuid} | {x for child, rp in self.rps.items() if rp.parent == uuid for x in self.below(child)}

    def shown(self, uuid: str) -> Json:
        rp = self.rps[uuid]
        return {
            "uuid": uuid,
            "name": rp.name,
            "generation": rp.generation,
            "parent_provider_uuid": rp.parent,
            "root_provider_uuid": self.root(uuid),
        }

    def post_resource_providers(self, body: Json) -> Reply:
        uuid, parent = body["uuid"], body.get("parent_provider_uuid")
        if parent is not None and (parent == uuid or parent not in self.rps):
            raise refuse(400)
        if uuid in self.rps or body["name"] in {rp.name for rp in self.rps.values()}:
            raise refuse(409, "placement.duplicate_name")
        self.rps[uuid] = Rp(body["name"], parent)
        return 200, self.shown(uuid)

    def get_resource_providers_one(self, uuid: str) -> Reply:
        self.rp(uuid)
        return 200, self.shown(uuid)

    def get_resource_providers(self) -> Reply:
        return 200, [self.shown(uuid) for uuid in sorted(self.rps)]

    def put_resource_providers_one(self, uuid: str, body: Json) -> Reply:
        rp = self.rp(uuid)
        parent = body.get("parent_provider_uuid", rp.parent)
        if parent is not None and (parent not in self.rps or (parent != rp.parent and parent in self.below(uuid))):
            raise refuse(400)
        if body["name"] in {other.name for key, other in self.rps.items() if key != uuid}:
            raise refuse(409, "placement.duplicate_name")
        rp.name, rp.parent = body["name"], parent
        return 200, self.shown(uuid)

    def delete_resource_providers_one(self, uuid: str) -> Reply:
        self.rp(uuid)
        if self.below(uuid) != {uuid}:
            raise refuse(409, "placement.resource_provider.cannot_delete_parent")
        if any(uuid in consumer.held for consumer in self.consumers.values()):
            raise refuse(409, "placement.resource_provider.inuse")
        del self.rps[uuid]
        return 204, None

    # inventories

    def used(self, uuid: str, name: str) -> int:
        return sum(consumer.held.get(uuid, {}).get(name, 0) for consumer in self.consumers.values())

    def checked(self, figures: Json) -> Json:
        inventory = DEFAULTS | {key: figures[key] for key in figures if key in DEFAULTS or key == "total"}
        if int((inventory["total"] - inventory["reserved"]) * inventory["allocation_ratio"]) < 0:
            raise refuse(400)
        return inventory

    def known(self, names: Any, status: int = 400) -> None:
        if not set(names) <= self.classes:
            raise refuse(status)

    def all_inventories(self, uuid: str) -> Json:
        rp = self.rps[uuid]
        return {"inventories": rp.inventories, "resource_provider_generation": rp.generation}

    def one_inventory(self, uuid: str, name: str) -> Json:
        """A generation of 0 is left out."""
        rp = self.rps[uuid]
        generation = {"resource_provider_generation": rp.generation} if rp.generation else {}
        return {**rp.inventories[name], **generation}

    def get_resource_providers_inventories(self, uuid: str) -> Reply:
        self.rp(uuid)
        return 200, copy.deepcopy(self.all_inventories(uuid))

    def get_resource_providers_inventories_one(self, uuid: str, name: str) -> Reply:
        if name not in self.rp(uuid).inventories:
            raise refuse(404)
        return 200, self.one_inventory(uuid, name)

    def post_resource_providers_inventories(self, uuid: str, body: Json) -> Reply:
        rp, name = self.rp(uuid), body["resource_class"]
        inventory = self.checked(body)
        self.known({name})
        if name in rp.inventories:
            raise refuse(409, CONCURRENT)
        rp.inventories[name] = inventory
        rp.generation += 1
        return 201, self.one_inventory(uuid, name)

    def fresh(self, rp: Rp, body: Json) -> None:
        if body["resource_provider_generation"] != rp.generation:
            raise refuse(409, CONCURRENT)

    def replace_inventories(self, uuid: str, inventories: dict[str, Json]) -> None:
        rp = self.rps[uuid]
        self.known(inventories)
        if any(self.used(uuid, name) for name in rp.inventories.keys() - inventories.keys()):
            raise refuse(409, INUSE)
        rp.inventories = inventories
        rp.generation += 1

    def put_resource_providers_inventories(self, uuid: str, body: Json) -> Reply:
        self.fresh(self.rp(uuid), body)
        self.replace_inventories(uuid, {name: self.checked(one) for name, one in body["inventories"].items()})
        return 200, copy.deepcopy(self.all_inventories(uuid))

    def put_resource_providers_inventories_one(self, uuid: str, name: str, body: Json) -> Reply:
        rp = self.rp(uuid)
        self.fresh(rp, body)
        inventory = self.checked(body)
        self.known({name}, 404)
        if name not in rp.inventories:
            raise refuse(400)
        rp.inventories[name] = inventory
        rp.generation += 1
        return 200, self.one_inventory(uuid, name)

    def delete_resource_providers_inventories_one(self, uuid: str, name: str) -> Reply:
        rp = self.rp(uuid)
        if name not in rp.inventories:
            raise refuse(404)
        if self.used(uuid, name):
            raise refuse(409, CONCURRENT)
        del rp.inventories[name]
        rp.generation += 1
        return 204, None

    def delete_resource_providers_inventories(self, uuid: str) -> Reply:
        self.rp(uuid)
        self.replace_inventories(uuid, {})
        return 204, None

    def get_resource_providers_usages(self, uuid: str) -> Reply:
        rp = self.rp(uuid)
        usages = {name: self.used(uuid, name) for name in rp.inventories}
        return 200, {"usages": usages, "resource_provider_generation": rp.generation}

    # traits, aggregates, names

    def shown_traits(self, rp: Rp) -> Json:
        return {"traits": sorted(rp.traits), "resource_provider_generation": rp.generation}

    def set_traits(self, rp: Rp, traits: set[str]) -> None:
        rp.generation += rp.traits != traits
        rp.traits = traits

    def get_resource_providers_traits(self, uuid: str) -> Reply:
        return 200, self.shown_traits(self.rp(uuid))

    def put_resource_providers_traits(self, uuid: str, body: Json) -> Reply:
        rp = self.rp(uuid)
        self.fresh(rp, body)
        if not set(body["traits"]) <= self.traits:
            raise refuse(400)
        self.set_traits(rp, set(body["traits"]))
        return 200, self.shown_traits(rp)

    def delete_resource_providers_traits(self, uuid: str) -> Reply:
        self.set_traits(self.rp(uuid), set())
        return 204, None

    def shown_aggregates(self, rp: Rp) -> Json:
        return {"aggregates": sorted(rp.aggregates), "resource_provider_generation": rp.generation}

    def get_resource_providers_aggregates(self, uuid: str) -> Reply:
        return 200, self.shown_aggregates(self.rp(uuid))

    def put_resource_providers_aggregates(self, uuid: str, body: Json) -> Reply:
        rp = self.rp(uuid)
        self.fresh(rp, body)
        rp.aggregates = set(body["aggregates"])
        rp.generation += 1
        return 200, self.shown_aggregates(rp)

    def put_traits_one(self, name: str) -> Reply:
        status = 204 if name in self.traits else 201
        self.traits.add(name)
        return status, None

    def delete_traits_one(self, name: str) -> Reply:
        if name in STANDARD_TRAITS:
            raise refuse(400)
        if name not in self.traits:
            raise refuse(404)
        if any(name in rp.traits for rp in self.rps.values()):
            raise refuse(409)
        self.traits.remove(name)
        return 204, None

    def put_resource_classes_one(self, name: str) -> Reply:
        status = 204 if name in self.classes else 201
        self.classes.add(name)
        return status, None

    def delete_resource_classes_one(self, name: str) -> Reply:
        if name not in self.classes:
            raise refuse(404)
        if name in STANDARD_CLASSES:
            raise refuse(400)
        if any(name in rp.inventories for rp in self.rps.values()):
            raise refuse(409)
        self.classes.remove(name)
        return 204, None

    # allocations

    def ensure(self, wanted: dict[str, Json]) -> None:
        """Check the consumers' generations, make records of new ones, and check that the providers are there."""
        for uuid, body in wanted.items():
            known = self.consumers.get(uuid)
            if body["consumer_generation"] != (None if known is None else known.generation):
                raise refuse(409, CONCURRENT)
            if known is None:
                self.consumers[uuid] = Consumer(body["project_id"], body["user_id"], body["consumer_type"])
        if not all(uuid in self.rps for body in wanted.values() for uuid in body["allocations"]):
            raise refuse(400)

    def replace(self, wanted: dict[str, Json]) -> None:
        """Let each consumer hold what it shall, instead of what it held."""
        new = {uuid: {rp: one["resources"] for rp, one in body["allocations"].items()} for uuid, body in wanted.items()}
        self.known({name for held in new.values() for resources in held.values() for name in resources})
        before = {(rp, name): self.used(rp, name) for rp in self.rps for name in self.classes}
        touched: set[str] = set()
        for uuid, held in new.items():
            touched |= held.keys() or self.consumers[uuid].held.keys()
            self.consumers[uuid].held = {}
        for uuid, held in new.items():
            for rp, resources in held.items():
                for name, amount in resources.items():
                    self.check_room(rp, name, amount, before[rp, name])
                self.consumers[uuid].held[rp] = dict(resources)
        for rp in touched:
            self.rps[rp].generation += 1
        for uuid, body in wanted.items():
            self.write_consumer(uuid, body, had=bool(touched))

    def write_consumer(self, uuid: str, body: Json, *, had: bool) -> None:
        consumer = self.consumers[uuid]
        consumer.project, consumer.user = body["project_id"], body["user_id"]
        consumer.kind = body["consumer_type"]
        if consumer.held:
            consumer.generation += 1
        elif consumer.generation:
            del self.consumers[uuid]

    def check_room(self, rp: str, name: str, amount: int, before: int) -> None:
        inventory = self.rps[rp].inventories.get(name)
        if inventory is None:
            raise refuse(409)
        if not inventory["min_unit"] <= amount <= inventory["max_unit"] or amount % inventory["step_size"]:
            raise refuse(409)
        after = self.used(rp, name) + amount
        capacity = (inventory["total"] - inventory["reserved"]) * inventory["allocation_ratio"]
        if after > capacity and after > before:
            raise refuse(409)

    def put_allocations_one(self, uuid: str, body: Json) -> Reply:
        return self.post_allocations({uuid: body})

    def post_allocations(self, body: Json) -> Reply:
        self.ensure(body)
        self.replace(body)
        return 204, None

    def delete_allocations_one(self, uuid: str) -> Reply:
        if uuid not in self.consumers or not self.consumers[uuid].held:
            raise refuse(404)
        del self.consumers[uuid]
        return 204, None

    def get_allocations_one(self, uuid: str) -> Reply:
        consumer = self.consumers.get(uuid)
        if consumer is None or not consumer.held:
            return 200, {"allocations": {}}
        held = {
            rp: {"resources": dict(resources), "generation": self.rps[rp].generation}
            for rp, resources in consumer.held.items()
        }
        owner = {"project_id": consumer.project, "user_id": consumer.user, "consumer_type": consumer.kind}
        return 200, {"allocations": held, "consumer_generation": consumer.generation, **owner}

    def get_resource_providers_allocations(self, uuid: str) -> Reply:
        rp = self.rp(uuid)
        held = {
            key: {"resources": dict(consumer.held[uuid]), "consumer_generation": consumer.generation}
            for key, consumer in self.consumers.items()
            if uuid in consumer.held
        }
        return 200, {"allocations": held, "resource_provider_generation": rp.generation}

    def usages(self, project: str) -> Json:
        usages: dict[str, Json] = {}
        for consumer in self.consumers.values():
            if consumer.project == project and consumer.held:
                kind = usages.setdefault(consumer.kind, {"consumer_count": 0})
                kind["consumer_count"] += 1
                for resources in consumer.held.values():
                    for name, amount in resources.items():
                        kind[name] = kind.get(name, 0) + amount
        return usages

    # reshaper

    def post_reshaper(self, body: Json) -> Reply:
        for uuid, one in body["inventories"].items():
            if uuid not in self.rps:
                raise refuse(400, "placement.resource_provider.not_found")
            self.fresh(self.rps[uuid], one)
        self.ensure(body["allocations"])
        final = {
            uuid: {name: DEFAULTS | inv for name, inv in one["inventories"].items()}
            for uuid, one in body["inventories"].items()
        }
        for uuid, inventories in final.items():
            self.known(inventories)
            if inventories:
                self.rps[uuid].inventories = self.rps[uuid].inventories | inventories
                self.rps[uuid].generation += 1
        self.replace(body["allocations"])
        for uuid, inventories in final.items():
            self.replace_inventories(uuid, inventories)
        return 204, None
