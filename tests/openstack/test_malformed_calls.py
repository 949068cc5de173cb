"""Calls of a bus on which anybody may write: what cannot be read is refused, and the service goes on."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio

from hostler.drivers.openstack.bus.wire import NoValidHost

from ..replacing import OTHERS, paths, replaced
from .clouds import Cloud, instance_uuid, request_spec
from .in_memory_bus import running

pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CALLS = 150


@pytest.mark.parametrize(
    "uuids",
    [["a"], [""], ["\x00"], [instance_uuid(1), "x"], {"a": 1}, [f"{instance_uuid(1)}0"], [None], "x", 7],
    ids=repr,
)
async def test_instances_of_malformed_uuids_are_refused(cloud: Cloud, exchange: str, uuids: Any) -> None:
    async with running(cloud, exchange) as it:
        call = partial(
            it.conductor.client.prepare(version="4.5").call,
            {},
            "select_destinations",
            spec_obj=request_spec(),
            instance_uuids=uuids,
            return_objects=True,
        )
        with pytest.raises(NoValidHost):
            await trio.to_thread.run_sync(call)
        assert await it.select(instance_uuid(2))
        assert not it.allocations(instance_uuid(1))


async def test_damaged_requests_are_answered_or_refused_and_only_answered_ones_claim(
    cloud: Cloud, exchange: str
) -> None:
    chance, spec = random.Random(5), request_spec()
    places = list(paths(spec))
    async with running(cloud, exchange) as it:
        for number in range(CALLS):
            uuid = instance_uuid(number)
            call = partial(
                it.conductor.client.prepare(version="4.5").call,
                {"timestamp": chance.choice(OTHERS), "request_id": chance.choice(OTHERS)},
                "select_destinations",
                spec_obj=replaced(spec, chance.choice(places), chance.choice(OTHERS)),
                instance_uuids=[uuid],
                return_objects=True,
                return_alternates=True,
            )
            try:
                answered = bool(await trio.to_thread.run_sync(call))
            except NoValidHost:
                answered = False
            assert bool(it.allocations(uuid)) == answered
