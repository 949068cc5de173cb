"""A slow, obvious model of volumes in the service: what each pool is charged and what each project counts, as sums over
lists. It decides nothing; it is told where things went."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Claim:
    """GiB that something takes of a pool."""

    pool: str
    size_gb: int


@dataclass
class ModelVolume:
    """A volume: its claims, the pool that it shows, and the types that it counts by."""

    project: str
    size_gb: int
    types: list[str]
    claims: list[Claim]
    at: str
    snapshots: dict[str, Claim] = field(default_factory=dict)
    new_at: str | None = None
    new_type: str | None = None
    moving: bool = False


@dataclass
class Model:
    """All volumes, backups and groups, and what pools had free at the start."""

    free: dict[str, int]
    volumes: dict[str, ModelVolume] = field(default_factory=dict)
    backups: dict[str, tuple[str, int]] = field(default_factory=dict)

    def room(self, pool: str) -> int:
        """Free GiB of a pool: every claim counts once."""
        taken = 0
        for volume in self.volumes.values():
            taken += sum(claim.size_gb for claim in volume.claims if claim.pool == pool)
            taken += sum(claim.size_gb for claim in volume.snapshots.values() if claim.pool == pool)
        return self.free[pool] - taken

    def usage(self, projects: set[str]) -> dict[str, int]:
        """What projects count together, by Cinder's names."""
        found: dict[str, int] = {}

        def count(name: str, amount: int, types: list[str]) -> None:
            for each in (name, *(f"{name}_{kind}" for kind in types)):
                found[each] = found.get(each, 0) + amount

        for volume in self.volumes.values():
            if volume.project in projects:
                types = list(dict.fromkeys(filter(None, [*volume.types, volume.new_type])))
                count("volumes", 1, types)
                count("gigabytes", volume.size_gb, types)
                for claim in volume.snapshots.values():
                    count("snapshots", 1, types)
                    count("gigabytes", claim.size_gb, types)
        for project, size_gb in self.backups.values():
            if project in projects:
                count("backups", 1, [])
                count("backup_gigabytes", size_gb, [])
        return {name: amount for name, amount in found.items() if amount}
