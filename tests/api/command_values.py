"""Random commands on few names, so that they meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET

from hostler.placement.api import commands as c
from hostler.placement.fleet.fleet import Inventory

from .forests import AGGREGATES, uid

providers = st.integers(0, 3).map(uid)
consumers = st.integers(50, 52).map(uid)
names = st.sampled_from(("a", "b", "c", "name\nwith a line", "ü" * 200))
traits = st.sampled_from(("CUSTOM_A", "CUSTOM_B", "HW_CPU_X86_AVX2", "NO_SUCH"))
classes = st.sampled_from(("VCPU", "VCPU", "MEMORY_MB", "CUSTOM_X", "CUSTOM_Y", "NO_SUCH"))
generations = st.integers(0, 3) | st.just(-1)
"""-1: the right one."""
times = st.integers(1, 10**6).map(float)
inventories = st.builds(
    Inventory,
    total=st.integers(1, 8),
    reserved=st.integers(0, 9).map(lambda value: value if value > 5 else 0),
    min_unit=st.sampled_from((1, 1, 2)),
    max_unit=st.sampled_from((10, 10, 2)),
    step_size=st.sampled_from((1, 1, 2)),
    allocation_ratio=st.sampled_from((1.0, 1.5, 4.0, 0.0)),
)
many_inventories = st.dictionaries(classes, inventories, max_size=3)
allocations = st.dictionaries(
    providers, st.dictionaries(classes, st.integers(1, 5), min_size=1, max_size=2), max_size=2
)
wishes = st.builds(
    c.ConsumerAllocations,
    allocations=allocations,
    project_id=st.sampled_from(("p", "q")),
    user_id=st.sampled_from(("u", "v")),
    generation=st.sampled_from((UNSET, UNSET, None, 0, 1, 2)),
    consumer_type=st.sampled_from((UNSET, None, "INSTANCE", "MIGRATION")),
)
many_wishes = st.dictionaries(consumers, wishes, max_size=2)
reshaped = st.builds(c.ReshapedProvider, generation=generations, inventories=many_inventories)


def _command(kind: type, **fields: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, now=times, **fields)


commands = st.one_of(
    _command(c.CreateProvider, uuid=providers, name=names, parent=st.none() | providers),
    _command(
        c.UpdateProvider,
        uuid=providers,
        name=names,
        parent=st.just(UNSET) | st.none() | providers,
        may_move=st.booleans(),
    ),
    _command(c.DeleteProvider, uuid=providers),
    _command(
        c.AddInventory, provider=providers, resource_class=classes, inventory=inventories, may_reserve_all=st.booleans()
    ),
    _command(c.SetInventories, provider=providers, generation=generations, inventories=many_inventories),
    _command(c.SetInventory, provider=providers, resource_class=classes, generation=generations, inventory=inventories),
    _command(c.DeleteInventory, provider=providers, resource_class=classes),
    _command(c.DeleteInventories, provider=providers),
    _command(c.SetTraits, provider=providers, generation=generations, traits=st.lists(traits, max_size=2).map(tuple)),
    _command(c.DeleteProviderTraits, provider=providers),
    _command(
        c.SetAggregates,
        provider=providers,
        generation=st.none() | generations,
        aggregates=st.lists(st.sampled_from(AGGREGATES), max_size=2).map(tuple),
    ),
    _command(c.CreateTrait, name=traits),
    _command(c.DeleteTrait, name=traits),
    _command(c.CreateResourceClass, name=classes, may_exist=st.booleans()),
    _command(c.RenameResourceClass, name=classes, new_name=st.sampled_from(("CUSTOM_X", "CUSTOM_Z", "VCPU"))),
    _command(c.DeleteResourceClass, name=classes),
    _command(c.SetAllocations, consumers=many_wishes),
    _command(c.SetAllocations, consumers=many_wishes),
    _command(c.DeleteAllocations, consumer=consumers),
    _command(c.Reshape, providers=st.dictionaries(providers, reshaped, min_size=1, max_size=2), consumers=many_wishes),
)

BEGINNING: tuple[c.PlacementCommand, ...] = (
    c.CreateResourceClass(name="CUSTOM_X", now=1.0),
    c.CreateTrait(name="CUSTOM_A", now=1.0),
    c.CreateProvider(uuid=uid(0), name="root", now=1.0),
    c.CreateProvider(uuid=uid(1), name="child", parent=uid(0), now=1.0),
    c.SetInventories(
        provider=uid(0),
        generation=0,
        inventories={"VCPU": Inventory(total=16), "CUSTOM_X": Inventory(total=8)},
        now=1.0,
    ),
    c.SetInventories(provider=uid(1), generation=0, inventories={"VCPU": Inventory(total=4)}, now=1.0),
)
"""So that random commands find something to do."""
