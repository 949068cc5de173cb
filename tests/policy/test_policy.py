"""Policies: data that name filters and weighers, checked when they are read."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hostler.placement.filters import BUILTIN_FILTERS
from hostler.placement.filters.base import Filter
from hostler.placement.policy import catalogue
from hostler.placement.policy.policy import Policy
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName
from hostler.placement.types.host import Host, HostState
from hostler.placement.types.request import Flavor, Request, RequestSpec
from hostler.placement.weighers import BUILTIN_WEIGHERS
from hostler.placement.weighers.base import Weigher


class RackFilter(Filter):
    """A filter of the user's own."""

    name: ClassVar[str] = "RackFilter"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset()

    def host_passes(self, host: HostState, request: Request) -> bool:
        return True


class ComputeFilter(Filter):
    """It has the name of one of Nova's."""

    name: ClassVar[str] = "ComputeFilter"


class RackWeigher(Weigher):
    """A weigher of the user's own."""

    name: ClassVar[str] = "RackWeigher"
    option: ClassVar[str] = "ram_weight_multiplier"

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset()

    def raw(self, host: HostState, request: Request) -> float:
        return 0.0


class OddNamesFilter:
    """A Nova filter: no base class, no options."""

    run_filter_once_per_request = True

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return int(host_state.host[-1]) % 2 == 1


class EvenNamesFilter:
    """Another Nova filter."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return int(host_state.host[-1]) % 2 == 0


class SameHostFilter:
    """A Nova filter with the name of one of Nova's."""

    def host_passes(self, host_state: Any, spec_obj: Any) -> bool:
        return False


class ShortNamesWeigher:
    """A Nova weigher."""

    minval = 0

    def weight_multiplier(self, host_state: Any) -> float:
        return 3.0 if host_state.aggregates else 2.0

    def _weigh_object(self, host_state: Any, request_spec: Any) -> float:
        return -len(host_state.host)


HERE = __name__
ALL_WEIGHERS = list(BUILTIN_WEIGHERS)


def filter_scheduler(**options: Any) -> dict[str, dict[str, Any]]:
    return {"filter_scheduler": options}


def hostler(**options: Any) -> dict[str, dict[str, Any]]:
    return {"hostler": options}


def filter_names(policy: Policy) -> list[str]:
    return [rule.name for rule in policy.filters]


def weigher_names(policy: Policy) -> list[str]:
    return [rule.name for rule in policy.weighers]


def test_the_default_runs_novas_default_filters_and_all_weighers_by_module_name() -> None:
    policy = Policy.nova_default()
    assert filter_names(policy) == [
        "ComputeFilter",
        "ComputeCapabilitiesFilter",
        "ImagePropertiesFilter",
        "ServerGroupAntiAffinityFilter",
        "ServerGroupAffinityFilter",
    ]
    assert weigher_names(policy) == ALL_WEIGHERS
    assert (ALL_WEIGHERS[0], ALL_WEIGHERS[2], ALL_WEIGHERS[-1], len(ALL_WEIGHERS)) == (
        "ServerGroupSoftAffinityWeigher",
        "BuildFailureWeigher",
        "RAMWeigher",
        13,
    )
    assert policy.to_mapping() == {}


@pytest.mark.parametrize("name", ["RAMWeigher", "nova.scheduler.weights.ram.RAMWeigher"])
def test_weight_classes_name_weighers_in_their_order(name: str) -> None:
    policy = Policy.from_mapping(filter_scheduler(weight_classes=[name, "CPUWeigher"]))
    assert weigher_names(policy) == ["RAMWeigher", "CPUWeigher"]


def test_all_weighers_stand_for_the_thirteen() -> None:
    policy = Policy.from_mapping(filter_scheduler(weight_classes="nova.scheduler.weights.all_weighers"))
    assert policy == Policy.nova_default()


def test_filters_may_be_named_by_novas_path() -> None:
    policy = Policy.from_mapping(filter_scheduler(enabled_filters=["nova.scheduler.filters.io_ops_filter.IoOpsFilter"]))
    assert filter_names(policy) == ["IoOpsFilter"]
    assert policy == Policy.from_mapping(filter_scheduler(enabled_filters=["IoOpsFilter"]))


def test_the_order_of_addition_can_be_set() -> None:
    order = ALL_WEIGHERS[::-1]
    policy = Policy.from_mapping(hostler(weigher_order=order))
    assert weigher_names(policy) == order
    assert policy == Policy.from_mapping(filter_scheduler(weight_classes=order))
    assert policy != Policy.nova_default()


def test_a_filter_or_weigher_that_is_named_twice_runs_twice() -> None:
    twice = filter_scheduler(
        enabled_filters=["IoOpsFilter", "ComputeFilter", "IoOpsFilter"],
        weight_classes=["nova.scheduler.weights.all_weighers", "RAMWeigher"],
    )
    policy = Policy.from_mapping(twice)
    assert filter_names(policy) == ["IoOpsFilter", "ComputeFilter", "IoOpsFilter"]
    assert weigher_names(policy) == [*ALL_WEIGHERS, "RAMWeigher"]
    assert Policy.from_toml(policy.to_toml()) == policy != Policy.nova_default()


def both_rules() -> list[type]:
    return [OddNamesFilter, EvenNamesFilter]


@pytest.mark.parametrize("path", [f"{HERE}.OddNamesFilter", f"{HERE}.both_rules"])
def test_filters_outside_of_nova_are_made_available_by_their_paths_and_enabled_by_name(path: str) -> None:
    available = ["nova.scheduler.filters.all_filters", path]
    options = filter_scheduler(available_filters=available, enabled_filters=["OddNamesFilter", "ComputeFilter"])
    policy = Policy.from_mapping(options)
    assert filter_names(policy) == ["OddNamesFilter", "ComputeFilter"]
    assert Policy.from_toml(policy.to_toml()) == policy


def test_a_filter_outside_of_nova_may_replace_one_of_novas() -> None:
    available = ["nova.scheduler.filters.all_filters", f"{HERE}.SameHostFilter"]
    policy = Policy.from_mapping(filter_scheduler(available_filters=available, enabled_filters=["SameHostFilter"]))
    assert getattr(policy.filters[0], "nova_class", None) is SameHostFilter


def test_weighers_outside_of_nova_are_named_by_their_paths() -> None:
    named = ["RAMWeigher", f"{HERE}.ShortNamesWeigher", f"{HERE}.RackWeigher"]
    policy = Policy.from_mapping(filter_scheduler(weight_classes=named))
    assert weigher_names(policy) == ["RAMWeigher", "ShortNamesWeigher", "RackWeigher"]
    assert list(policy.options.filter_scheduler.weight_classes) == named
    assert Policy.from_toml(policy.to_toml()) == policy
    ordered = Policy.from_mapping(filter_scheduler(weight_classes=named) | hostler(weigher_order=named[::-1]))
    assert weigher_names(ordered) == ["RackWeigher", "ShortNamesWeigher", "RAMWeigher"]


def test_no_filters_and_no_weighers_are_a_policy() -> None:
    policy = Policy.from_mapping(filter_scheduler(enabled_filters=[], weight_classes=[]))
    assert (policy.filters, policy.weighers) == ((), ())
    assert Policy.from_toml(policy.to_toml()) == policy


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        (filter_scheduler(enabled_filters=["ComputFilter"]), UnknownName, "closest: ComputeFilter"),
        (filter_scheduler(weight_classes=["RamWeigher"]), UnknownName, "RAMWeigher"),
        (filter_scheduler(available_filters=["acme.rules.RackFilter"]), InvalidValue, "ModuleNotFoundError"),
        (filter_scheduler(weight_classes=["json.dumps"]), InvalidValue, "cannot be loaded"),
        (filter_scheduler(weight_classes=["json.loads.x"]), InvalidValue, "cannot be loaded"),
        (filter_scheduler(weight_classes=["sys.path"]), InvalidValue, "path of a class"),
        (filter_scheduler(available_filters=["IoOpsFilter"]), UnknownName, "available filter 'ComputeFilter'"),
        (filter_scheduler(available_filters=["IoOpFilter"]), UnknownName, "closest: IoOpsFilter"),
        (filter_scheduler(host_subset_size=0), InvalidValue, "host_subset_size"),
        (hostler(weigher_order=["RAMWeigher"]), InvalidValue, "must name every enabled weigher once"),
        (hostler(weigher_order=[*ALL_WEIGHERS, "RAMWeigher"]), InvalidValue, "once"),
        (hostler(weigher_order=["RackWeigher"]), UnknownName, "RackWeigher"),
        (hostler(seed=-1), InvalidValue, "hostler.seed is -1"),
        (hostler(seeds=1), UnknownName, "closest: seed"),
        (hostler(name=3), InvalidValue, "hostler.name is 3"),
        ({"hostler": 3}, InvalidValue, "hostler is 3"),
        ({"nova": {}}, UnknownName, "option group 'nova'"),
        ([], InvalidValue, "a table of tables"),
        (hostler(nova_filters=["OddNamesFilter"]), InvalidValue, "package.module:Class"),
        (hostler(nova_filters=["no.such.module:Odd"]), InvalidValue, "ModuleNotFoundError"),
        (hostler(nova_filters=[f"{HERE}:Missing"]), InvalidValue, "cannot be loaded"),
        (hostler(nova_filters=["json:dumps"]), InvalidValue, "path of a class"),
        (hostler(nova_weighers=[f"{HERE}:OddNamesFilter"]), InvalidValue, "not a Nova weigher"),
    ],
)
def test_what_is_no_policy_is_refused(values: Any, error: type[HostlerError], words: str) -> None:
    with pytest.raises(error) as failure:
        Policy.from_mapping(values)
    assert words in str(failure.value)


def test_available_filters_limit_what_can_be_enabled() -> None:
    options = filter_scheduler(available_filters=["IoOpsFilter", "ComputeFilter"], enabled_filters=["IoOpsFilter"])
    assert filter_names(Policy.from_mapping(options)) == ["IoOpsFilter"]


def test_a_class_of_ones_own_runs_where_it_is_named_else_last() -> None:
    named = filter_scheduler(enabled_filters=["RackFilter", "IoOpsFilter"])
    assert filter_names(Policy.from_mapping(named, filters=[RackFilter])) == ["RackFilter", "IoOpsFilter"]
    last = Policy.from_mapping({}, filters=[RackFilter], weighers=[RackWeigher])
    assert (filter_names(last)[-1], weigher_names(last)[-1]) == ("RackFilter", "RackWeigher")
    assert Policy.from_mapping(last.to_mapping(), filters=[RackFilter], weighers=[RackWeigher]) == last


@pytest.mark.parametrize("given", [[RackFilter, RackFilter], [ComputeFilter]])
def test_a_name_that_is_taken_cannot_be_given_again(given: list[type[Filter]]) -> None:
    with pytest.raises(DuplicateName):
        Policy.from_mapping({}, filters=given)


@pytest.mark.parametrize("given", [RackWeigher, "RackFilter", Filter])
def test_what_is_no_named_filter_class_cannot_be_given(given: Any) -> None:
    with pytest.raises(InvalidValue, match="a subclass of Filter with a name"):
        Policy.from_mapping({}, filters=[given])


def test_a_nova_filter_runs_unchanged() -> None:
    policy = Policy.from_mapping(hostler(nova_filters=[f"{HERE}:OddNamesFilter"]))
    adapted = policy.filters[-1]
    request = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1)))
    assert (adapted.name, adapted.once_per_request) == ("OddNamesFilter", True)
    assert [adapted.host_passes(host, request) for host in hosts("h1", "h2")] == [True, False]
    assert Policy.from_toml(policy.to_toml()) == policy


def test_a_nova_weigher_runs_unchanged() -> None:
    policy = Policy.from_mapping(hostler(nova_weighers=[f"{HERE}:ShortNamesWeigher"]))
    adapted = policy.weighers[-1]
    assert (adapted.name, adapted.minval, adapted.multiplier()) == ("ShortNamesWeigher", 0, 2.0)
    assert Policy.from_toml(policy.to_toml()) == policy


def hosts(*names: str) -> list[Host]:
    return [Host(host=name, vcpus_total=1, total_usable_ram_mb=1) for name in names]


# Entry points


def install(monkeypatch: pytest.MonkeyPatch, *installed: EntryPoint) -> None:
    def fake(*, group: str) -> tuple[EntryPoint, ...]:
        return tuple(entry_point for entry_point in installed if entry_point.group == group)

    monkeypatch.setattr(catalogue, "entry_points", fake)


def entry_point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="hostler.filters")


RACK = filter_scheduler(enabled_filters=["RackFilter"])


def test_an_installed_filter_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry_point("RackFilter", f"{HERE}:RackFilter"))
    assert filter_names(Policy.from_mapping(RACK)) == ["RackFilter"]


def test_an_installed_filter_that_nobody_names_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry_point("BrokenFilter", "no.such.module:Broken"))
    assert Policy.from_mapping({}) == Policy.nova_default()


@pytest.mark.parametrize(
    ("values", "installed", "error"),
    [
        (RACK, [entry_point("RackFilter", "no.such.module:RackFilter")], InvalidValue),
        (RACK, [entry_point("RackFilter", f"{HERE}:ComputeFilter")], InvalidValue),
        (RACK, [entry_point("RackFilter", f"{HERE}:RackWeigher")], InvalidValue),
        (RACK, [entry_point("RackFilter", f"{HERE}:RackFilter")] * 2, DuplicateName),
        ({}, [entry_point("ComputeFilter", f"{HERE}:ComputeFilter")], DuplicateName),
    ],
)
def test_an_installed_filter_that_is_wrong_is_refused_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch, values: Any, installed: list[EntryPoint], error: type[HostlerError]
) -> None:
    install(monkeypatch, *installed)
    with pytest.raises(error):
        Policy.from_mapping(values)


# Files and identity

TEXT = """
[hostler]
name = "gold"
seed = 7

[filter_scheduler]
enabled_filters = ["ComputeFilter", "IoOpsFilter"]
weight_classes = ["nova.scheduler.weights.ram.RAMWeigher"]
ram_weight_multiplier = -1.5

[metrics]
weight_setting = ["cpu.percent=2"]
"""


def test_a_policy_is_read_from_a_file_or_a_text(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(TEXT)
    policy = Policy.from_toml(TEXT)
    assert (policy.name, policy.seed) == ("gold", 7)
    assert policy == Policy.from_toml(file) == Policy.from_toml(str(file))
    assert dict(policy.options.metrics.weight_setting) == {"cpu.percent": 2.0}


def test_a_policy_is_written_with_what_differs_from_novas_defaults() -> None:
    written = TEXT.replace("nova.scheduler.weights.ram.RAMWeigher", "RAMWeigher").replace("percent=2", "percent=2.0")
    assert tomllib.loads(Policy.from_toml(TEXT).to_toml()) == tomllib.loads(written)


@pytest.mark.parametrize(
    "source", ["a = [", "name", "[hostler]\nname = 1979-05-27", Path("/no/such/file"), "\x00", "/"]
)
def test_what_cannot_be_read_is_refused(source: Any) -> None:
    with pytest.raises(InvalidValue):
        Policy.from_toml(source)


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidValue, match="cannot be read"):
        Policy.from_toml(file)


def test_the_digest_is_that_of_every_other_process() -> None:
    code = f"from hostler.placement.policy.policy import Policy; print(Policy.from_toml({TEXT!r}).digest)"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {Policy.from_toml(TEXT).digest}


@pytest.mark.parametrize(
    "values",
    [
        hostler(seed=1),
        hostler(name="other"),
        filter_scheduler(ram_weight_multiplier=2.0),
        filter_scheduler(enabled_filters=["ComputeFilter"]),
        filter_scheduler(weight_classes=["RAMWeigher"]),
        {"scheduler": {"image_metadata_prefilter": True}},
    ],
)
def test_the_digest_tells_policies_apart(values: Any) -> None:
    assert Policy.from_mapping(values).digest != Policy.nova_default().digest


def test_equal_policies_are_one_key() -> None:
    one, other = Policy.nova_default(), Policy.from_mapping({"metrics": {"required": "yes"}})
    assert len({one, other}) == 1
    assert one != "nova"
    assert repr(one).startswith(f"Policy('nova', 5 filters, 13 weighers, {one.digest[:12]}")


def test_filters_are_made_with_the_policys_options() -> None:
    policy = Policy.from_mapping(filter_scheduler(max_io_ops_per_host=3, enabled_filters=["IoOpsFilter"]))
    assert policy.filters[0].options is policy.options
    assert policy.weighers[0].options is policy.options
    assert type(policy.filters[0]) is BUILTIN_FILTERS["IoOpsFilter"]
