"""Why a stage refuses a host, in words with the numbers that decided."""

from __future__ import annotations

from typing import Final

from ...fleet.fleet import Fleet
from ...fleet.host_view import HostView
from ...types.decision import Reason
from ...types.host_classes import STATIC_FIELDS
from ..group_state import as_value
from ..scan import Scan
from ..signature import AGGREGATES, CANDIDATES, CELL, COMPUTE_STATUS, SELECTION, TRAITS, Stage

COMPUTE_FILTER: Final = "ComputeFilter"
UNITS: Final = {"MEMORY_MB": " MiB", "DISK_GB": " GiB"}


class Reasons:
    """The reasons of one request on the fleet as it is. What reads static fields only is worked out once per host
    class."""

    def __init__(self, scan: Scan) -> None:
        self._fleet, self._signature = scan.fleet, scan.signature
        request = scan.request.with_changes(now=scan.fleet.now)
        self._request = as_value(scan.fleet, scan.group, request)
        """Filters explain themselves by what the request says, so it says the time and the server group."""
        self._by_class: dict[tuple[int, int], Reason] = {}

    def of_refusal(self, row: int, stage: int) -> tuple[str, Reason]:
        """Stage and reason of a refused row, by its stage in ``Ranked``."""
        stages = self._signature.stages
        if stage >= len(stages):
            return SELECTION, self.of_selection(row)
        return stages[stage].name, self.of_stage(stages[stage], row)

    def of_stage(self, stage: Stage, row: int) -> Reason:
        """Why ``stage`` refuses the host at ``row``, independently of other stages."""
        if stage.filter is None:
            index = self._signature.resource_of(stage)
            if index is not None:
                return shortage(self._fleet, row, index, self._signature.resources[index])
        elif not stage.filter.fields(self._request) <= STATIC_FIELDS:
            return self._filter_reason(stage, row)
        key = (stage.number, int(self._fleet._store.row["class_of"][row]))
        known = self._by_class.get(key)
        if known is None:
            known = self._candidate_reason(stage, row) if stage.filter is None else self._filter_reason(stage, row)
            self._by_class[key] = known
        return known

    def of_selection(self, row: int) -> Reason:
        """Which of the request's names leaves the host out."""
        return Reason(self._not_named(row), "not_named")

    def _not_named(self, row: int) -> str:
        spec, host, node = self._request.spec, self._fleet._service_host(row), self._fleet.name(row)
        destination = spec.requested_destination
        if destination is not None and destination.host is not None:
            if host != destination.host:
                return f"{host} is not the requested host {destination.host}"
            if destination.node and node != destination.node:
                return f"{node} is not the requested node {destination.node}"
        if _names(spec.ignore_hosts, host):
            return f"{host} is one of ignore_hosts"
        if spec.force_hosts and not _names(spec.force_hosts, host):
            return f"{host} is none of force_hosts"
        return f"{node} is none of force_nodes"

    def _filter_reason(self, stage: Stage, row: int) -> Reason:
        assert stage.filter is not None
        words = stage.filter.reason(HostView(self._fleet, row), self._request)
        if stage.name == COMPUTE_FILTER:
            disabled = self._fleet._host_class(row).disabled
            return Reason(words, "service_disabled" if disabled else "service_down")
        return Reason(words)

    def _candidate_reason(self, stage: Stage, row: int) -> Reason:
        if stage.name == TRAITS:
            return self._traits_reason(row)
        if stage.name == AGGREGATES:
            return self._aggregates_reason(row)
        if stage.name == CELL:
            cell = self._fleet._host_class(row).cell_uuid
            return Reason(f"is in cell {cell}, not {self._signature.requirements.cell_uuid}", "cell")
        if stage.name == COMPUTE_STATUS:
            why = self._fleet._host_class(row).disabled_reason or "no reason given"
            return Reason(f"service disabled: {why}", "service_disabled")
        assert stage.name == CANDIDATES
        return self._tree_reason(row)

    def _tree_reason(self, row: int) -> Reason:
        """Why a host's tree has no candidate: the traits of its root, and what the tree lacks as a whole; else that no
        way to share the groups among its providers was found."""
        fleet, query = self._fleet, self._signature.requirements.query
        said = self._root_reason(row)
        if said is not None:
            return said
        tree = [each for each in fleet.tree(row) if each not in fleet.sharing_providers()] + fleet.sharing_providers()
        held = frozenset().union(*(fleet._host_class(each).traits for each in tree))
        lacking = sorted(set().union(*(group.required for group in query.groups)) - held)
        if lacking:
            words = f"its provider tree lacks the trait{_s(lacking)} {', '.join(lacking)}"
            return Reason(words, "missing_traits", names=tuple(lacking))
        wanted: dict[int, int] = {}
        for group in query.groups:
            for name, amount in group.resources:
                index = fleet.resource_class(name, create=True)
                wanted[index] = wanted.get(index, 0) + amount
        inventory = fleet._store.inventory
        for index, amount in wanted.items():
            name, unit = fleet.resource_classes[index], UNITS.get(fleet.resource_classes[index], "")
            free = sum(max(int(inventory["limit"][index, r] - inventory["used"][index, r]), 0) for r in tree)
            if not any(inventory["total"][index, each] > 0 for each in tree):
                return Reason(f"its provider tree has no {name}", "no_inventory", name, amount, 0)
            if free < amount:
                words = f"free {name} {free}{unit} < {amount}{unit} in its provider tree"
                return Reason(words, "not_enough", name, amount, free)
        forbidden = sorted(set().union(*(group.forbidden for group in query.groups)) & held)
        if forbidden:
            words = f"no allocation candidate without the forbidden trait{_s(forbidden)} {', '.join(forbidden)}"
            return Reason(words, "forbidden_traits", names=tuple(forbidden))
        return Reason("its provider tree has no allocation candidate for the request groups", "no_candidate")

    def _root_reason(self, row: int) -> Reason | None:
        """What of the root's traits keeps a host out; None: nothing does."""
        query, traits = self._signature.requirements.query, self._fleet._host_class(row).traits
        lacking = sorted(query.root_required - traits)
        if lacking:
            return _lacks(lacking)
        forbidden = sorted(query.root_forbidden & traits)
        return _has_forbidden(forbidden) if forbidden else None

    def _traits_reason(self, row: int) -> Reason:
        query, group = self._signature.requirements.query, self._signature.requirements.group
        traits = self._fleet._host_class(row).traits
        lacking = sorted((group.required | query.root_required) - traits)
        if lacking:
            return _lacks(lacking)
        forbidden = sorted((group.forbidden | query.root_forbidden) & traits)
        if forbidden:
            return _has_forbidden(forbidden)
        missed = sorted(next(choice for choice in group.any_of if not choice & traits))
        return Reason(f"has none of the traits {' or '.join(missed)}", "none_of_traits", names=tuple(missed))

    def _aggregates_reason(self, row: int) -> Reason:
        group, mine = (
            self._signature.requirements.group,
            [self._fleet.aggregates[i] for i in self._fleet._host_class(row).aggregates],
        )
        uuids = {aggregate.uuid for aggregate in mine}
        if any(not term & uuids for term in group.member_of):
            zone = self._request.spec.availability_zone
            words = f"is not in the aggregates asked for{f' (availability zone {zone})' if zone else ''}"
            return Reason(words, "aggregates")
        forbidden = sorted(each.name or each.uuid for each in mine if each.uuid in group.forbidden_aggregates)
        words = f"is in the forbidden aggregate{_s(forbidden)} {', '.join(forbidden)}"
        return Reason(words, "forbidden_aggregates", names=tuple(forbidden))


def _lacks(traits: list[str]) -> Reason:
    return Reason(f"lacks the trait{_s(traits)} {', '.join(traits)}", "missing_traits", names=tuple(traits))


def _has_forbidden(traits: list[str]) -> Reason:
    words = f"has the forbidden trait{_s(traits)} {', '.join(traits)}"
    return Reason(words, "forbidden_traits", names=tuple(traits))


def shortage(fleet: Fleet, row: int, resource: int, amount: int) -> Reason:
    """Why a provider can't give ``amount`` of a resource class: Placement's capacity and unit rules in words with
    numbers."""
    inventory, name = fleet._store.inventory, fleet.resource_classes[resource]
    unit = UNITS.get(name, "")
    if inventory["total"][resource, row] <= 0:
        return Reason(f"has no {name}", "no_inventory", name, amount, 0)
    free = int(inventory["limit"][resource, row] - inventory["used"][resource, row])
    if free < amount:
        return Reason(f"free {name} {free}{unit} < {amount}{unit}", "not_enough", name, amount, free)
    most, least = int(inventory["max_unit"][resource, row]), int(inventory["min_unit"][resource, row])
    if amount > most:
        return Reason(f"{name} {amount}{unit} is more than max_unit {most}{unit}", "max_unit", name, amount, most)
    if amount < least:
        return Reason(f"{name} {amount}{unit} is less than min_unit {least}{unit}", "min_unit", name, amount, least)
    step = int(inventory["step_size"][resource, row])
    words = f"{name} {amount}{unit} is not a multiple of step_size {step}{unit}"
    return Reason(words, "step_size", name, amount, step)


def _names(names: tuple[str, ...], host: str) -> bool:
    return host.lower() in {name.lower() for name in names}


def _s(items: list[str]) -> str:
    return "s" if len(items) > 1 else ""
