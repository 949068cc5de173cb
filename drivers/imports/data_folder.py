"""A new data folder of the service whose first state is a fleet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ...core.errors import StorageFailed
from ...core.journal.snapshots import SnapshotFolder, write_folder
from ...core.machine.machine import ServiceMachine
from ...core.machine.orders import RULES
from ...core.writer.idempotent_answers import Answers
from ...core.writer.writer import ANSWERS_KEPT
from ...placement.decide.engine import Engine
from ...placement.fleet.fleet import Fleet
from ...placement.types.errors import InvalidValue
from ...placement.types.request import RequestSpec

FIRST: Final = 1
"""Number of the command that the state is behind; the first command of the service is the next."""


def write_data_folder(fleet: Fleet, folder: Path, requests: Mapping[str, RequestSpec]) -> None:
    """Write a snapshot of the fleet, with what its guests were asked with, into a folder that is new or empty.
    InvalidValue if it is not, StorageFailed if it cannot be written. O(rows + guests)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InvalidValue(f"{folder} is not empty", field="data", hint="name a new folder")
        new = SnapshotFolder(folder).path(FIRST).with_suffix(".new")
        machine = machine_of(fleet, requests)
        answers: Answers[object] = Answers(ANSWERS_KEPT, machine.encode_result, machine.decode_result)

        def write(inside: Path) -> None:
            machine.save(inside)
            answers.save(inside)

        write_folder(new, FIRST, write)
        new.rename(SnapshotFolder(folder).path(FIRST))
    except OSError as error:
        raise StorageFailed(f"{folder} cannot be written: {error.strerror}", field="data") from error


def machine_of(fleet: Fleet, requests: Mapping[str, RequestSpec]) -> ServiceMachine:
    """A machine of the service with a fleet for its state. O(guests)."""
    machine = ServiceMachine()
    state = machine.state
    state.decide_by(Engine(fleet, state.engine.policy), {})
    encode = msgspec.msgpack.Encoder().encode
    written: dict[RequestSpec, bytes] = {}
    guests: dict[bytes, list[str]] = {}
    for uuid, spec in requests.items():
        data = written.get(spec)
        if data is None:
            data = written[spec] = encode(spec)
        guests.setdefault(data, []).append(uuid)
    for data, uuids in guests.items():
        state.requests.keep(uuids, data)
    state.follow_rules(RULES)
    return machine


__all__ = ["machine_of", "write_data_folder"]
