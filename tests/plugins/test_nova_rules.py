"""Rules written for Nova: they are given kept groups, services, NUMA cells and aggregates as Nova has them."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hostler import (
    Aggregate,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostlerError,
    Image,
    InvalidValue,
    NovaFilterAdapter,
    Policy,
    Request,
    RequestedNetwork,
    RequestSpec,
    Service,
    SpecRequestGroup,
    add_hosts,
)
from hostler.bench.environments import kept

UUID = "00000000-0000-4000-8000-{:012}"
HERE = __name__


class ReservationFilter:
    """A filter like Blazar's: hosts in the pool of reservations take guests with a reservation for that pool only."""

    FREE_POOL = "freepool"

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        asked = spec_obj.get_scheduler_hint("reservation")
        pools = [each for each in host_state.aggregates if each.metadata.get("blazar:owner") is not None]
        if asked is None:
            return not any(each.metadata["blazar:owner"] != spec_obj.project_id for each in pools)
        return any(each.name == asked and host_state.host in each.hosts for each in pools)


class FailureDomainFilter:
    """At most one member of a server group in each failure domain, which is an aggregate."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        group = spec_obj.instance_group
        if group is None:
            return True
        for each in host_state.aggregates:
            if "failure_domain" in each.metadata and set(each.hosts) & set(group.hosts):
                return False
        return True


class HeartbeatFilter:
    """Reads a service's times as Nova has them."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        seen = host_state.service["last_seen_up"] or host_state.service["created_at"]
        assert isinstance(seen, datetime.datetime)
        assert seen.tzinfo is not None
        return not host_state.service["disabled"] and seen.year >= 2020


class CloningFilter:
    """Changes a copy of what it is given."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        copied = spec_obj.obj_clone()
        copied.flavor.extra_specs["mine"] = "1"
        host_state.limits["vcpu"] = 4
        return "mine" not in spec_obj.flavor.extra_specs


class CandidatesFilter:
    """Leaves a host its candidates, as Nova's filters of candidates do."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        host_state.allocation_candidates = [each for each in host_state.allocation_candidates if "mappings" in each]
        return bool(host_state.allocation_candidates)


class RaisingFilter:
    """A filter with a fault."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return bool(host_state.no_such_attribute)


class RaisingWeigher:
    """A weigher with a fault."""

    def _weigh_object(self, host_state: Any, request_spec: Any) -> float:
        return 1.0 / float(host_state.vcpus_total - 16)


class WholeSpecFilter:
    """Reads every part of a request that Nova's RequestSpec has when a guest is built."""

    seen: ClassVar[dict[str, Any]] = {}

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        image = spec_obj.image.properties
        self.seen.update(vars(spec_obj), image=dict(vars(image)), arch=image.get("hw_architecture"))
        assert not spec_obj.retry
        assert spec_obj.limits.numa_topology is None
        assert spec_obj.network_metadata.physnets is not None
        return not spec_obj.request_level_params.root_required


class OneFilter:
    """A filter that overrides Nova's hook for one host."""

    def _filter_one(self, obj: Any, spec_obj: Any) -> bool:
        return self.host_passes(obj, spec_obj) and obj.host != "a"

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return True


class AllFilter(OneFilter):
    """A filter that judges all hosts at once."""

    def filter_all(self, filter_obj_list: Any, spec_obj: Any) -> Any:
        return list(filter_obj_list)[:1]


class AllWeigher(RaisingWeigher):
    """A weigher that weighs all hosts at once."""

    def weigh_objects(self, weighed_obj_list: Any, weight_properties: Any) -> list[float]:
        return [1.0 for _ in weighed_obj_list]


def engine(hosts: list[Host], *rules: str, weigher: str | None = None) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, hosts)
    options: dict[str, Any] = {
        "available_filters": ["nova.scheduler.filters.all_filters", *(f"{HERE}.{rule}" for rule in rules)],
        "enabled_filters": ["ComputeFilter", *rules],
    }
    if weigher is not None:
        options["weight_classes"] = [f"{HERE}.{weigher}"]
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": options, "hostler": {"prepare": False}}))


def host(name: str, **changes: Any) -> Host:
    return Host(host=name, vcpus_total=16, total_usable_ram_mb=16_384, **changes)


def asks(**changes: Any) -> Request:
    hints = changes.pop("scheduler_hints", {})
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=512), scheduler_hints=hints)
    return Request(spec=spec, **changes)


def domain(number: int) -> Aggregate:
    return Aggregate(uuid=UUID.format(900 + number), name=f"domain-{number}", metadata={"failure_domain": "1"})


def test_a_filter_over_aggregates_sees_all_their_hosts() -> None:
    hosts = [host(f"h{i}", aggregates=(domain(i // 2),)) for i in range(4)]
    placing = engine(hosts, "FailureDomainFilter")
    placing.fleet.add_server_group(UUID.format(500), "soft-anti-affinity")
    group = {"server_group": UUID.format(500)}
    chosen = [placing.place(asks(**group)).host for _ in range(2)]
    assert sorted(int(name[1]) // 2 for name in chosen) == [0, 1]
    assert placing.place(asks(**group)).refusal is not None


def test_a_filter_like_blazars_keeps_reserved_hosts_for_their_reservations() -> None:
    reserved = Aggregate(uuid=UUID.format(901), name="r1", metadata={"blazar:owner": "p1"})
    placing = engine([host("free"), host("held", aggregates=(reserved,))], "ReservationFilter")
    assert [placing.place(asks(project_id="p2")).host for _ in range(3)] == ["free"] * 3
    assert placing.place(asks(project_id="p1", scheduler_hints={"reservation": ("r1",)})).host == "held"
    assert placing.place(asks(project_id="p1", scheduler_hints={"reservation": ("r2",)})).refusal is not None


def test_services_have_datetimes_with_a_heartbeat_and_without() -> None:
    hosts = [host("seen", service=Service(last_seen_up=1.7e9)), host("old", service=Service(created_at=1.0e9))]
    placing = engine(hosts, "HeartbeatFilter")
    assert [placing.place(asks()).host for _ in range(2)] == ["seen", "seen"]


@pytest.mark.parametrize("rule", ["CloningFilter", "CandidatesFilter"])
def test_what_a_filter_is_given_can_be_copied_and_written(rule: str) -> None:
    assert engine([host("a")], rule).place(asks())


@pytest.mark.parametrize(("rule", "weigher"), [("RaisingFilter", None), (None, "RaisingWeigher")])
def test_a_rule_that_raises_is_an_error_that_names_it(rule: str | None, weigher: str | None) -> None:
    placing = engine([host("a"), host("b")], *([rule] if rule else []), weigher=weigher)
    before = placing.fleet.version
    for ask in (placing.place, placing.rank, placing.explain):
        with pytest.raises(InvalidValue, match=f"{rule or weigher} failed for host [ab]: ") as failure:
            ask(asks())
        assert isinstance(failure.value, HostlerError)
        assert failure.value.field == (rule or weigher)
    assert placing.fleet.version == before


def test_a_filter_reads_all_that_is_asked_and_images_as_nova_knows_them() -> None:
    properties = {"hw_architecture": "amd64", "trait:CUSTOM_A": "required", "owner_specified": "x"}
    group = SpecRequestGroup(resources={"VGPU": 1}, required_traits=frozenset({"CUSTOM_B"}), requester_id="dp")
    spec = RequestSpec(
        flavor=Flavor(name="f", vcpus=1, memory_mb=512), image=Image(id="i", properties=properties),
        requested_networks=(RequestedNetwork(port_id=UUID.format(7)),), requested_resources=(group,),
    )  # fmt: skip
    rule = NovaFilterAdapter.of(WholeSpecFilter)(Policy.nova_default().options)
    assert rule.host_passes(host("a"), Request(spec=spec))
    seen = WholeSpecFilter.seen
    assert seen["image"] == {"hw_architecture": "x86_64", "traits_required": ["CUSTOM_A"]}
    assert [each.resources for each in seen["requested_resources"]] == [{"VGPU": 1}]
    assert [each.port_id for each in seen["requested_networks"]] == [UUID.format(7)]
    assert (seen["arch"], seen["security_groups"]) == ("x86_64", [])


def test_a_filter_may_override_novas_hook_for_one_host() -> None:
    assert engine([host("a"), host("b")], "OneFilter").place(asks()).host == "b"


@pytest.mark.parametrize(("rule", "weigher"), [("AllFilter", None), (None, "AllWeigher")])
def test_a_rule_for_all_hosts_at_once_is_refused_by_its_name(rule: str | None, weigher: str | None) -> None:
    with pytest.raises(InvalidValue, match=f"{rule or weigher} judges all at once"):
        engine([host("a")], *([rule] if rule else []), weigher=weigher)


STOCK = Path(__file__).with_name("stock_rules.py")


@pytest.mark.parametrize("release", ["33.0.2", "34.0.0"])
def test_each_of_novas_rules_subclassed_gives_the_stock_answer(release: str) -> None:
    folder = kept(f"nova-{release}")
    packages = sorted(folder.glob("lib/python3*/site-packages"))
    if (
        not packages
        or not (folder / ".complete").exists()
        or not packages[0].parent.name.endswith(f"3.{sys.version_info[1]}")
    ):
        pytest.skip(f"no environment with Nova {release} for this Python: python -m hostler.bench.vs_nova makes one")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(STOCK), str(packages[0])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    answers = json.loads(done.stdout)
    assert len(answers) == 35
    assert {name: ours for name, (ours, _) in answers.items()} == {name: stock for name, (_, stock) in answers.items()}
