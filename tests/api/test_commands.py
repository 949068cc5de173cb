"""Random commands against a slow, obvious model: results, generations, errors; undone, forked, saved and replayed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.placement.api import commands as c
from hostler.placement.api.errors import ApiError
from hostler.placement.api.placement_model import PlacementModel
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.persist.file import load, save

from .command_values import BEGINNING, commands
from .forests import uid
from .model_oracle import C, Oracle, Refused

several = st.lists(commands, min_size=1, max_size=25)


def seen(model: PlacementModel) -> dict[str, Any]:
    """All that the API shows, times included."""
    shown: dict[str, Any] = {"traits": [named for named in model.traits() if named.name.startswith("CUSTOM")]}
    shown["classes"] = model.resource_classes()
    for provider in model.providers():
        uuid = provider.uuid
        shown[uuid] = (
            provider,
            model.inventories(uuid),
            model.provider_usages(uuid),
            model.provider_traits(uuid),
            model.provider_aggregates(uuid),
            model.provider_allocations(uuid),
        )
    shown["consumers"] = {number: model.allocations(uid(number)) for number in range(50, 53)}
    shown["usages"] = {project: model.usages_by_type(project) for project in ("p", "q")}
    return shown


def right(oracle: Oracle, command: Any) -> Any:
    """The command with -1 replaced by the generation that the provider is at."""

    def generation(uuid: str, given: int | None) -> int | None:
        return oracle.providers[uuid].generation if given == -1 and uuid in oracle.providers else given

    if isinstance(command, c.Reshape):
        reshaped = {
            uuid: msgspec.structs.replace(asked, generation=generation(uuid, asked.generation))
            for uuid, asked in command.providers.items()
        }
        return msgspec.structs.replace(command, providers=reshaped)
    if hasattr(command, "generation"):
        return msgspec.structs.replace(command, generation=generation(command.provider, command.generation))
    return command


def compare(model: PlacementModel, oracle: Oracle) -> None:
    """Everything that the oracle knows."""
    assert {provider.uuid for provider in model.providers()} == set(oracle.providers)
    for uuid, mine in oracle.providers.items():
        shown = model.provider(uuid)
        assert (shown.name, shown.parent, shown.generation) == (mine.name, mine.parent, mine.generation)
        assert shown.root == oracle.lineage(uuid)[-1]
        assert model.inventories(uuid).inventories == mine.inventories
        assert model.provider_usages(uuid).usages == {name: oracle.used(uuid, name) for name in mine.inventories}
        assert set(model.provider_traits(uuid).traits) == mine.traits
        assert set(model.provider_aggregates(uuid).aggregates) == mine.aggregates
        held = {
            consumer: (one.allocations[uuid], one.generation)
            for consumer, one in oracle.consumers.items()
            if uuid in one.allocations
        }
        assert model.provider_allocations(uuid).allocations == held
    for number in range(50, 53):
        shown_consumer = model.allocations(uid(number))
        assert (None if shown_consumer is None else _as_oracle(shown_consumer)) == oracle.consumers.get(uid(number))
    assert {named.name for named in model.traits() if named.name.startswith("CUSTOM_")} == oracle.traits
    assert {named.name for named in model.resource_classes() if named.name.startswith("CUSTOM_")} == oracle.classes
    for project in ("p", "q", "nobody"):
        assert model.usages(project) == _usages(oracle, project)
        types = {one.consumer_type or "unknown" for one in oracle.consumers.values()}
        by_type = {kind: usage.usages for kind, usage in model.usages_by_type(project).items()}
        expected = {kind: _usages(oracle, project, kind=kind) for kind in types}
        assert by_type == {kind: usages for kind, usages in expected.items() if usages}
        for user in sorted({one.user_id for one in oracle.consumers.values()}):
            assert model.usages(project, user_id=user) == _usages(oracle, project, user=user)


def _as_oracle(shown: Any) -> C:
    allocations = {uuid: resources for uuid, (resources, _) in shown.allocations.items()}
    return C(allocations, shown.project_id, shown.user_id, shown.generation, shown.consumer_type)


def _usages(oracle: Oracle, project: str, user: str | None = None, kind: str | None = None) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in oracle.consumers.values():
        counts = one.project_id == project and user in (None, one.user_id)
        counts &= kind in (None, one.consumer_type or "unknown")
        for resources in one.allocations.values() if counts else ():
            for name, amount in resources.items():
                sums[name] = sums.get(name, 0) + amount
    return sums


def both(model: PlacementModel, oracle: Oracle, command: Any) -> None:
    """Apply a command to both; they agree on the error, and after one nothing has changed."""
    expected = None
    try:
        oracle.apply(command)
    except Refused as refused:
        expected = (refused.kind, refused.placement_code)
    before = seen(model)
    try:
        model.apply(command)
        found = None
    except ApiError as error:
        found = (error.code, error.placement_code)
        assert seen(model) == before
    assert found == expected, command


@pytest.mark.property
@settings(max_examples=250, deadline=None)
@given(given_commands=several)
def test_commands_do_what_a_slow_obvious_model_does(given_commands: list[Any]) -> None:
    model, oracle = PlacementModel(Fleet()), Oracle()
    for command in (*BEGINNING, *given_commands):
        both(model, oracle, right(oracle, command))
        compare(model, oracle)
    model.fleet.check()


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(before=several, after=several)
def test_a_version_that_is_held_comes_back_whole_and_goes_again(before: list[Any], after: list[Any]) -> None:
    model, oracle = PlacementModel(Fleet()), Oracle()
    for command in (*BEGINNING, *before):
        both(model, oracle, right(oracle, command))
    first, held = seen(model), model.fleet._history.hold()
    for command in after:
        both(model, oracle, right(oracle, command))
    second, later = seen(model), model.fleet._history.hold()
    for version, state in ((held, first), (later, second), (held, first)):
        model.fleet._history.go(version)
        model.fleet.check()
        assert seen(model) == state


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(given_commands=several)
def test_a_saved_fleet_shows_the_same_and_goes_on_the_same(given_commands: list[Any]) -> None:
    model, oracle = PlacementModel(Fleet()), Oracle()
    half = len(given_commands) // 2
    for command in (*BEGINNING, *given_commands[:half]):
        both(model, oracle, right(oracle, command))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet"
        save(model.fleet, path)
        again = PlacementModel(load(path))
    again.fleet.check()
    assert seen(again) == seen(model)
    for command in given_commands[half:]:
        both(again, oracle, right(oracle, command))
    compare(again, oracle)


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(command=commands)
def test_a_command_survives_a_journal(command: Any) -> None:
    decoder = msgspec.msgpack.Decoder(c.PlacementCommand)
    assert decoder.decode(msgspec.msgpack.encode(command)) == command
