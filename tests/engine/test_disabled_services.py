"""A disabled compute service is refused where no filter judges it, and reasons name the traits that decided."""

from __future__ import annotations

from dataclasses import replace

from hostler import Engine, Flavor, Fleet, Host, Inventory, Policy, Request, RequestSpec, add_hosts


def test_a_disabled_service_keeps_forced_guests_out_as_its_trait_does_in_nova() -> None:
    fleet = Fleet()
    add_hosts(fleet, [Host(host="a", vcpus_total=8, total_usable_ram_mb=8_192)])
    fleet.set_service("a", disabled=True, disabled_reason="disk")
    for policy in (
        '[filter_scheduler]\nenabled_filters = ["ComputeFilter"]\n',
        "[filter_scheduler]\nenabled_filters = []\n",
    ):
        engine = Engine(fleet, Policy.from_toml(policy))
        forced = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=64), force_hosts=("a",))
        assert not engine.what_if().place(Request(spec=forced)).placed
        reason = engine.explain(Request(spec=forced)).reason("a")
        assert reason is not None
        assert (reason.stage, reason.reason) == ("compute_status", "service disabled: disk")
    plain = Engine(fleet, Policy.from_toml(policy)).place(Request(spec=replace(forced, force_hosts=())))
    assert plain.removed["compute_status"] == 1


def test_a_nested_host_with_a_forbidden_trait_is_refused_by_its_name() -> None:
    fleet = Fleet()
    add_hosts(
        fleet,
        [Host(host="a", vcpus_total=8, total_usable_ram_mb=8_192, traits=frozenset({"COMPUTE_STATUS_DISABLED"}))],
    )
    fleet.add_provider("card", parent="a")
    fleet.set_inventory("card", {"VGPU": Inventory(total=1)})
    specs = {"resources:VGPU": "1"}
    request = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=64, extra_specs=specs)))
    reason = Engine(fleet).explain(request).reason("a")
    assert reason is not None
    assert reason.reason == "has the forbidden trait COMPUTE_STATUS_DISABLED"
    fleet.set_traits("a", ())
    fleet.set_inventory("card", {"VGPU": Inventory(total=1, reserved=1)})
    reason = Engine(fleet).explain(request).reason("a")
    assert reason is not None
    assert reason.reason == "free VGPU 0 < 1 in its provider tree"
