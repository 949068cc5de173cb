"""Nodes and allocations as Ironic reports them, and what their states mean. Makes no calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..openstack_api import MARK_KEY, NAME_KEY, SIZE_KEY
from ..protocol import Guest, GuestSpec, GuestState, Mark, NodeState

STATES: Final[Mapping[str, GuestState]] = {
    "active": "on",
    "adopt failed": "error",
    "adopting": "building",
    "available": "building",
    "clean failed": "deleting",
    "clean hold": "deleting",
    "clean wait": "deleting",
    "cleaning": "deleting",
    "deleting": "deleting",
    "deploy failed": "error",
    "deploy hold": "building",
    "deploying": "building",
    "error": "error",
    "rescue": "on",
    "rescue failed": "on",
    "rescue wait": "on",
    "rescuing": "on",
    "service failed": "error",
    "service hold": "on",
    "service wait": "on",
    "servicing": "on",
    "unrescue failed": "on",
    "unrescuing": "on",
    "wait call-back": "building",
}
"""Provision states by the state of the guest on the node; ``on`` is so as far as the node's power is on. A node in any
other state has no guest."""
POWER: Final[Mapping[str, GuestState]] = {"power on": "on", "rebooting": "on", "power off": "off"}
FREE: Final = "available"
LEAVING: Final = ("clean wait", "cleaning", "deleting")
"""Provision states of a node that its guest has left, or is leaving."""
STEADY: Final = frozenset(STATES) - {"adopting", "deploying", "rescuing", "servicing", "unrescuing", *LEAVING}
"""Provision states of nodes with a guest in which another can be asked for."""


class Machine(NamedTuple):
    """A node as Ironic reports it."""

    key: str
    name: str
    resource_class: str
    traits: frozenset[str]
    vcpus: int
    memory_mb: int
    disk_gb: int
    instance: str | None
    provision: str
    power: GuestState | None
    """None if it is not known."""
    usable: bool
    """Neither in maintenance nor to be retired."""
    last_error: str

    @property
    def state(self) -> NodeState:
        """Down if its power cannot be told; in maintenance while it can have no guest."""
        if self.power is None:
            return "down"
        return "up" if self.usable and self.provision in STATES and self.provision not in LEAVING else "maintenance"

    @property
    def busy(self) -> bool:
        """True with a guest, of whomever."""
        return self.instance is not None or (self.provision in STATES and self.provision != FREE)


class Allocation(NamedTuple):
    """A node that is reserved for a guest. ``node`` is None until it is, or where none could be."""

    key: str
    mark: Mark
    name: str
    size: str
    state: str
    node: str | None
    candidate: str
    last_error: str


def amount(value: Any, default: int) -> int:
    """A number of a node's properties, which may be a text."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def size_of(want: GuestSpec) -> str:
    """The size of a guest as its allocation keeps it."""
    return f"{want.vcpus}x{want.memory_mb}"


def fits(want: GuestSpec, machine: Machine) -> bool:
    """True if a node is as large as a guest; the disk of some is not known."""
    return (
        machine.vcpus >= want.vcpus
        and machine.memory_mb >= want.memory_mb
        and (machine.disk_gb >= want.disk_gb or not machine.disk_gb)
    )


def pointer_part(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def allocation_of(item: Mapping[str, Any]) -> Allocation | None:
    """An allocation; None if it is not Hostler's."""
    extra, key = item.get("extra") or {}, str(item.get("uuid"))
    mark = Mark.parse(str(extra.get(MARK_KEY, "")))
    if mark is None or mark.uuid != key:
        return None
    return Allocation(
        key=key,
        mark=mark,
        name=str(extra.get(NAME_KEY, "")),
        size=str(extra.get(SIZE_KEY, "")),
        state=str(item.get("state")),
        node=item.get("node_uuid"),
        candidate=next(iter(item.get("candidate_nodes") or ("",))),
        last_error=str(item.get("last_error") or ""),
    )


def state_of(machine: Machine) -> GuestState:
    """The state of the guest on a node."""
    state = STATES.get(machine.provision, "error")
    return (machine.power or "error") if state == "on" else state


def guest_on(allocation: Allocation, machine: Machine) -> Guest:
    """The guest of an allocation."""
    state = state_of(machine) if allocation.node is not None else "building"
    return Guest(
        allocation.key, allocation.mark, allocation.name, machine.name, state, machine.vcpus, machine.memory_mb
    )


def stranger_on(machine: Machine) -> Guest:
    """The guest on a node that others use."""
    size = machine.vcpus, machine.memory_mb
    return Guest(machine.key, None, machine.name, machine.name, state_of(machine), *size)
