"""Allocations of many consumers, and reshaped providers, are written some at a time: with the outcome, the generations
and the state that they have at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine import placement_claims, placement_writes
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import PlacementWrite
from hostler.core.machine.placement_writes import ServiceModel
from hostler.placement.api import commands as api
from hostler.placement.api import in_steps
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.fleet.reclaim import SLACK
from tests.core.orders import NOW, machine, order
from tests.core.test_several_in_steps import outcome_of
from tests.seeds import seeds

TREES, CONSUMERS = 4, 12


def uid(number: int) -> str:
    return f"00000000-0000-4000-9000-{number:012x}"


PROVIDERS = [uid(10 * tree + child) for tree in range(TREES) for child in range(3)]
USERS = [uid(1_000 + number) for number in range(CONSUMERS)]


@contextmanager
def a_step(few: int) -> Iterator[None]:
    """With so many consumers or providers a step."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FEW", "PROVIDERS", "LOOKED_AT"):
            patch.setattr(in_steps, name, few)
        patch.setattr(placement_writes, "HELD", few)
        patch.setattr(placement_claims, "LOOKED_AT", few)
        yield


def inventories(chance: random.Random) -> dict[str, Inventory]:
    found = {"VCPU": Inventory(total=chance.choice([6, 12]))}
    if chance.random() < 0.5:
        found[chance.choice(["MEMORY_MB", "CUSTOM_X"])] = Inventory(total=12)
    return found


def world() -> ServiceMachine:
    made = machine(2)
    steps: list[Any] = [api.CreateResourceClass(name="CUSTOM_X", now=NOW)]
    for number, uuid in enumerate(PROVIDERS):
        parent = uid(10 * (number // 3)) if number % 3 else None
        steps.append(api.CreateProvider(uuid=uuid, name=f"provider-{number}", parent=parent, now=NOW))
        given = {"VCPU": Inventory(total=12), "MEMORY_MB": Inventory(total=12)}
        steps.append(api.SetInventories(provider=uuid, generation=0, inventories=given, now=NOW))
    for step in steps:
        made.apply(order(PlacementWrite(command=step)))
    return made


def wish(chance: random.Random, model: ServiceModel, uuid: str) -> api.ConsumerAllocations:
    """What a consumer is to hold: nothing, something, or what another one has."""
    taken = model.allocations(chance.choice(USERS))
    if taken is not None and taken.allocations and chance.random() < 0.3:
        allocations = {provider: dict(amounts) for provider, (amounts, _) in taken.allocations.items()}
    else:
        tree = chance.randrange(TREES)
        near = [each for each in PROVIDERS if chance.random() < 0.03 or each in PROVIDERS[3 * tree : 3 * tree + 3]]
        allocations = {
            provider: {chance.choice(["VCPU"] * 6 + ["MEMORY_MB", "CUSTOM_X"]): chance.randint(1, 2)}
            for provider in chance.sample(near, min(len(near), chance.randrange(3)))
        }
    known = model.allocations(uuid)
    right = None if known is None else known.generation
    return api.ConsumerAllocations(
        allocations=allocations,
        project_id=chance.choice("pq"),
        user_id="u",
        generation=chance.choice([UNSET] * 5 + [right] * 15 + [7]),
        consumer_type=chance.choice([UNSET, UNSET, None, "INSTANCE", "MIGRATION"]),
    )


def command(chance: random.Random, made: ServiceMachine, now: float) -> api.PlacementCommand:
    model = ServiceModel(made.state)
    some = chance.sample(USERS, chance.randrange(CONSUMERS if chance.random() < 0.5 else 4))
    consumers = {uuid: wish(chance, model, uuid) for uuid in some}
    if some and chance.random() < 0.05:
        consumers[some[0].replace("-", "")] = consumers[some[0]]
    infer = chance.random() < 0.8
    if chance.random() < 0.6:
        return api.SetAllocations(consumers=consumers, now=now, infer_types=infer)
    providers = {
        uuid: api.ReshapedProvider(
            generation=model.provider(uuid).generation + (chance.random() < 0.01),
            inventories=inventories(chance) if chance.random() < 0.2 else model.inventories(uuid).inventories,
        )
        for uuid in chance.sample(PROVIDERS, chance.randrange(1, 7))
    }
    return api.Reshape(providers=providers, consumers=consumers, now=now, infer_types=infer)


def seen(made: ServiceMachine) -> dict[str, Any]:
    """All that the API shows, times included."""
    model = ServiceModel(made.state)
    shown: dict[str, Any] = {"classes": model.resource_classes()}
    for uuid in PROVIDERS:
        shown[uuid] = (
            model.provider(uuid),
            model.inventories(uuid),
            model.provider_usages(uuid),
            model.provider_allocations(uuid),
        )
    shown["consumers"] = [model.allocations(uuid) for uuid in USERS]
    shown["usages"] = {project: model.usages_by_type(project) for project in ("p", "q")}
    shown["counted"] = {project: made.state.usage.of(f"project:{project}") for project in ("p", "q")}
    return shown


@pytest.mark.parametrize("seed", seeds(6, "Placement in steps"))
def test_writes_end_as_at_once(seed: int) -> None:
    chance, meanwhile = random.Random(seed), random.Random(seed)
    made, at_once = world(), world()
    refused = paused = 0

    def pause() -> None:
        nonlocal paused
        paused += 1
        made.state.fleet.check()
        if meanwhile.random() < 0.3:
            made.state.engine.what_if().fleet.set_traits("node-0", ["CUSTOM_LOOK"])

    for turn in range(60):
        now = NOW + turn
        given = PlacementWrite(command=command(chance, made, now), project=chance.choice([None] * 9 + ["p"]))
        with a_step(chance.choice([1, 2, 3])):
            found = outcome_of(made, given, pause, now=now)
        with a_step(10**6):
            assert found == outcome_of(at_once, given, now=now)
        refused += isinstance(found, tuple)
        assert seen(made) == seen(at_once)
        assert state_digest(made.state) == state_digest(at_once.state)
    made.state.fleet.check()
    assert paused > 60
    assert 0 < refused < 60


def test_writes_that_are_given_up_leave_the_state_as_it_was() -> None:
    given_up = 0
    for end in range(1, 40, 3):
        chance, made = random.Random(end), world()
        claims = {
            uuid: api.ConsumerAllocations(allocations={PROVIDERS[0]: {"VCPU": 1}}, project_id="p", user_id="u")
            for uuid in USERS
        }
        reshape = chance.random() < 0.5
        model = ServiceModel(made.state)
        providers = {
            uuid: api.ReshapedProvider(
                generation=model.provider(uuid).generation, inventories={"VCPU": Inventory(total=20)}
            )
            for uuid in PROVIDERS
        }
        write: Any = api.SetAllocations(consumers=claims, now=NOW)
        if reshape:
            write = api.Reshape(providers=providers, consumers=claims, now=NOW)
        before, shown = state_digest(made.state), seen(made)
        with a_step(1):
            steps = made.carry_out([order(PlacementWrite(command=write))])
            if any(next(steps, steps) is steps for _ in range(end)):
                break
            kept = made.state.engine.what_if()
            kept.fleet.set_traits("node-0", ["CUSTOM_LOOK"])
            if end % 2:
                with pytest.raises(MemoryError):
                    steps.throw(MemoryError())
            else:
                steps.close()
        del kept
        given_up += 1
        assert state_digest(made.state) == before
        assert seen(made) == shown
        made.state.fleet.check()
    assert given_up > 5


@pytest.mark.parametrize("wrong", ["CUSTOM_UNKNOWN", "no class", "generation", "provider", "consumer"])
def test_a_reshape_that_is_refused_makes_no_resource_classes_known(wrong: str) -> None:
    made = world()
    model = ServiceModel(made.state)
    names = ("PGPU", "VGPU", wrong if wrong in ("CUSTOM_UNKNOWN", "no class") else "PCPU")
    providers = {
        uuid: api.ReshapedProvider(
            generation=model.provider(uuid).generation,
            inventories={name: Inventory(total=4), "VCPU": Inventory(total=9)},
        )
        for uuid, name in zip(PROVIDERS, names, strict=False)
    }
    if wrong == "generation":
        providers[PROVIDERS[2]] = msgspec.structs.replace(providers[PROVIDERS[2]], generation=99)
    if wrong == "provider":
        providers[uid(999)] = providers.pop(PROVIDERS[2])
    generation = 7 if wrong == "consumer" else None
    claim = api.ConsumerAllocations(
        allocations={PROVIDERS[0]: {"VCPU": 1}}, project_id="p", user_id="u", generation=generation
    )
    known = list(made.state.fleet.resource_classes)
    with a_step(1):
        write = api.Reshape(providers=providers, consumers={USERS[0]: claim}, now=NOW)
        assert outcome_of(made, PlacementWrite(command=write))[0] in ("BadRequest", "Conflict")
    assert list(made.state.fleet.resource_classes) == known


def test_writes_give_back_what_nothing_refers_to_any_more() -> None:
    made = world()
    for turn in range(3 * SLACK):
        claim = api.ConsumerAllocations(
            allocations={PROVIDERS[0]: {"VCPU": 1}}, project_id=f"project-{turn}", user_id=f"user-{turn}"
        )
        write = api.SetAllocations(consumers={USERS[0]: claim}, now=NOW + turn)
        made.apply(order(PlacementWrite(command=write), now=NOW + turn))
    assert len(made.state.fleet._projects) < 2 * SLACK
    assert len(made.state.fleet._users) < 2 * SLACK
