"""Reads the engine's reasons back: each form of words has a pattern, and its numbers and names are worked out anew from
the oracle's plain hosts.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from hostler.placement.policy.policy import Policy
from hostler.placement.types.request import Request, ServerGroup

from .placement_rules import Query
from .world import Node, World


@dataclass(frozen=True)
class Facts:
    """A refused host, and all that its refusal may be about. ``request`` has its server group as a value."""

    node: Node
    world: World
    request: Request
    policy: Policy
    query: Query

    @property
    def group(self) -> ServerGroup:
        assert isinstance(self.request.server_group, ServerGroup)
        return self.request.server_group

    def listed(self, key: str) -> set[str]:
        """Values of a metadata key in the host's aggregates, comma lists split."""
        texts = [aggregate.metadata[key] for aggregate in self.node.aggregates if key in aggregate.metadata]
        return {item.strip() for text in texts for item in text.split(",")}


Check = Callable[[Facts, re.Match[str]], bool]
FORMS: dict[str, list[tuple[str, Check]]] = {}
"""Stage -> (pattern, what must be true of the match). ``RESOURCE`` stands for all resource classes."""
RESOURCE = "RESOURCE"
UNIT = r"(?: MiB| GiB)?"


def is_true(facts: Facts, stage: str, words: str) -> bool:
    """Whether the words are of a known form for the stage, and tell the truth."""
    for pattern, holds in FORMS[RESOURCE if stage.isupper() else stage]:
        match = re.fullmatch(pattern, words, re.DOTALL)
        if match:
            return holds(facts, match)
    return False


def says(stage: str, pattern: str) -> Callable[[Check], Check]:
    def note(check: Check) -> Check:
        FORMS.setdefault(stage, []).append((pattern, check))
        return check

    return note


# Placement's side


def asked(facts: Facts, name: str) -> int:
    return facts.query.resources[name]


def room(node: Node, name: str) -> int:
    """The greatest amount that Placement's capacity rule lets through."""
    stock = node.stocks[name]
    return (
        math.floor((stock.inventory.total - stock.inventory.reserved) * stock.inventory.allocation_ratio) - stock.used
    )


@says(RESOURCE, r"has no (\S+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    return match[1] in facts.query.resources and match[1] not in facts.node.stocks


@says(RESOURCE, rf"free (\S+) (-?\d+){UNIT} < (\d+){UNIT}")
def _(facts: Facts, match: re.Match[str]) -> bool:
    name, free, amount = match[1], int(match[2]), int(match[3])
    return free == room(facts.node, name) and amount == asked(facts, name) and free < amount


@says(RESOURCE, rf"(\S+) (\d+){UNIT} is (more|less) than (max|min)_unit (\d+){UNIT}")
def _(facts: Facts, match: re.Match[str]) -> bool:
    inventory = facts.node.stocks[match[1]].inventory
    bound = inventory.max_unit if match[4] == "max" else inventory.min_unit
    amount = int(match[2])
    beyond = amount > bound if match[3] == "more" else amount < bound
    return (match[3] == "more") == (match[4] == "max") and amount == asked(facts, match[1]) and beyond


@says(RESOURCE, rf"(\S+) (\d+){UNIT} is not a multiple of step_size (\d+){UNIT}")
def _(facts: Facts, match: re.Match[str]) -> bool:
    step = facts.node.stocks[match[1]].inventory.step_size
    return int(match[2]) == asked(facts, match[1]) and int(match[3]) == step and int(match[2]) % step > 0


@says("cell", r"is in cell (\S+), not (\S+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    destination = facts.request.spec.requested_destination
    assert destination is not None
    return (match[1], match[2]) == (str(facts.node.cell_uuid), destination.cell_uuid) and match[1] != match[2]


@says("traits", r"(lacks|has) the (?:forbidden )?traits? (.+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    told = set(match[2].split(", "))
    if match[1] == "lacks":
        return told == facts.query.required - facts.node.traits
    return told == facts.query.forbidden & facts.node.traits


@says("aggregates", r"is not in the aggregates asked for(?: \(availability zone (\S+)\))?")
def _(facts: Facts, match: re.Match[str]) -> bool:
    mine = set(facts.node.aggregate_uuids)
    lacking = [term for term in facts.query.member_of if not term & mine]
    return bool(lacking) and match[1] == facts.request.spec.availability_zone


@says("aggregates", r"is in the forbidden aggregates? (.+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    forbidden = facts.query.forbidden_aggregates & set(facts.node.aggregate_uuids)
    return set(match[1].split(", ")) == {facts.world.aggregates[uuid].name for uuid in forbidden}


@says("host_selection", r"(\S+) is one of (ignore_hosts)|(\S+) is none of (force_hosts|force_nodes)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    name, rule = match[1] or match[3], match[2] or match[4]
    names = getattr(facts.request.spec, rule)
    if rule == "force_nodes":
        return name == facts.node.nodename and name not in names
    named = name.lower() in [each.lower() for each in names]
    return bool(name == facts.node.host and named == (rule == "ignore_hosts"))


@says("host_selection", r"(\S+) is not the requested (host|node) (\S+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    destination = facts.request.spec.requested_destination
    mine = facts.node.host if match[2] == "host" else facts.node.nodename
    return bool(match[1] == mine != getattr(destination, match[2]) == match[3])


# filters


@says("compute_status", r"service disabled: (.+)")
@says("ComputeFilter", r"service disabled: (.+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    service = facts.node.service
    return service.disabled and match[1] == (service.disabled_reason or "no reason given")


@says("ComputeFilter", r"service forced down")
def _(facts: Facts, match: re.Match[str]) -> bool:
    return bool(facts.node.service.forced_down)


@says("ComputeFilter", r"service last seen (\S+) s from now, more than service_down_time (\d+) s")
def _(facts: Facts, match: re.Match[str]) -> bool:
    seen, down_time = facts.node.service.last_seen_up, facts.policy.options.default.service_down_time
    assert seen is not None
    assert facts.world.now is not None
    silence = abs(facts.world.now - seen)
    return float(match[1]) == silence > down_time == int(match[2])


@says("Load", r"(num_\w+) (-?\d+) is not below (max_\w+) (-?\d+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    limits = {aggregate.metadata[match[3]] for aggregate in facts.node.aggregates if match[3] in aggregate.metadata}
    configured = getattr(facts.policy.options.filter_scheduler, match[3])
    numbers = [int(text) for text in limits if text.isdecimal()]
    by_aggregates = min(numbers) if numbers and len(numbers) == len(limits) else configured
    return int(match[2]) == getattr(facts.node, match[1]) >= int(match[4]) and int(match[4]) in (
        configured,
        by_aggregates,
    )


for _name in ("IoOpsFilter", "NumInstancesFilter", "AggregateIoOpsFilter", "AggregateNumInstancesFilter"):
    FORMS[_name] = FORMS["Load"]


@says("JsonFilter", r"query (.+) is false(?: with (.+))?")
def _(facts: Facts, match: re.Match[str]) -> bool:
    told = dict(part.split("=", 1) for part in match[2].split(", "))
    found = {}
    for name in re.findall(r"\$[\w.]+", match[1]):
        first, *keys = name[1:].split(".")
        value = getattr(facts.node, first)
        for key in keys:
            value = value.get(key)
        found[name] = "missing" if value is None else str(value)
    return match[1] == facts.request.scheduler_hints["query"][0] and told == found and bool(json.loads(match[1]))


@says("MetricsFilter", r"metrics (.+) are not reported")
def _(facts: Facts, match: re.Match[str]) -> bool:
    wanted = facts.policy.options.metrics.weight_setting
    return match[1].split(", ") == [name for name in wanted if name not in facts.node.metrics]


@says("SimpleCIDRAffinityFilter", r"host_ip (\S+) is not in (\S+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    hints, network = facts.request.scheduler_hints, ipaddress.ip_network(match[2])
    prefix = hints.get("cidr", ("/24",))[0].lstrip("/")
    if ipaddress.ip_address(hints["build_near_host_ip"][0]) not in network or network.prefixlen != int(prefix):
        return False
    mine = facts.node.host_ip
    return match[1] == str(mine) and (mine is None or ipaddress.ip_address(mine) not in network)


@says("IsolatedHostsFilter", r"image (\S+) may only run on isolated_hosts, and (\S+) is none of them")
def _(facts: Facts, match: re.Match[str]) -> bool:
    options, image = facts.policy.options.filter_scheduler, facts.request.image
    assert image is not None
    isolated = match[1] == image.id and image.id in options.isolated_images
    return isolated and match[2] == facts.node.host and match[2] not in options.isolated_hosts


@says("IsolatedHostsFilter", r"(\S+) is one of isolated_hosts, and the image is none of isolated_images")
def _(facts: Facts, match: re.Match[str]) -> bool:
    options, image = facts.policy.options.filter_scheduler, facts.request.image
    isolated = image is not None and image.id in options.isolated_images
    return match[1] == facts.node.host and match[1] in options.isolated_hosts and not isolated


@says("AggregateTypeAffinityFilter", r"reserved for flavors (.+), not for '(.+)'")
def _(facts: Facts, match: re.Match[str]) -> bool:
    flavors = facts.listed("instance_type")
    return set(match[1].split(",")) == flavors and match[2] == facts.request.flavor.name not in flavors


@says("AggregateMultiTenancyIsolation", r"reserved for projects (.+), not for '(.+)'")
def _(facts: Facts, match: re.Match[str]) -> bool:
    projects = facts.listed("filter_tenant_id")
    return set(match[1].split(",")) == projects and match[2] == facts.request.project_id not in projects


@says("AggregateImagePropertiesIsolation", r"aggregate metadata (\S+)=(.+) does not admit the image's '(.+)'")
def _(facts: Facts, match: re.Match[str]) -> bool:
    values = facts.listed(match[1])
    return set(match[2].split(",")) == values and match[3] == facts.request.image_properties[match[1]] not in values


@says("AggregateInstanceExtraSpecsFilter", r"no aggregate has metadata (\S+), extra spec (\S+) asks for '(.+)'")
def _(facts: Facts, match: re.Match[str]) -> bool:
    wanted = facts.request.extra_specs[match[2]]
    return not facts.listed(match[1]) and match[2].split(":")[-1] == match[1] and match[3] == wanted


@says("AggregateInstanceExtraSpecsFilter", r"aggregate metadata (\S+?)=(.+) does not satisfy '(.+)'")
def _(facts: Facts, match: re.Match[str]) -> bool:
    specs = facts.request.extra_specs
    wanted = [specs[key] for key in (match[1], f"aggregate_instance_extra_specs:{match[1]}") if key in specs]
    return set(match[2].split(",")) == facts.listed(match[1]) and match[3] in wanted


@says("ComputeCapabilitiesFilter", r"capability (\S+) is unknown, extra spec (\S+) asks for '(.+)'")
def _(facts: Facts, match: re.Match[str]) -> bool:
    known = getattr(facts.node, match[1], facts.node.stats.get(match[1]))
    return known is None and match[3] == facts.request.extra_specs[match[2]]


@says(
    "ComputeCapabilitiesFilter", r"capability (\S+?)=(?:'(.+)' is not a number, which|(.+) does not satisfy) '(.+)'.*"
)
def _(facts: Facts, match: re.Match[str]) -> bool:
    known = getattr(facts.node, match[1], facts.node.stats.get(match[1]))
    return str(known) == (match[2] or match[3]) and match[4] in facts.request.extra_specs.values()


@says("ImagePropertiesFilter", r"no supported instance type has (.+)")
def _(facts: Facts, match: re.Match[str]) -> bool:
    wanted = set(match[1].split())
    return all(not wanted <= set(kinds) for kinds in facts.node.supported_instances)


@says("ImagePropertiesFilter", r"hypervisor version (\S+) does not satisfy '(.+)'")
def _(facts: Facts, match: re.Match[str]) -> bool:
    version = facts.node.hypervisor_version or 0
    parts = [version // 1_000_000, version // 1000 % 1000, version % 1000]
    told = [*map(int, match[1].split("."))]
    asks = facts.request.image_properties["img_hv_requested_version"]
    return [*told, 0, 0][:3] == parts and match[2] == asks


@says("SameHostFilter", r"holds none of the (\d+) instances of the hint same_host")
def _(facts: Facts, match: re.Match[str]) -> bool:
    named = set(facts.request.scheduler_hints["same_host"])
    return int(match[1]) == len(named) and not named & set(facts.node.instances)


@says("DifferentHostFilter", r"holds instance (\S+) of the hint different_host")
def _(facts: Facts, match: re.Match[str]) -> bool:
    return match[1] in facts.request.scheduler_hints["different_host"] and match[1] in facts.node.instances


@says(
    "ServerGroupAntiAffinityFilter",
    r"holds (\d+) members? of server group (\S+), whose policy anti-affinity admits (\d+) per host",
)
def _(facts: Facts, match: re.Match[str]) -> bool:
    group, held = facts.group, facts.group.members & set(facts.node.instances)
    told = int(match[1]), match[2], int(match[3])
    return told == (len(held), group.uuid, group.max_server_per_host) and len(held) >= group.max_server_per_host


@says("ServerGroupAffinityFilter", r"the server group's policy affinity keeps it on (.+?)(, \.\.\.)?")
def _(facts: Facts, match: re.Match[str]) -> bool:
    told, hosts = match[1].split(", "), sorted(facts.group.hosts)
    return told == hosts[:3] and bool(match[2]) == (len(hosts) > 3) and facts.node.host not in hosts
