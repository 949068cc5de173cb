"""Placement over its API, where its database cannot be reached: the same values, read with four requests a provider and
one a consumer. It is not one moment's state: what changes meanwhile may be seen half."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from ....placement.fleet.inventories import INVENTORY_FIELDS, Inventory
from ....placement.types.errors import InvalidValue
from ....placement.types.extras import import_extra
from .databases import SourceFailed
from .values import PlacementSource, SourceConsumer, SourceProvider

VERSION: Final = "placement 1.38"
OLDEST: Final = "placement 1.28"
"""Without types of consumers, for services before Placement 6."""
AT_ONCE: Final = 8
TIMEOUT: Final = 60.0


class PlacementApi:
    """A Placement API. ``url``: its endpoint; ``token``: of an admin, empty: that of the variable OS_TOKEN."""

    def __init__(self, url: str, token: str = "", *, client: Any = None) -> None:
        """InvalidValue for a URL that cannot be one. ``client``: an httpx.Client of the caller's."""
        if not url.startswith(("http://", "https://")):
            raise InvalidValue(f"the URL of the Placement API is malformed: {url}", field="placement_api")
        httpx = import_extra("httpx", "service", field="placement_api")
        self.url = url.rstrip("/")
        self._headers = {"x-auth-token": token or os.environ.get("OS_TOKEN", ""), "accept": "application/json"}
        self._client = client or httpx.Client(timeout=TIMEOUT, limits=httpx.Limits(max_connections=AT_ONCE))
        self._errors = httpx.HTTPError
        self._version = VERSION

    def get(self, path: str, *, absent: Any = None) -> Any:
        """The JSON document at a path; ``absent`` if there is none. SourceFailed if the API does not answer."""
        try:
            headers = {**self._headers, "openstack-api-version": self._version}
            answer = self._client.get(f"{self.url}{path}", headers=headers)
            if answer.status_code == 406 and self._version != OLDEST:
                self._version = OLDEST
                return self.get(path, absent=absent)
        except self._errors as error:
            problem = f"the Placement API at {self.url} cannot be reached: {error}"
            raise SourceFailed(problem, field="placement_api") from error
        if answer.status_code == 404 and absent is not None:
            return absent
        if answer.status_code == 401:
            hint = "set OS_TOKEN, such as to what `openstack token issue -f value -c id` prints"
            problem = f"the Placement API at {self.url} does not know the token"
            raise SourceFailed(problem, field="placement_api", hint=hint)
        if answer.status_code != 200:
            problem = f"GET {path} at {self.url} answered {answer.status_code}"
            raise SourceFailed(problem, field="placement_api")
        try:
            return answer.json()
        except ValueError as error:
            raise SourceFailed(f"GET {path} at {self.url} answered no JSON", field="placement_api") from error


def read_placement_api(api: PlacementApi) -> PlacementSource:
    """All that an API tells. SourceFailed if it does not answer. O(providers + consumers) requests, AT_ONCE at a
    time."""
    found = PlacementSource()
    found.resource_classes = [each["name"] for each in api.get("/resource_classes")["resource_classes"]]
    found.traits = list(api.get("/traits")["traits"])
    for line in api.get("/resource_providers")["resource_providers"]:
        found.providers[line["uuid"]] = SourceProvider(
            uuid=line["uuid"],
            name=line["name"],
            parent=line.get("parent_provider_uuid"),
            generation=line["generation"],
        )
    consumers: dict[str, None] = {}
    for holders in _each(lambda uuid: _read_provider(api, found.providers[uuid]), list(found.providers)):
        consumers.update(dict.fromkeys(holders))
    for consumer in _each(lambda uuid: _read_consumer(api, uuid), list(consumers)):
        if consumer.allocations:
            found.consumers[consumer.uuid] = consumer
    return found


def _each(work: Callable[[str], Any], names: list[str]) -> Iterable[Any]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(work, names)


def _read_provider(api: PlacementApi, provider: SourceProvider) -> list[str]:
    """Fill in a provider; returns its consumers. One that has gone meanwhile stays empty."""
    path = f"/resource_providers/{provider.uuid}"
    inventories = api.get(f"{path}/inventories", absent={"inventories": {}})["inventories"]
    for name, given in inventories.items():
        figures = {figure: int(given[figure]) for figure in INVENTORY_FIELDS}
        provider.inventories[name] = Inventory(**figures, allocation_ratio=float(given["allocation_ratio"]))
    provider.traits.update(api.get(f"{path}/traits", absent={"traits": ()})["traits"])
    provider.aggregates.update(api.get(f"{path}/aggregates", absent={"aggregates": ()})["aggregates"])
    held: Mapping[str, Any] = api.get(f"{path}/allocations", absent={"allocations": {}})["allocations"]
    return list(held)


def _read_consumer(api: PlacementApi, uuid: str) -> SourceConsumer:
    told = api.get(f"/allocations/{uuid}")
    kind = told.get("consumer_type")
    return SourceConsumer(
        uuid=uuid,
        project_id=told.get("project_id", ""),
        user_id=told.get("user_id", ""),
        consumer_type=None if kind in (None, "unknown") else kind,
        generation=told.get("consumer_generation") or 0,
        allocations={provider: dict(each["resources"]) for provider, each in told["allocations"].items()},
    )


__all__ = ["PlacementApi", "read_placement_api"]
