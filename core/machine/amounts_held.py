"""What consumers of a fleet hold, as amounts by resource class and the number of instances among them. It knows no
tenants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...ext.constants import NOT_INSTANCE
from ...placement.fleet.consumers import Consumer
from ...placement.fleet.fleet import Fleet
from ..tenancy.usage import INSTANCES


def is_instance(fleet: Fleet, consumer: int) -> bool:
    """False for a migration, for another consumer whose type says that it is no instance, and for an instance that a
    host reports and that has no allocation. O(1)."""
    shape, flags = fleet._kernel.consumer(consumer)[3::4]
    return shape >= 0 and not flags & NOT_INSTANCE


def held_together(fleet: Fleet, consumers: Sequence[int], shapes: Sequence[int], *, by_type: bool) -> Counter[str]:
    """What consumers of these shapes hold together, with ``instances``: those that are instances, or all of them
    without ``by_type``. O(consumers)."""
    total = Counter[str]()
    total[INSTANCES] = len(consumers)
    if by_type:
        total[INSTANCES] -= Counter(shapes)[-1]
        noted = [each for each in consumers if each in fleet._consumers.notes] if fleet._consumers.notes else ()
        total[INSTANCES] -= sum(fleet._kernel.consumer(each)[7] & NOT_INSTANCE != 0 for each in noted)
    for shape, count in Counter(shapes).items():
        classes, amounts, *_ = fleet._kernel.shape(shape) if shape >= 0 else ((), ())
        for resource, amount in zip(classes, amounts, strict=True):
            total[fleet.resource_classes[resource]] += count * amount
    for consumer in consumers if fleet._extras else ():
        for _, resource, amount in fleet._extras[consumer].elsewhere if consumer in fleet._extras else ():
            total[fleet.resource_classes[resource]] += amount
    return total


def held_by(fleet: Fleet, consumer: Consumer, *, by_type: bool) -> dict[str, int]:
    """What one consumer holds, with ``instances`` as above. O(1)."""
    total = {INSTANCES: 1, **consumer.resources}
    if by_type and not is_instance(fleet, fleet.consumer_id(consumer.uuid)):
        del total[INSTANCES]
    for resources in consumer.elsewhere.values():
        for name, amount in resources.items():
            total[name] = total.get(name, 0) + amount
    return total
