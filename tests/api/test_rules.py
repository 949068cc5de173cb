"""Rules of Placement's writes, one by one, where random commands seldom go."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from msgspec import UNSET

from hostler.placement.api import commands as c
from hostler.placement.api.errors import ApiError, BadRequest, Conflict, NotFound
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.fleet import Fleet, Inventory
from hostler.placement.request.placement_query import PlacementQuery, RequestGroup
from hostler.placement.types.errors import InvalidValue

A, B, GUEST, OTHER = (str(uuid.UUID(int=number)) for number in range(1, 5))


@pytest.fixture
def model() -> PlacementModel:
    """Two providers with CPUs."""
    model = PlacementModel(Fleet())
    for name, provider in (("a", A), ("b", B)):
        model.apply(c.CreateProvider(uuid=provider, name=name, now=1.0))
        model.apply(c.AddInventory(provider=provider, resource_class="VCPU", inventory=Inventory(total=4), now=1.0))
    return model


def write(model: PlacementModel, *, generation: int | None = None, now: float = 2.0, **amounts: int) -> None:
    """Give the guest so many CPUs of providers ``a`` and ``b``."""
    allocations = {{"a": A, "b": B}[name]: {"VCPU": amount} for name, amount in amounts.items()}
    one = c.ConsumerAllocations(allocations=allocations, project_id="p", user_id="u", generation=generation)
    model.apply(c.SetAllocations(consumers={GUEST: one}, now=now))


def generations(model: PlacementModel) -> tuple[int, int]:
    return model.provider(A).generation, model.provider(B).generation


def test_generations_move_for_the_providers_named_in_the_new_allocations_only(model: PlacementModel) -> None:
    write(model, a=1)
    assert generations(model) == (2, 1)
    write(model, generation=1, b=1)
    assert generations(model) == (2, 2)
    write(model, generation=2)
    assert generations(model) == (2, 3), "what an empty body wiped moves"
    write(model, a=1)
    model.apply(c.DeleteAllocations(consumer=GUEST, now=3.0))
    assert generations(model) == (3, 3), "a deletion moves nothing"


def test_a_consumer_begins_anew_after_all_it_held_is_gone(model: PlacementModel) -> None:
    write(model, a=1)
    write(model, generation=1)
    assert model.allocations(GUEST) is None
    write(model, generation=None, a=1)
    found = model.allocations(GUEST)
    assert found is not None
    assert found.generation == 1


def test_a_consumer_that_was_only_named_is_at_generation_0(model: PlacementModel) -> None:
    write(model)
    with pytest.raises(Conflict, match="expected 0 but got null") as refused:
        write(model, generation=None, a=1)
    assert refused.value.placement_code == "placement.concurrent_update"
    write(model, generation=0, a=1)
    found = model.allocations(GUEST)
    assert found is not None
    assert found.generation == 1


def test_a_refused_write_leaves_no_consumer_behind(model: PlacementModel) -> None:
    one = c.ConsumerAllocations(allocations={OTHER: {"VCPU": 1}}, project_id="p", user_id="u", generation=None)
    with pytest.raises(BadRequest, match=f"Allocation for resource provider '{OTHER}' that does not exist"):
        model.apply(c.SetAllocations(consumers={GUEST: one}, now=2.0))
    write(model, generation=None, a=1)


def test_of_several_consumers_all_are_written_or_none(model: PlacementModel) -> None:
    fine = c.ConsumerAllocations(allocations={A: {"VCPU": 3}}, project_id="p", user_id="u")
    with pytest.raises(Conflict, match="exceed the capacity"):
        model.apply(c.SetAllocations(consumers={GUEST: fine, OTHER: fine}, now=2.0))
    assert model.allocations(GUEST) is None
    assert model.provider_usages(A).usages == {"VCPU": 0}


def test_consumers_may_change_places_in_one_write(model: PlacementModel) -> None:
    for consumer, provider in ((GUEST, A), (OTHER, B)):
        whole = c.ConsumerAllocations(allocations={provider: {"VCPU": 4}}, project_id="p", user_id="u")
        model.apply(c.SetAllocations(consumers={consumer: whole}, now=2.0))
    swapped = {
        consumer: c.ConsumerAllocations(allocations={provider: {"VCPU": 4}}, project_id="p", user_id="u")
        for consumer, provider in ((GUEST, B), (OTHER, A))
    }
    model.apply(c.SetAllocations(consumers=swapped, now=3.0))
    assert list(model.provider_allocations(A).allocations) == [OTHER]


def test_a_consumer_on_a_provider_over_its_capacity_may_shrink_but_not_grow(model: PlacementModel) -> None:
    write(model, a=4)
    small = Inventory(total=1)
    model.apply(c.SetInventory(provider=A, resource_class="VCPU", generation=2, inventory=small, now=3.0))
    write(model, generation=1, a=4)
    write(model, generation=2, a=3)
    with pytest.raises(Conflict, match="exceed the capacity"):
        write(model, generation=3, a=4)


@pytest.mark.parametrize(("ratio", "fits"), [(1.5, 6), (1.0, 4), (0.5, 2), (0.0, 0)])
def test_capacity_is_what_the_ratio_leaves_of_the_total(model: PlacementModel, ratio: float, fits: int) -> None:
    inventory = Inventory(total=4, allocation_ratio=ratio)
    model.apply(c.SetInventory(provider=A, resource_class="VCPU", generation=1, inventory=inventory, now=2.0))
    with pytest.raises(Conflict, match="exceed the capacity"):
        write(model, a=fits + 1)
    if fits:
        write(model, a=fits)


@pytest.mark.parametrize(
    ("change", "amount"), [({"min_unit": 2}, 1), ({"max_unit": 2}, 3), ({"step_size": 2}, 3)], ids=str
)
def test_unit_rules_hold_for_each_amount(model: PlacementModel, change: dict[str, int], amount: int) -> None:
    inventory = replace(Inventory(total=4), **change)
    model.apply(c.SetInventory(provider=A, resource_class="VCPU", generation=1, inventory=inventory, now=2.0))
    with pytest.raises(Conflict, match="violate inventory constraints"):
        write(model, a=amount)
    write(model, a=2)


@pytest.mark.parametrize("amount", [2**31, 2**70])
def test_more_than_any_max_unit_is_a_conflict(model: PlacementModel, amount: int) -> None:
    with pytest.raises(Conflict, match="violate inventory constraints"):
        write(model, a=amount)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reserved": 5}, "greater than total"),
        ({"allocation_ratio": -1.0}, "greater than total"),
        ({"allocation_ratio": float("nan")}, "Invalid inventory"),
        ({"allocation_ratio": float("inf")}, "Invalid inventory"),
        ({"total": 0}, "total must be between 1"),
        ({"total": 2**31}, "total must be between 1"),
        ({"step_size": 0}, "step_size must be between 1"),
    ],
    ids=str,
)
def test_figures_that_cannot_be_are_refused(model: PlacementModel, change: dict[str, float], message: str) -> None:
    inventory = replace(Inventory(total=4), **change)  # type: ignore[arg-type]  # bad on purpose
    with pytest.raises(BadRequest, match=message):
        model.apply(c.SetInventories(provider=A, generation=1, inventories={"VCPU": inventory}, now=2.0))
    assert model.inventories(A).inventories == {"VCPU": Inventory(total=4)}


def test_all_may_be_reserved_from_microversion_1_26_on(model: PlacementModel) -> None:
    def put(may_reserve_all: bool) -> c.AddInventory:
        whole = Inventory(total=4, reserved=4)
        return c.AddInventory(
            provider=A, resource_class="DISK_GB", inventory=whole, may_reserve_all=may_reserve_all, now=2.0
        )

    with pytest.raises(BadRequest, match="greater than or equal to total"):
        model.apply(put(False))
    model.apply(put(True))


def test_min_unit_above_max_unit_is_taken(model: PlacementModel) -> None:
    odd = Inventory(total=4, min_unit=3, max_unit=2)
    model.apply(c.AddInventory(provider=A, resource_class="DISK_GB", inventory=odd, now=2.0))


def test_a_reshape_moves_generations_by_three_where_inventory_stays_and_two_where_it_goes(
    model: PlacementModel,
) -> None:
    write(model, a=2)
    inventories = {
        A: c.ReshapedProvider(generation=2, inventories={}),
        B: c.ReshapedProvider(generation=1, inventories={"VCPU": Inventory(total=8)}),
    }
    moved = c.ConsumerAllocations(allocations={B: {"VCPU": 2}}, project_id="p", user_id="u", generation=1)
    model.apply(c.Reshape(providers=inventories, consumers={GUEST: moved}, now=3.0))
    assert generations(model) == (3, 4)
    assert model.inventories(A).inventories == {}
    assert model.provider_usages(B).usages == {"VCPU": 2}


def test_only_a_reshape_takes_it_that_more_is_reserved_than_there_is(model: PlacementModel) -> None:
    over = Inventory(total=1, reserved=2)
    reshaped = c.ReshapedProvider(generation=1, inventories={"VCPU": over})
    model.apply(c.Reshape(providers={B: reshaped}, consumers={}, now=2.0))
    assert model.inventories(B).inventories == {"VCPU": over}
    model.fleet.check()
    with pytest.raises(BadRequest):
        model.apply(c.SetInventories(provider=B, generation=3, inventories={"VCPU": over}, now=3.0))
    query = PlacementQuery(groups=(RequestGroup(resources=(("VCPU", 1),)),))
    assert B not in model.allocation_candidates(query).provider_summaries


def test_aggregates_move_the_generation_only_where_it_is_given(model: PlacementModel) -> None:
    model.apply(c.SetAggregates(provider=A, aggregates=(OTHER,), now=2.0))
    assert model.provider(A).generation == 1
    model.apply(c.SetAggregates(provider=A, aggregates=(OTHER,), generation=1, now=2.0))
    assert model.provider(A).generation == 2


def test_a_parent_stays_where_re_parenting_is_not_allowed(model: PlacementModel) -> None:
    def update(parent: str | None, may_move: bool) -> c.UpdateProvider:
        return c.UpdateProvider(uuid=A, name="a", parent=parent, may_move=may_move, now=2.0)

    model.apply(update(B, False))
    for parent, message in ((None, "un-parenting a provider"), (GUEST, "does not exist")):
        with pytest.raises(BadRequest, match=message):
            model.apply(update(parent, False))
    model.apply(c.UpdateProvider(uuid=A, name="renamed", parent=UNSET, now=2.0))
    assert (model.provider(A).parent, model.provider(A).root) == (B, B)
    with pytest.raises(BadRequest, match=r"creating loop in the provider tree is not allowed\."):
        model.apply(c.UpdateProvider(uuid=B, name="b", parent=A, now=2.0))
    model.apply(update(None, True))
    assert model.provider(A).root == A


def test_times_are_those_of_the_commands(model: PlacementModel) -> None:
    assert model.inventories(A).updated == 1.0
    write(model, a=1, now=7.5)
    found = model.allocations(GUEST)
    assert found is not None
    assert (found.updated, model.provider(A).updated, model.provider(B).updated) == (7.5, 7.5, 1.0)
    model.apply(c.CreateTrait(name="CUSTOM_T", now=9.0))
    assert model.trait("CUSTOM_T").updated == 9.0
    assert model.trait("HW_CPU_X86_AVX2").updated is None


def test_traits_are_found_by_name_prefix_and_use(model: PlacementModel) -> None:
    for name in ("CUSTOM_Z", "CUSTOM_A_B", "CUSTOM_AXB"):
        model.apply(c.CreateTrait(name=name, now=1.0))
    model.apply(c.SetTraits(provider=A, generation=1, traits=("CUSTOM_Z", "HW_CPU_X86_AVX2"), now=1.0))
    assert [named.name for named in model.traits(prefix="CUSTOM_")] == ["CUSTOM_Z", "CUSTOM_A_B", "CUSTOM_AXB"]
    assert [named.name for named in model.traits(prefix="CUSTOM_A_")] == ["CUSTOM_A_B"], "no wildcard"
    assert [named.name for named in model.traits(associated=True)] == ["HW_CPU_X86_AVX2", "CUSTOM_Z"]
    assert [named.name for named in model.traits(names=["CUSTOM_Z", "NO"])] == ["CUSTOM_Z"]


def test_providers_are_found_by_what_they_have(model: PlacementModel) -> None:
    write(model, a=3)

    def having(**fields: object) -> list[str]:
        return [found.name for found in model.providers(group=RequestGroup(**fields))]  # type: ignore[arg-type]  # any

    assert having(resources=(("VCPU", 2),)) == ["b"]
    assert having(resources=(("VCPU", 1),)) == ["a", "b"]
    assert having(resources=(("VGPU", 1),)) == []
    assert having(in_tree=A) == ["a"]
    assert having(in_tree=GUEST) == []
    assert having(forbidden=frozenset({"HW_CPU_X86_AVX2"})) == ["a", "b"]
    with pytest.raises(BadRequest, match="No such resource class CUSTOM_NO"):
        having(resources=(("CUSTOM_NO", 1),))


def test_names_behind_a_filter_that_nothing_passes_are_not_read(model: PlacementModel) -> None:
    def having(**fields: object) -> list[str]:
        return [found.name for found in model.providers(group=RequestGroup(**fields))]  # type: ignore[arg-type]  # any

    unknown, no_class = frozenset({"CUSTOM_NO"}), (("CUSTOM_NO", 1),)
    avx, rack = frozenset({"HW_CPU_X86_AVX2"}), (frozenset({GUEST}),)
    assert having(in_tree=GUEST, required=unknown, resources=no_class) == []
    assert having(required=avx, forbidden=unknown) == []
    assert having(any_of=(avx,), resources=no_class) == []
    assert having(member_of=rack, resources=no_class) == []
    model.apply(c.SetTraits(provider=A, generation=1, traits=("HW_CPU_X86_AVX2",), now=1.0))
    with pytest.raises(BadRequest, match="CUSTOM_NO"):
        having(required=unknown, member_of=rack)
    with pytest.raises(BadRequest, match="CUSTOM_NO"):
        having(forbidden=unknown, member_of=rack)
    with pytest.raises(BadRequest, match="CUSTOM_NO"):
        having(required=avx, forbidden=unknown)
    with pytest.raises(BadRequest, match="CUSTOM_NO"):
        having(any_of=(avx,), resources=no_class)


def test_usages_are_told_by_consumer_type(model: PlacementModel) -> None:
    for consumer, kind in ((GUEST, "INSTANCE"), (OTHER, None)):
        one = c.ConsumerAllocations(
            allocations={A: {"VCPU": 1}, B: {"VCPU": 1}}, project_id="p", user_id=f"user {kind}", consumer_type=kind
        )
        model.apply(c.SetAllocations(consumers={consumer: one}, now=1.0))
    found = model.usages_by_type("p")
    assert {kind: (usage.consumer_count, usage.usages) for kind, usage in found.items()} == {
        "INSTANCE": (1, {"VCPU": 2}),
        "unknown": (1, {"VCPU": 2}),
    }
    assert model.usages_by_type("p", consumer_type="all")["all"].usages == {"VCPU": 4}
    assert list(model.usages_by_type("p", consumer_type="unknown")) == ["unknown"]
    assert model.usages("p", user_id="user INSTANCE") == {"VCPU": 2}
    assert model.usages_by_type("nobody") == {}


@pytest.mark.parametrize(
    "command",
    [
        c.DeleteProvider(uuid=GUEST, now=1.0),
        c.DeleteProvider(uuid="no uuid", now=1.0),
        c.SetInventories(provider=GUEST, generation=0, inventories={}, now=1.0),
        c.DeleteInventory(provider=A, resource_class="NO", now=1.0),
        c.SetInventory(provider=A, resource_class="CUSTOM_NO", generation=1, inventory=Inventory(total=1), now=1.0),
        c.DeleteTrait(name="CUSTOM_NO", now=1.0),
        c.DeleteResourceClass(name="CUSTOM_NO", now=1.0),
        c.DeleteAllocations(consumer=GUEST, now=1.0),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_is_not_there_is_not_found(model: PlacementModel, command: c.PlacementCommand) -> None:
    with pytest.raises(NotFound):
        model.apply(command)


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800"])
def test_a_name_that_cannot_be_kept_is_refused(model: PlacementModel, name: str) -> None:
    with pytest.raises(BadRequest, match="name must be"):
        model.apply(c.CreateProvider(uuid=GUEST, name=name, now=1.0))
    assert len(model.providers()) == 2


def test_a_malformed_uuid_is_refused(model: PlacementModel) -> None:
    with pytest.raises(BadRequest, match="uuid"):
        model.apply(c.CreateProvider(uuid="7", name="x", now=1.0))
    with pytest.raises(BadRequest, match="uuid"):
        model.allocations("7")


def test_an_undashed_uuid_names_the_same(model: PlacementModel) -> None:
    assert model.provider(A.replace("-", "").upper()).name == "a"


def test_what_is_no_command_is_refused(model: PlacementModel) -> None:
    with pytest.raises(InvalidValue, match="no such command"):
        model.apply("CreateProvider")  # type: ignore[arg-type]  # bad on purpose


def test_every_error_of_the_api_says_which_field_is_at_fault(model: PlacementModel) -> None:
    write(model, a=1)
    commands: list[c.PlacementCommand] = [
        c.CreateProvider(uuid=A, name="new", now=1.0),
        c.DeleteProvider(uuid=A, now=1.0),
        c.DeleteInventories(provider=A, now=1.0),
        c.SetTraits(provider=A, generation=9, traits=(), now=1.0),
        c.SetTraits(provider=A, generation=2, traits=("NO",), now=1.0),
        c.CreateResourceClass(name="VCPU", now=1.0),
        c.DeleteTrait(name="HW_CPU_X86_AVX2", now=1.0),
    ]
    for command in commands:
        with pytest.raises(ApiError) as refused:
            model.apply(command)
        assert refused.value.field, command
