"""Requests whose flavor, image and zone were met before get the answers that they get where each is compiled anew."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler import Decision, Engine, Flavor, Fleet, Host, Image, Policy, Request, RequestSpec, add_hosts
from hostler.placement.decide import shape_table, signature_cache
from hostler.placement.decide.signature_cache import Compiled
from hostler.placement.types.errors import HostlerError, UnknownName
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


def anew(engine: Engine) -> Engine:
    """The engine, which compiles every spec whole."""
    compiled: Compiled = engine._context.compiled
    compiled._by_parts = False
    compiled.shapes = compiled.shapes_apart()
    return engine


WISHES: list[dict[str, str]] = [
    {},
    {"trait:HW_CPU_X86_AVX2": "required"},
    {"trait:HW_CPU_X86_AVX2": "forbidden"},
    {"trait:HW_CPU_X86_AVX512F": "required", "trait:HW_CPU_X86_AVX2": "required"},
    {"capabilities:hypervisor_type": "qemu"},
    {"aggregate_instance_extra_specs:ssd": "true"},
    {"resources:CUSTOM_LICENCE": "1"},
    {"resources:VCPU": "3"},
    {"hw:cpu_max_sockets": "2"},
    {"trait:NO_SUCH_TRAIT": "required"},
    {"trait:HW_CPU_X86_AVX2": "perhaps"},
]
IMAGES: list[Image | None] = [
    None,
    Image(),
    Image(disk_format="qcow2"),
    Image(disk_format="raw", properties={"hw_vif_model": "virtio"}),
    Image(properties={"trait:HW_CPU_X86_AVX2": "required"}),
    Image(properties={"trait:HW_CPU_X86_AVX2": "forbidden"}),
    Image(properties={"hw_architecture": "x86_64", "os_distro": "debian"}),
    Image(properties={"hw_architecture": "aarch64"}),
    Image(properties={"architecture": "x86_64", "img_hv_requested_version": ">=6.2"}),
    Image(properties={"hw_firmware_type": "uefi", "hw_virtio_packed_ring": "true"}),
    Image(properties={"hw_numa_nodes": "2"}),
    Image(properties={"licence": "paid"}),
]
RICH = Policy.from_mapping(
    {
        "filter_scheduler": {
            "enabled_filters": [
                *("ComputeFilter", "ComputeCapabilitiesFilter", "ImagePropertiesFilter", "NUMATopologyFilter"),
                *("AggregateInstanceExtraSpecsFilter", "AggregateImagePropertiesIsolation"),
                *("ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter", "IoOpsFilter", "NumInstancesFilter"),
            ]
        },
        "scheduler": {"query_placement_for_image_type_support": True, "image_metadata_prefilter": True},
    }
)
UNPREPARED = Policy.from_mapping({"hostler": {"prepare": False}})


def rich_fleet() -> Fleet:
    made = Fleet()
    fast = Aggregate(uuid="0" * 31 + "2", name="fast", metadata={"ssd": "true", "availability_zone": "far"})
    paid = Aggregate(uuid="0" * 31 + "3", name="paid", metadata={"licence": "paid"})
    traits = ("HW_CPU_X86_AVX2", "HW_CPU_X86_AVX512F", "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_NET_VIF_MODEL_VIRTIO")
    add_hosts(
        made,
        [
            Host(
                host=f"host-{i}",
                vcpus_total=8 + i % 5,
                total_usable_ram_mb=16_384 + 1_024 * (i % 7),
                total_usable_disk_gb=100 + 50 * (i % 3),
                traits=frozenset(trait for bit, trait in enumerate(traits) if i >> bit & 1),
                aggregates=((ZONE,), (fast,), (paid,), (), (paid, ZONE))[i % 5],
                hypervisor_type="QEMU" if i % 3 else "kvm",
                supported_instances=(("x86_64", "kvm", "hvm"),) if i % 4 else (("aarch64", "kvm", "hvm"),),
            )
            for i in range(48)
        ],
    )
    return made


def outcome(place: Callable[[Request], Any], request: Request) -> Any:
    try:
        return place(request)
    except HostlerError as error:
        return type(error), str(error)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([Policy.nova_default(), RICH, UNPREPARED]),
    st.lists(
        st.tuples(
            st.sampled_from(WISHES),
            st.sampled_from(IMAGES),
            st.sampled_from([None, "zone", "far", "nova", "nowhere"]),
            st.sampled_from([(1, 512, 1), (2, 2_048, 0), (4, 4_096, 20), (40, 1_024, 5), (0, 0, 0)]),
            st.booleans(),
            st.sampled_from([None, False, True]),
        ),
        min_size=1,
        max_size=40,
    ),
)
def test_a_request_known_by_its_parts_is_answered_as_one_compiled_whole(policy: Policy, asked: list[Any]) -> None:
    parts, whole, many = Engine(rich_fleet(), policy), anew(Engine(rich_fleet(), policy)), Engine(rich_fleet(), policy)
    for number, (wish, image, zone, (vcpus, memory, root), bfv, prepare) in enumerate(asked):
        flavor = Flavor(name=f"f{number}", vcpus=vcpus, memory_mb=memory, root_gb=root, extra_specs=wish)
        spec = RequestSpec(flavor=flavor, image=image, availability_zone=zone, is_bfv=bfv, prepare=prepare)
        request = Request(spec=spec, instance_uuids=(f"{number + 1:032x}",), project_id="p", user_id="u")
        wanted = outcome(whole.place, request)
        assert outcome(parts.place, request) == wanted
        question = request.with_changes(instance_uuids=())
        assert outcome(parts.explain, question) == outcome(whole.explain, question)
        together = outcome(lambda request: many.place_many([request])[0], request)
        if isinstance(wanted, Decision):
            assert (together.removed, together.considered) == (wanted.removed, wanted.considered)
            assert [each.host for each in together.selections] == [each.host for each in wanted.selections]
        else:
            assert together == wanted


def test_a_zone_that_is_gone_is_unknown_to_requests_that_were_met_before() -> None:
    made = Fleet()
    add_hosts(made, [Host(host="host", vcpus_total=8, total_usable_ram_mb=16_384, aggregates=(ZONE,))])
    engine = Engine(made)
    request = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512), availability_zone="zone"))
    assert engine.place_many([request])[0].placed
    made.set_aggregates("host", ())
    with pytest.raises(UnknownName, match="zone"):
        engine.place_many([request])


def test_images_that_are_judged_alike_share_a_ranking() -> None:
    engine = Engine(fleet())
    flavor = Flavor(name="f", vcpus=1, memory_mb=512)
    specs = [RequestSpec(flavor=flavor, image=Image(properties={"os_distro": name})) for name in ("debian", "rocky")]
    engine.place_many([Request(spec=spec) for spec in specs])
    shapes = engine._context.compiled.shapes
    assert shapes.specs.find(specs[0]) == shapes.specs.find(specs[1]) >= 0
    assert len(shapes.shapes.rankings) == 1


@pytest.mark.parametrize("policy", [Policy.nova_default(), PACKING, TENANTS], ids=["default", "packing", "tenants"])
def test_each_size_is_decided_as_by_an_engine_that_compiles_it_anew(policy: Policy) -> None:
    engine, whole = Engine(fleet(), policy), anew(Engine(fleet(), policy))
    for request in requests():
        whole._context.compiled.forget()
        got, wanted = engine.place(request), whole.place(request)
        assert got == wanted


def test_place_many_decides_as_place_does() -> None:
    together, alone = Engine(fleet()), Engine(fleet())
    decisions = together.place_many(requests())
    for request, decision in zip(requests(), decisions, strict=True):
        wanted = alone.place(request)
        assert [each.host for each in decision.selections] == [each.host for each in wanted.selections]
        assert (decision.removed, decision.considered) == (wanted.removed, wanted.considered)


def test_sizes_share_the_verdicts_on_host_classes() -> None:
    engine = Engine(fleet())
    small, large = (
        engine._context.signature(
            Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=vcpus, memory_mb=512)), instance_uuids=("1" * 32,))
        )
        for vcpus in (1, 2)
    )
    assert small is not large
    assert small._class_stage.tolist() == large._class_stage.tolist()
    assert [amount for _, amount, *_ in large.needs] == [512, 2]
    assert large.requirements.group.resources == (("MEMORY_MB", 512), ("VCPU", 2))


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PARTS", "RANKINGS", "SHAPES"):
        monkeypatch.setattr(shape_table, name, 20)
    engine = Engine(fleet(), RICH)
    for memory in range(100):
        wish = {f"aggregate_instance_extra_specs:a{memory}": "1"}
        flavor = Flavor(name="f", vcpus=1, memory_mb=1 + memory, extra_specs=wish)
        image = Image(properties={"os_distro": str(memory)})
        requests = [Request(spec=RequestSpec(flavor=flavor, image=image, is_bfv=bool(memory % 2)))]
        engine.place_many(requests)
        engine._context.signature(requests[0].with_changes(instance_uuids=("1" * 32,)))
        kept = engine._context.compiled.shapes
        assert kept._parts <= 20 + 3
        assert max(len(kept.shapes), len(kept.stage_names), len(kept._made)) <= 20 + 3


def test_large_specs_are_forgotten_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature_cache, "SPEC_BYTES", 1 << 20)
    monkeypatch.setattr(shape_table, "KEPT_BYTES", 8 << 20)
    engine = Engine(fleet())
    compiled, most = engine._context.compiled, 0
    for number in range(60):
        for again in range(2):  # those that are asked again are also found by their identity
            wish = {"x:y": f"{number:06}" + "x" * (1 << 16), "trait:HW_CPU_X86_AVX2": "required"}
            spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1, extra_specs=wish), prepare=False)
            engine.place_many([Request(spec=spec, instance_uuids=(f"{2 * number + again + 1:032x}",))])
            most = max(most, len(compiled._met))
        known = {id(each) for each in compiled.by_spec.values()}
        assert {id(each) for _, each in compiled._met.values()} <= known
        assert sum(spec.nbytes for spec in compiled.shapes.specs.specs) <= 9 << 20
        assert sum(flavor.nbytes for flavors in compiled.shapes.specs.flavors for flavor in flavors) <= 9 << 20
    assert 1 < len(compiled.by_spec) < 20
    assert 1 < most <= 20


@pytest.mark.parametrize("by_parts", [True, False])
def test_objects_of_large_specs_are_not_kept(by_parts: bool) -> None:
    engine, image = Engine(fleet()), Image(properties={"os_distro": "x" * (1 << 16)})
    flavor = Flavor(name="f", vcpus=1, memory_mb=1, extra_specs={} if by_parts else {"x:y": "1"})
    first, spec = (RequestSpec(flavor=flavor, image=image, prepare=False) for _ in range(2))
    assert engine.place_many([Request(spec=first, instance_uuids=("1" * 32,))]).rows[0] >= 0
    references = sys.getrefcount(spec)
    number = engine._context.compiled.shapes.specs.find(spec)
    more = sys.getrefcount(spec) - references
    assert (number >= 0, more) == (True, 0)


def test_a_uuid_left_out_is_the_same_in_a_batch_as_alone() -> None:
    together, alone = Engine(fleet(), seed=3), Engine(fleet(), seed=3)
    wanted = [request.with_changes(instance_uuids=()) for request in requests()[:40]]
    decisions = together.place_many([*wanted[:20]]), together.place_many([*wanted[20:]])
    found = [*decisions[0].uuids(), *decisions[1].uuids()]
    for request, uuid in zip(wanted, found, strict=True):
        decision = alone.place(request)
        if decision.placed:
            assert decision.selected.instance_uuid == uuid
