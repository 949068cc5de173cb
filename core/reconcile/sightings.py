"""Objects of this installation that no claim explains: each is removed after two sightings, a while apart."""

from __future__ import annotations

import trio


class Sightings:
    """What one inventory after the other finds on a back end."""

    def __init__(self, grace: float) -> None:
        """``grace``: least seconds between the two sightings."""
        self._grace = grace
        self._before: dict[tuple[str, int], float] = {}
        self._now: dict[tuple[str, int], float] = {}

    def begin(self) -> None:
        """An inventory begins: what it does not sight is gone."""
        self._before, self._now = self._now, {}

    def sight(self, uuid: str, claim: int) -> bool:
        """Note an object; True at its second sighting and later ones, ``grace`` after the first."""
        now = trio.current_time()
        first = self._now[uuid, claim] = self._before.get((uuid, claim), now)
        return (uuid, claim) in self._before and now - first >= self._grace
