"""Where a cloud is read from, as options of a command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from ....placement.types.errors import InvalidValue
from ....placement.types.validation import uuid_words
from .databases import Database
from .nova_databases import Cell, cells_of, read_nova
from .placement_api import PlacementApi, read_placement_api
from .placement_database import read_placement
from .values import NovaSource, PlacementSource


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The databases of a cloud. A URL may be @FILE: the first line of that file; or the path of a dump in plain SQL, or
    of a file of SQLite."""

    placement: Annotated[str | None, Parameter(help="URL of Placement's database, @FILE with it, or a dump")] = None
    placement_api: Annotated[
        str | None, Parameter(help="in place of it, the endpoint of a Placement API; OS_TOKEN has the token")
    ] = None
    nova_api: Annotated[str | None, Parameter(help="URL of Nova's API database, @FILE with it, or a dump")] = None
    nova_cell: Annotated[
        list[str] | None,
        Parameter(
            help="URL of a cell's database or a dump of it, or UUID=URL; without, those that the API database names",
            negative="",
        ),
    ] = None

    @property
    def given(self) -> bool:
        """True if any of them is given."""
        return any((self.placement, self.placement_api, self.nova_api, self.nova_cell))

    def read_placement(self) -> PlacementSource:
        """What Placement has. InvalidValue unless just one way to it is given; SourceFailed if it cannot be read."""
        if (self.placement is None) == (self.placement_api is None):
            raise InvalidValue("give either --placement or --placement-api", field="placement")
        if self.placement_api is not None:
            return read_placement_api(PlacementApi(self.placement_api))
        assert self.placement is not None
        return read_placement(Database("placement", self.placement))

    def api(self) -> Database | None:
        """Nova's API database, if it is given."""
        return None if self.nova_api is None else Database("nova_api", self.nova_api)

    def cells(self) -> list[Cell]:
        """The cells that are named, or those that the API database names. InvalidValue if there are none."""
        named = self.nova_cell or []
        if named:
            return cells_named(named)
        api = self.api()
        if api is None:
            raise InvalidValue("give --nova-api, --nova-cell, or both", field="nova_api")
        found = cells_of(api)
        if not found:
            raise InvalidValue("the API database of Nova names no cells", field="nova_api", hint="give --nova-cell")
        return found

    def read_nova(self, now: float) -> NovaSource:
        """What Nova has, as it is at ``now``."""
        return read_nova(self.cells(), self.api(), now=now)


def cells_named(given: Sequence[str], opened: Callable[[str, str], Database] = Database) -> list[Cell]:
    """Cells by URL or UUID=URL. ``opened``: makes the database of a name and a URL. InvalidValue if one cannot be."""
    found = []
    for number, each in enumerate(given, 1):
        uuid, mark, url = each.partition("=")
        if not mark or ":" in uuid or uuid.startswith("@"):
            uuid, url = "", each
        elif uuid:
            uuid_words(uuid, "nova_cell")
        found.append(Cell(opened(f"nova_cell{number}", url), uuid or None))
    return found


__all__ = ["SourceOptions", "cells_named"]
