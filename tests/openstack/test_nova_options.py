"""The options of a running nova-scheduler become a policy, and [hostler] has options of its own."""

from __future__ import annotations

import pytest
from oslo_config import cfg

from hostler.drivers.openstack.nova.policy_values import policy_values
from hostler.drivers.openstack.options import register
from hostler.placement.policy.policy import Policy
from hostler.placement.weighers import BUILTIN_WEIGHERS

ALL = ["nova.scheduler.weights.all_weighers"]


def conf() -> cfg.ConfigOpts:
    made = cfg.ConfigOpts()
    made.register_opts([cfg.IntOpt("service_down_time", default=77)])
    made.register_opts(
        [cfg.ListOpt("enabled_filters", default=["ComputeFilter"]), cfg.MultiStrOpt("weight_classes", default=ALL)],
        group="filter_scheduler",
    )
    for group in ("scheduler", "metrics", "compute", "workarounds", "pci", "cinder", "upgrade_levels"):
        made.register_group(cfg.OptGroup(group))
    made([])
    return made


def test_options_that_nova_has_are_taken_and_those_it_lacks_keep_their_defaults() -> None:
    values = policy_values(conf(), tuple(BUILTIN_WEIGHERS), "33")
    policy = Policy.from_mapping(values)
    assert [each.name for each in policy.filters] == ["ComputeFilter"]
    assert policy.options.default.service_down_time == 77
    assert (policy.own.prepare, policy.own.nova_release) == (False, "33")


def test_weights_are_added_in_the_order_in_which_nova_found_its_weighers() -> None:
    order = tuple(reversed(BUILTIN_WEIGHERS))
    policy = Policy.from_mapping(policy_values(conf(), order, "34"))
    assert tuple(each.name for each in policy.weighers) == order


def test_a_weigher_of_the_operators_own_leaves_the_names_to_nova_conf() -> None:
    values = policy_values(conf(), ("RAMWeigher", "MyWeigher"), "34")
    assert values["filter_scheduler"]["weight_classes"] == ALL


def test_the_mode_is_shadow_and_bad_values_are_refused() -> None:
    made = conf()
    register(made)
    register(made)
    assert (made.hostler.mode, made.hostler.fallback, made.hostler.metrics_port) == ("shadow", "always", None)
    for option, value in (("mode", "on"), ("fallback", "sometimes"), ("canary_percent", 101.0)):
        with pytest.raises(ValueError, match=r"on|sometimes|100"):
            made.set_override(option, value, group="hostler")
