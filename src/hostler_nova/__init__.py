"""Hostler inside Nova: the class that nova-scheduler runs. Needs Nova in the same environment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostler.drivers.openstack.nova.scheduler import SchedulerManager

__all__ = ["SchedulerManager"]


def __getattr__(name: str) -> Any:
    if name == "SchedulerManager":
        from hostler.drivers.openstack.nova.scheduler import SchedulerManager

        return SchedulerManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
