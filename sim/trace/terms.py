"""What a trace says of guests beside their sizes: what they use, how their groups spread, whose they are, and who goes
first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

POLICIES: Final = ("anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity")
"""Of server groups, as Nova has them."""


FAULT_DOMAINS: Final = ("", "rack", "row", "cluster", "cell", "zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a guest uses of its vCPUs, as shares of them: on average, and at the 95th percentile of time."""

    mean: float
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of guests of one spec number. ``policy`` and ``most_per_host`` (of anti-affinity) of their group; ``project``;
    ``priority``: guests with a greater one are placed first, and may take the place of ``preemptible`` ones with a
    smaller one; ``fault_domain``: rack, row, cluster, cell or zone over which the members of the group are spread, "":
    none; ``usage``: None where the trace does not tell."""

    policy: str = "anti-affinity"
    most_per_host: int = 1
    project: str = ""
    priority: int = 0
    preemptible: bool = False
    fault_domain: str = ""
    usage: Usage | None = None


PLAIN: Final = Terms()
Usages = Mapping[str, Usage]
"""What guests use, by their ids."""
