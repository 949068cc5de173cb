"""What one part of a spec - flavor, image or availability zone - adds to a request that asks for nothing in particular.

A part is known by itself only if the compiled request says so: nothing may differ from the plain request but which host
classes pass, and flavors may differ in their amounts. Requests whose three parts are known are put together from them
without compiling anything. That each of Hostler's own rules reads one part at most is what makes this right; other
rules, and extra specs that are read together with image properties, are left to the compiler.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ..filters.base import Filter
from ..fleet.fleet import Fleet
from ..policy.policy import Policy
from ..request.placement_query import RequestGroup
from ..request.placement_requirements import PlacementRequirements, placement_requirements
from ..types.request import Flavor, Request
from ..weighers.base import Weigher
from .compiled_filter import ClassResults
from .signature import AGGREGATES, TRAITS, Signature

FLAVOR_ALONE: Final = ("trait:", "capabilities:", "aggregate_instance_extra_specs:")
"""Extra specs that start so are read without the image's properties and without the flavor's size."""
READ_WITH_SIZE: Final = ("hw:", "hw_cpu", "hw_numa", "hw_emulator", "hw_mem", "hw_pmem")
"""Image properties that start so may be checked or counted together with the flavor's size."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a spec. ``required``, ``forbidden``: traits of the unsuffixed request group. ``stages``: by name, the
    results by host class of Placement's stages; ``rules``: of the filters that answer otherwise than for a plain
    request, None for those that do not apply."""

    required: frozenset[str]
    forbidden: frozenset[str]
    stages: Mapping[str, ClassResults]
    rules: Mapping[str, ClassResults | None]


def part_of(policy: Policy, signature: Signature, plain: Signature) -> Part | None:
    """What the request of ``signature`` adds to that of ``plain``; None if it is more than a part can say."""
    if _rest(signature.requirements) != _rest(plain.requirements):
        return None
    results = judges_by_name(signature)
    rules: dict[str, ClassResults | None] = {}
    for rule in rules_of(policy):
        said = forms(rule, signature.request)
        if rule.key(signature.request) is signature.request:
            return None
        if said == forms(rule, plain.request):
            continue
        if not isinstance(rule, Filter) or rule.bounds(signature.request) is not None:
            return None
        rules[rule.name] = results.get(rule.name)
    group = signature.requirements.group
    stages = {name: found for name, found in results.items() if name in (TRAITS, AGGREGATES)}
    return Part(group.required, group.forbidden, stages, rules)


def go_together(parts: tuple[Part, ...]) -> bool:
    """Whether the parts of one request may be judged one by one: no trait is both required and forbidden, and no rule
    reads two of them."""
    required, forbidden, rules, count = frozenset[str](), frozenset[str](), set[str](), 0
    for part in parts:
        required |= part.required
        forbidden |= part.forbidden
        rules.update(part.rules)
        count += len(part.rules)
    return required.isdisjoint(forbidden) and len(rules) == count


def put_together(parts: tuple[Part, ...], plain: Signature) -> dict[str, tuple[ClassResults, ...]]:
    """By name, the stages that judge host classes for a request of parts that go together, and the results that must
    all be true."""
    rules = {name: judge for part in parts for name, judge in part.rules.items()}
    found: dict[str, tuple[ClassResults, ...]] = {}
    for name in (TRAITS, AGGREGATES):
        results = dict.fromkeys(part.stages[name] for part in parts if name in part.stages)
        if results:
            found[name] = tuple(results)
    for name, known in judges_by_name(plain).items():
        if name not in rules and name not in (TRAITS, AGGREGATES):
            found[name] = (known,)
    for name, judge in rules.items():
        if judge is not None:
            found[name] = (judge,)
    return found


def judges_by_name(signature: Signature) -> dict[str, ClassResults]:
    """The results by host class of a compiled signature, by the name of the stage."""
    return {
        signature.stages[number].name: found
        for number, found in signature.class_judges
        if isinstance(found, ClassResults)
    }


def rules_of(policy: Policy) -> tuple[Filter | Weigher, ...]:
    """All filters and weighers of a policy, in order."""
    return (*policy.filters, *policy.weighers)


def reads_size(policy: Policy, request: Request) -> bool:
    """Whether a rule says something else of a flavor of another size and name."""
    flavor = request.flavor
    other = replace(flavor, name=f"{flavor.name} and more", vcpus=flavor.vcpus + 1, memory_mb=flavor.memory_mb + 1)
    probe = request.with_changes(spec=replace(request.spec, flavor=other))
    return any(forms(rule, request) != forms(rule, probe) for rule in rules_of(policy))


def what_is_read(fleet: Fleet, policy: Policy, request: Request) -> tuple[Hashable, ...]:
    """All that filters, weighers and Placement's side read of a prepared request; requests of which this is equal are
    compiled to equal signatures, but for the numbers of their stages and amounts."""
    requirements = placement_requirements(fleet, policy, request, candidates_given=False)
    said = []
    for rule in rules_of(policy):
        read = forms(rule, request)
        if rule.key(request) is request:
            raise TypeError(f"{rule!r} reads the whole request")
        said.append(read)
    return (requirements, *said)


def amounts(flavor: Flavor, is_bfv: bool) -> tuple[tuple[str, int], ...]:
    """What a guest takes of each resource class where no extra spec says otherwise, sorted by class."""
    disk = flavor.ephemeral_gb + -(-flavor.swap // 1024) + (0 if is_bfv else flavor.root_gb)
    found = (("DISK_GB", disk), ("MEMORY_MB", flavor.memory_mb), ("VCPU", flavor.vcpus))
    return tuple(each for each in found if each[1])


def starts_with(names: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    """Whether some name starts with one of ``prefixes``."""
    return any(name.startswith(prefixes) for name in names)


def forms(rule: Filter | Weigher, request: Request) -> tuple[Hashable, ...]:
    """All that a rule says of a request by itself."""
    said: tuple[Any, ...] = (rule.applies(request), rule.key(request))
    if isinstance(rule, Filter):
        return (*said, rule.bounds(request), rule.selection(request), rule.fields(request))
    return (*said, rule.column(request), rule.formula(request), rule.fields(request))


def _rest(requirements: PlacementRequirements) -> PlacementRequirements:
    """The requirements without what parts say: amounts, traits and aggregates of the unsuffixed group."""
    query = requirements.query
    groups = tuple(
        RequestGroup(suffix="", in_tree=group.in_tree) if not group.suffix else group for group in query.groups
    )
    return replace(
        requirements, query=replace(query, groups=groups, root_required=frozenset(), root_forbidden=frozenset())
    )
