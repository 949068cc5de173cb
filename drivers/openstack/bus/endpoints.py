"""The methods of nova-scheduler's RPC (topic ``scheduler``, versions 4.0 to 4.5) and of Nova's base RPC, as threads of
oslo.messaging call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import oslo_messaging

from .server import GivenBack
from .wire import NoValidHost

VERSION = "4.5"


class Chooser(Protocol):
    """What answers the calls. Its methods are called in any thread."""

    def select(
        self, context: Mapping[str, Any], spec: Any, uuids: Sequence[str] | None, *, objects: bool, alternates: bool
    ) -> list[Any]:
        """The answer of select_destinations. NoValidHost if there is none, GivenBack if it is for others to answer."""

    def aggregates_changed(self) -> None:
        """Host aggregates were changed or deleted."""

    def instances_changed(self, host: str) -> None:
        """Instances of a service host came or went."""

    def cast(self, method: str) -> None:
        """Count a fan-out."""


class SchedulerEndpoint:
    """nova-scheduler's methods."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser

    @oslo_messaging.expected_exceptions(NoValidHost, GivenBack)  # type: ignore[untyped-decorator]  # oslo.messaging is not typed
    def select_destinations(
        self,
        ctxt: Mapping[str, Any],
        request_spec: Any = None,
        filter_properties: Any = None,
        spec_obj: Any = None,
        instance_uuids: Sequence[str] | None = None,
        return_objects: bool = False,
        return_alternates: bool = False,
    ) -> list[Any]:
        """Hosts for the instances of a request, claimed; with ``return_objects`` as Selections, the chosen one before
        its alternates."""
        alternates = return_alternates and return_objects
        return self._chooser.select(ctxt, spec_obj, instance_uuids, objects=return_objects, alternates=alternates)

    def update_aggregates(self, ctxt: Mapping[str, Any], aggregates: Any) -> None:
        """Aggregates were created or changed."""
        self._chooser.cast("update_aggregates")
        self._chooser.aggregates_changed()

    def delete_aggregate(self, ctxt: Mapping[str, Any], aggregate: Any) -> None:
        """An aggregate was deleted."""
        self._chooser.cast("delete_aggregate")
        self._chooser.aggregates_changed()

    def update_instance_info(self, context: Mapping[str, Any], host_name: str, instance_info: Any) -> None:
        """Instances of a host were created or changed."""
        self._chooser.cast("update_instance_info")
        self._chooser.instances_changed(host_name)

    def delete_instance_info(self, context: Mapping[str, Any], host_name: str, instance_uuid: str) -> None:
        """An instance has left a host."""
        self._chooser.cast("delete_instance_info")
        self._chooser.instances_changed(host_name)

    def sync_instance_info(self, context: Mapping[str, Any], host_name: str, instance_uuids: Sequence[str]) -> None:
        """A host tells all its instances, every two minutes; the databases are read as often as that anyway."""
        self._chooser.cast("sync_instance_info")


class BaseEndpoint:
    """What every service of Nova answers."""

    target = oslo_messaging.Target(namespace="baseapi", version="1.1")

    def ping(self, context: Mapping[str, Any], arg: Any) -> dict[str, Any]:
        """Answers that the service is there."""
        return {"service": "scheduler", "arg": arg}

    def get_backdoor_port(self, context: Mapping[str, Any]) -> None:
        """There is no backdoor."""


__all__ = ["VERSION", "BaseEndpoint", "Chooser", "SchedulerEndpoint"]
