"""What is on record of a region that has another name now, or is not configured any more."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from hostler.core.process.config import load
from hostler.core.region_commands import BeginRegionRelease, ClaimInRegion
from hostler.core.regions.options import RegionOptions
from hostler.core.tenancy.usage import INSTANCES
from hostler.placement.types.errors import InvalidValue, UnknownName

from .in_process import World, world
from .region_processes import uuid_of, wish
from .test_calls_at_a_parent import member

EUROPE = RegionOptions(addresses=("unix:/none",), price=1.0, formerly=("eu", "emea"))


def instances(made: World) -> int:
    return made.service.state.usage.of("project:own").get(INSTANCES, 0)


async def test_a_region_answers_for_what_is_on_record_under_a_former_name(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"europe": 1, "us": 1}, europe=EUROPE) as made:
        await made.record(ClaimInRegion(id="c", region="eu", request=wish(1)))
        await made.at_rest()
        assert made.claims.guests[uuid_of(1)].region == "eu"
        assert made.guests_in("europe") == [uuid_of(1)]
        assert (await made.call("instance", {"uuid": uuid_of(1)})).node == "europe-0"
        assert [line.guests for line in made.cascade.lines()] == [1, 0]
        assert await made.call("release", {"uuids": [uuid_of(1)]}) == 1
        assert made.guests_in("europe") == []


async def test_a_cloud_admin_releases_what_is_in_a_region_that_is_gone_from_the_records(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1}) as made:
        anna = await member(made)
        for number in (1, 2):
            await made.call("place", {"request": wish(number, project="own")}, identity=anna)
        del made.cascade.links["eu"]
        with pytest.raises(UnknownName, match="region eu is not known"):
            await made.call("release", {"uuids": [uuid_of(1)]}, identity=anna)
        assert instances(made) == 2
        assert await made.call("release", {"uuids": [uuid_of(1)]}) == 1
        assert instances(made) == 1
        assert list(made.claims.guests) == [uuid_of(2)]
        assert made.guests_in("eu") == [uuid_of(1), uuid_of(2)]
        await made.record(BeginRegionRelease(id="r", uuids=(uuid_of(2),)))  # by a process that has ended
        await made.at_rest()
        assert made.claims.guests == {}


def test_a_former_name_is_of_one_region_only(tmp_path: Path) -> None:
    file = tmp_path / "hostler.toml"
    table = 'addresses = ["unix:/none"]'
    for other in (f"[regions.eu]\n{table}", f'[regions.us]\n{table}\nformerly = ["eu"]'):
        file.write_text(f'[regions.europe]\n{table}\nformerly = ["eu"]\n{other}')
        with pytest.raises(InvalidValue, match="eu is another region's name"):
            load(file)
