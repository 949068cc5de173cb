"""What a run tells those who follow its guests: who gets a host, changes it or leaves it."""

from __future__ import annotations

from collections.abc import Sequence

from ...placement.types.request import RequestSpec


class Observer:
    """Follows the guests of a run. Does nothing; override what matters."""

    def came(self, uuid: str, row: int, spec: int) -> None:
        """A guest of a spec number has been placed on a row."""

    def stand(self, uuid: str, row: int, spec: RequestSpec) -> None:
        """A guest that the trace does not have stands on a row."""

    def left(self, uuids: Sequence[str]) -> None:
        """Guests have left their hosts."""

    def moved(self, uuid: str, row: int) -> None:
        """A guest is on another row now."""

    def bought(self, uuids: Sequence[str], begin_s: int, ends_s: Sequence[int]) -> None:
        """Guests run in a public cloud from a second of the workload on until others; NEVER: to the end of the run."""
