"""Requests that differ from a compiled one in the size of their flavor alone get the answers of one compiled anew."""

from __future__ import annotations

import itertools

import pytest

from hostler import Engine, Flavor, Fleet, Host, Image, Policy, Request, RequestSpec, add_hosts
from hostler.placement.decide import sizes
from hostler.placement.types.host import Aggregate

ZONE = Aggregate(uuid="0" * 31 + "1", name="zone", metadata={"availability_zone": "zone", "filter_tenant_id": "q"})
PACKING = Policy.from_mapping({"filter_scheduler": {"weight_classes": ["DotProductWeigher"]}})
TENANTS = Policy.from_mapping({"scheduler": {"limit_tenants_to_placement_aggregate": True}})


def fleet() -> Fleet:
    made = Fleet()
    add_hosts(
        made,
        [
            Host(
                host=f"host-{i}",
                vcpus_total=8 + i % 5,
                total_usable_ram_mb=16_384 + 1_024 * (i % 7),
                total_usable_disk_gb=100 + 50 * (i % 3),
                traits=frozenset({"HW_CPU_X86_AVX2"} if i % 2 else ()),
                aggregates=(ZONE,) if i % 3 else (),
            )
            for i in range(40)
        ],
    )
    return made


def requests() -> list[Request]:
    """Sizes times traits, zones and images, in an order that has each family met with several sizes."""
    amounts = [(1, 512, 1, 0), (2, 2_048, 0, 0), (4, 4_096, 20, 512), (40, 1_024, 5, 0), (3, 3_000, 0, 2_000)]
    wishes: list[dict[str, str]] = [{}, {"trait:HW_CPU_X86_AVX2": "required"}, {"resources:CUSTOM_LICENCE": "1"}]
    images = [None, Image(properties={"hw_vif_model": "virtio"}), Image(properties={"hw_architecture": "x86_64"})]
    made = []
    for number, (size, wish, zone, image, bfv) in enumerate(
        itertools.product(amounts, wishes, (None, "zone", "nova"), images, (False, True))
    ):
        vcpus, memory, root, swap = size
        flavor = Flavor(name=f"f{number}", vcpus=vcpus, memory_mb=memory, root_gb=root, swap=swap, extra_specs=wish)
        spec = RequestSpec(flavor=flavor, image=image, availability_zone=zone, is_bfv=bfv)
        made.append(
            Request(spec=spec, instance_uuids=(f"{number + 1:032x}",), project_id="pq"[number % 2], user_id="u")
        )
    return made


@pytest.mark.parametrize("policy", [Policy.nova_default(), PACKING, TENANTS], ids=["default", "packing", "tenants"])
def test_each_size_is_decided_as_by_an_engine_that_compiles_it_anew(policy: Policy) -> None:
    engine, anew = Engine(fleet(), policy), Engine(fleet(), policy)
    for request in requests():
        anew._context.compiled.forget()
        got, wanted = engine.place(request), anew.place(request)
        assert got == wanted


def test_place_many_decides_as_place_does() -> None:
    together, alone = Engine(fleet()), Engine(fleet())
    decisions = together.place_many(requests())
    for request, decision in zip(requests(), decisions, strict=True):
        wanted = alone.place(request)
        assert [each.host for each in decision.selections] == [each.host for each in wanted.selections]
        assert (decision.removed, decision.considered) == (wanted.removed, wanted.considered)


def test_sizes_of_one_family_share_their_class_results() -> None:
    engine = Engine(fleet())
    small, large = (
        engine._context.signature(
            Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=vcpus, memory_mb=512)), instance_uuids=("1" * 32,))
        )
        for vcpus in (1, 2)
    )
    assert small is not large
    assert small._class_stage is large._class_stage
    assert [amount for _, amount, *_ in large.needs] == [512, 2]
    assert large.requirements.group.resources == (("MEMORY_MB", 512), ("VCPU", 2))


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "FAMILIES", 20)
    engine = Engine(fleet())
    for memory in range(50):
        spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1 + memory))
        engine._context.signature(Request(spec=spec, instance_uuids=("1" * 32,)))
    kept = engine._context.compiled.sizes
    assert max(len(kept._made), len(kept._families), len(kept._flavors), len(kept._images)) <= 20


def test_a_uuid_left_out_is_the_same_in_a_batch_as_alone() -> None:
    together, alone = Engine(fleet(), seed=3), Engine(fleet(), seed=3)
    wanted = [request.with_changes(instance_uuids=()) for request in requests()[:40]]
    decisions = together.place_many([*wanted[:20]]), together.place_many([*wanted[20:]])
    found = [*decisions[0].uuids(), *decisions[1].uuids()]
    for request, uuid in zip(wanted, found, strict=True):
        decision = alone.place(request)
        if decision.placed:
            assert decision.selected.instance_uuid == uuid
