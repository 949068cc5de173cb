"""SR-IOV cards: a physical function and its virtual functions (vDPA devices among them) exclude each other. Source:
Nova 34 PciDevice.claim, where taking one makes the other unavailable.

A pool that belongs to such a card has a ``total``. ``linked`` finds the cards of newly reported pools, ``available``
says what can be taken of pools from which some has been taken. Which physical function a virtual one belongs to is not
in Nova's pools; where ``card`` does not say it, the functions of one vendor on one NUMA node (and physical network,
where all name theirs) belong together, and a function is held back rather than given twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from ..types.host import PciPool

PHYSICAL: Final = "type-PF"
VIRTUAL: Final = frozenset({"type-VF", "vdpa"})
"""Values of the tag ``dev_type``."""


def linked(pools: Sequence[PciPool]) -> tuple[PciPool, ...]:
    """``pools``, where those of a card that offers both kinds of functions say how many devices there are in all.
    O(pools)."""
    if not any(_is_physical(pool) for pool in pools):
        return tuple(pools)
    found = list(pools)
    for members in _families(pools, range(len(pools))):
        if _is_mixed(pools[index] for index in members):
            for index in members:
                if pools[index].total is None:
                    found[index] = replace(pools[index], total=pools[index].count)
    return tuple(found)


def available(pools: Sequence[PciPool]) -> tuple[PciPool, ...]:
    """What can be taken of ``pools``: without physical functions of cards whose virtual functions are in use, and the
    other way round. The answer is what it is when applied again. O(pools)."""
    counted = [index for index, pool in enumerate(pools) if pool.total is not None]
    if not counted:
        return tuple(pools)
    left = list(pools)
    for members in _families(pools, counted):
        _withhold(left, members)
    return tuple(pool for pool in left if pool.count or pool.total is None)


def _withhold(left: list[PciPool], members: Sequence[int]) -> None:
    physical = [index for index in members if _is_physical(left[index])]
    virtual = [index for index in members if index not in physical]
    functions = sum(_total(left[index]) for index in physical)
    taken = functions - sum(left[index].count for index in physical)
    cards, loose = _cards(left, virtual)
    touched = [card for card in cards if any(left[index].count < _total(left[index]) for index in card)]
    whole = [card for card in cards if card not in touched]
    sharing = max(functions - len(cards), 1)
    used = sum(min(_total(left[index]) - left[index].count, sharing) for index in loose)
    spare = max(functions - taken - len(touched) - used, 0)
    for index in physical:
        count = min(left[index].count, spare)
        spare -= count
        left[index] = replace(left[index], count=count, total=count)
    hidden = taken + max(len(cards) - functions, 0) if taken else 0
    gone = whole[max(len(whole) - hidden, 0) :]
    for index in [index for card in gone for index in card]:
        left[index] = replace(left[index], count=0)
    for index in loose:
        each = -(-_total(left[index]) // sharing)
        count = max(left[index].count - each * max(taken - len(gone), 0), 0)
        in_use = left[index].count < _total(left[index])
        left[index] = replace(left[index], count=count, total=None if in_use and count else count)
    for index in [index for card in touched for index in card]:
        # What remains of a card in use has no physical function to exclude any more.
        left[index] = replace(left[index], total=None if left[index].count else 0)


def _cards(pools: Sequence[PciPool], virtual: Iterable[int]) -> tuple[list[list[int]], list[int]]:
    """Pools of virtual functions by the physical function that they name, and those that name none."""
    cards: dict[str, list[int]] = {}
    loose: list[int] = []
    for index in virtual:
        parent = pools[index].card or pools[index].tags.get("parent_ifname")
        if parent:
            cards.setdefault(str(parent), []).append(index)
        else:
            loose.append(index)
    return list(cards.values()), loose


def _families(pools: Sequence[PciPool], indices: Iterable[int]) -> list[list[int]]:
    """Indices of pools of SR-IOV functions, by what may be one card."""
    found: dict[Hashable, list[int]] = {}
    for index in indices:
        pool = pools[index]
        if _is_physical(pool) or pool.tags.get("dev_type") in VIRTUAL:
            vendor = str(pool.tags.get("vendor_id", "")).lower()
            key: Hashable = ("card", pool.card) if pool.card is not None else (pool.numa_node, vendor)
            found.setdefault(key, []).append(index)
    return [part for members in found.values() for part in _by_network(pools, members)]


def _by_network(pools: Sequence[PciPool], members: list[int]) -> list[list[int]]:
    networks = [pools[index].tags.get("physical_network") for index in members]
    if any(network is None for network in networks):
        return [members]
    return [
        [index for index, each in zip(members, networks, strict=True) if each == network]
        for network in dict.fromkeys(networks)
    ]


def _is_mixed(pools: Iterable[PciPool]) -> bool:
    kinds = {_is_physical(pool) for pool in pools}
    return len(kinds) == 2


def _is_physical(pool: PciPool) -> bool:
    return bool(pool.tags.get("dev_type") == PHYSICAL)


def _total(pool: PciPool) -> int:
    return max(pool.total or 0, pool.count)
