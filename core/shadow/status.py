"""What a shadow policy would have decided, as plain values."""

from __future__ import annotations

import msgspec

from ...placement.decide.explain.explanation import Explanation


class ShadowCounts(msgspec.Struct, kw_only=True):
    """Requests by how the shadow policy's decision differs from the live one. ``passed_over``: not compared, since the
    child that compares was behind or had to begin again."""

    same: int = 0
    elsewhere: int = 0
    only_live: int = 0
    """Placed, and the shadow policy would have refused."""
    only_shadow: int = 0
    """Refused, and the shadow policy would have placed."""
    passed_over: int = 0

    @property
    def compared(self) -> int:
        return self.same + self.elsewhere + self.only_live + self.only_shadow

    def add(self, other: ShadowCounts) -> None:
        """Add those of another."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class ShadowDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the shadow policy decides otherwise: number of its command, position in it, hosts of its instances
    (none: refused), and for some of the requests both explanations."""

    sequence: int
    position: int
    live: tuple[str, ...]
    shadow: tuple[str, ...]
    live_explanation: Explanation | None = None
    shadow_explanation: Explanation | None = None


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The shadow policy: its digest, whether it is followed now, commands that it is behind, how often the child began
    again, what it found since the service started, and the last differences, the latest first."""

    policy: str
    running: bool
    behind: int
    restarts: int
    counts: ShadowCounts
    differences: list[ShadowDifference]
