"""Rules of installed packages, found by entry point, and Nova's own classes, named in a policy, unchanged."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load.bulk import add_hosts
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import InvalidValue, UnknownName
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec

from ..engine.values import guest_uuid

RULES = """
    from hostler.placement.filters.base import Bound, Filter
    from hostler.placement.weighers.base import Weigher

    class RackFilter(Filter):
        name = "RackFilter"

        def fields(self, request):
            return frozenset({"stats"})

        def key(self, request):
            return request.scheduler_hints.get("rack", ())

        def host_passes(self, host, request):
            return host.stats["rack"] in request.scheduler_hints.get("rack", ("r1", "r2"))

        def reason(self, host, request):
            return f"stands in rack {host.stats['rack']}"

    class LastWeigher(Weigher):
        name = "LastWeigher"
        option = "last_weight_multiplier"

        def configured(self):
            return 100.0

        def fields(self, request):
            return frozenset({"nodename"})

        def raw(self, host, request):
            return float(host.nodename[1:])

    class NovaOdd:
        run_filter_once_per_request = True

        def host_passes(self, host_state, spec_obj):
            rack = spec_obj.get_scheduler_hint("rack", "any")
            return int(host_state.hypervisor_hostname[1:]) % 2 == 1 or spec_obj.flavor.vcpus > 1 or rack == "r2"

    class NovaFirst:
        def weight_multiplier(self, host_state):
            return 1000.0

        def _weigh_object(self, host_state, weight_properties):
            return -host_state.num_instances if "fast" in weight_properties.flavor.extra_specs else 0

    number = 7
"""
ENTRY_POINTS = """
    [hostler.filters]
    RackFilter = acme_rules:RackFilter
    Missing = acme_rules:Nothing
    Number = acme_rules:number

    [hostler.weighers]
    LastWeigher = acme_rules:LastWeigher
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package ``acme-rules``, as pip would install it."""
    (tmp_path / "acme_rules.py").write_text(dedent(RULES))
    info = tmp_path / "acme_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(dedent(ENTRY_POINTS))
    monkeypatch.syspath_prepend(str(tmp_path))


def engine(**groups: dict[str, object]) -> Engine:
    fleet = Fleet()
    hosts = [
        Host(host=f"h{i}", vcpus_total=8, total_usable_ram_mb=8192, stats={"rack": f"r{1 + i // 2}"}) for i in range(4)
    ]
    add_hosts(fleet, hosts)
    return Engine(fleet, Policy.from_mapping(groups))


def request(number: int, vcpus: int = 1, **hints: str) -> Request:
    flavor = Flavor(name="f", vcpus=vcpus, memory_mb=512, extra_specs={"fast": "yes"})
    spec = RequestSpec(flavor=flavor, scheduler_hints={name: (value,) for name, value in hints.items()})
    return Request(spec=spec, instance_uuids=(guest_uuid(number),))


RACKS: dict[str, object] = {"enabled_filters": ["RackFilter"], "weight_classes": ["LastWeigher"]}


def test_rules_are_found_by_their_entry_points() -> None:
    found = engine(filter_scheduler=RACKS)
    assert found.place(request(0)).host == "h3"
    assert found.place(request(1, rack="r1")).host == "h1"
    assert found.place(request(2, rack="r9")).removed["RackFilter"] == 4


def test_their_reasons_are_told() -> None:
    reason = engine(filter_scheduler=RACKS).explain(request(0, rack="r1")).reason("h2")
    assert reason is not None
    assert (reason.stage, reason.reason) == ("RackFilter", "stands in rack r2")


def test_a_batch_heeds_them_as_one_by_one_does() -> None:
    requests = [request(i, rack=f"r{1 + i % 2}") for i in range(8)]
    many, single = engine(filter_scheduler=RACKS), engine(filter_scheduler=RACKS)
    assert [d.host for d in many.place_many(requests)] == [single.place(each).host for each in requests]


def test_rules_that_are_not_named_do_not_run() -> None:
    names = [rule.name for rule in engine().policy.filters]
    assert "RackFilter" not in names


@pytest.mark.parametrize(("name", "error"), [("Missing", InvalidValue), ("Number", InvalidValue), ("No", UnknownName)])
def test_an_entry_point_that_leads_nowhere_is_an_error_that_names_it(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        engine(filter_scheduler={"enabled_filters": [name]})


NOVA: dict[str, object] = {"nova_filters": ["acme_rules:NovaOdd"], "nova_weighers": ["acme_rules:NovaFirst"]}


def test_nova_filters_and_weighers_run_unchanged() -> None:
    found = engine(hostler=NOVA)
    hosts = [found.place(request(i)).host for i in range(3)]
    assert hosts == ["h1", "h3", "h1"]
    assert found.place(request(4)).removed["NovaOdd"] == 2


def test_they_read_hints_and_flavors_as_nova_gives_them() -> None:
    found = engine(hostler=NOVA)
    assert found.rank(request(0, rack="r2")).removed["NovaOdd"] == 0
    assert found.rank(request(0, vcpus=2)).removed["NovaOdd"] == 0


def test_a_nova_filter_that_judges_once_does_not_judge_later_instances() -> None:
    found = engine(hostler=NOVA, filter_scheduler={"weight_classes": ["NumInstancesWeigher"]})
    asked = request(0).with_changes(instance_uuids=tuple(map(guest_uuid, range(3))))
    assert {selection.host for selection in found.place(asked).selections} <= {"h1", "h3"}


@pytest.mark.parametrize("name", ["acme_rules:Nothing", "acme_rules:number", "acme_nothing:X", "acme_rules"])
def test_a_nova_class_that_is_none_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(InvalidValue, match="acme") as failure:
        engine(hostler={"nova_filters": [name]})
    assert failure.value.field == "hostler.nova_filters"


@pytest.mark.parametrize("option", ["nova_filters", "nova_weighers"])
def test_a_class_of_the_other_kind_is_an_error_that_says_what_it_lacks(option: str) -> None:
    other = "NovaFirst" if option == "nova_filters" else "NovaOdd"
    with pytest.raises(InvalidValue, match=f"{other}.* has no method") as failure:
        engine(hostler={option: [f"acme_rules:{other}"]})
    assert failure.value.field == option
