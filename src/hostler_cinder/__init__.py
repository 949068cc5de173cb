"""Hostler inside Cinder: the class for the option ``scheduler_driver``. Needs Cinder in the same environment."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostler.drivers.openstack.cinder.scheduler import Scheduler

__all__ = ["Scheduler"]


def __getattr__(name: str) -> Any:
    if name == "Scheduler":
        from hostler.drivers.openstack.cinder.scheduler import Scheduler

        return Scheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
