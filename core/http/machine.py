"""The Placement model as the state machine that a journalled writer owns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from ...placement import fleet_file
from ...placement.api import values
from ...placement.api.commands import PlacementCommand
from ...placement.api.model import PlacementModel
from ...placement.fleet import Fleet

_FILE: Final = "fleet"
_KINDS: Final = {
    kind.__name__: kind
    for kind in (values.Provider, values.Inventories, values.ProviderTraits, values.ProviderAggregates)
}


class PlacementMachine:
    """Carries out commands on ``model``, which loading replaces: read it only once the writer has recovered."""

    def __init__(self) -> None:
        self.model = PlacementModel(Fleet())
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[PlacementCommand] = msgspec.msgpack.Decoder(PlacementCommand)

    def apply(self, command: PlacementCommand) -> object:
        """Carry a command out; HostlerError refuses it, and nothing has changed."""
        return self.model.apply(command)

    def encode(self, command: PlacementCommand) -> bytes:
        """The command as the journal holds it."""
        return self._encoder.encode(command)

    def decode(self, data: bytes) -> PlacementCommand:
        """The command that ``encode`` was given."""
        return self._decoder.decode(data)

    def encode_result(self, result: object) -> bytes:
        """A result as snapshots hold it."""
        return self._encoder.encode((type(result).__name__, result))

    def decode_result(self, data: bytes) -> object:
        """The result that ``encode_result`` was given."""
        name, value = msgspec.msgpack.decode(data, type=tuple[str, Any])
        return msgspec.convert(value, _KINDS[name]) if name in _KINDS else value

    def save(self, path: Path) -> None:
        """Write the fleet into a file in the folder ``path``."""
        fleet_file.save(self.model.fleet, path / _FILE)

    def load(self, path: Path) -> None:
        """Become the fleet that ``save`` wrote. SnapshotError if it cannot be."""
        self.model = PlacementModel(fleet_file.load(path / _FILE))
