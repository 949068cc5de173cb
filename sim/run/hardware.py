"""A kind of host, as a fleet file or a catalogue has it: its size, its price and what it draws. It knows no fleet."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Ratio = Annotated[float, msgspec.Meta(gt=0, le=1000)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
HOURS_PER_YEAR: Final = 365 * 24


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of host and how many there are, spread evenly over its zones and, within each, over ``racks`` racks,
    which are dealt to ``cells`` in turn. ``resources``: amounts of other resource classes, ``CUSTOM_…``.
    ``numa_cells``: equal NUMA cells that CPUs and memory are dealt to; 0: none are reported.

    To buy one costs ``price``, in the plan's currency, and to run it ``price_per_hour``; it draws ``watts``, takes
    ``rack_units`` and comes ``lead_time_days`` after its order."""

    name: Text
    count: Count = 0
    vcpus: Positive
    memory_gb: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
    disk_gb: Count = 0
    gpus: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    gpu_model: str = ""
    zones: tuple[Text, ...] = ("zone-1",)
    racks: Positive = 1
    cells: tuple[Text, ...] = ()
    cpu_allocation_ratio: Ratio = 1.0
    ram_allocation_ratio: Ratio = 1.0
    disk_allocation_ratio: Ratio = 1.0
    reserved_vcpus: Count = 0
    reserved_memory_gb: NotNegative = 0.0
    reserved_disk_gb: Count = 0
    numa_cells: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    traits: tuple[str, ...] = ()
    resources: dict[str, Positive] = {}
    price: NotNegative = 0.0
    price_per_hour: NotNegative = 0.0
    watts: NotNegative = 0.0
    rack_units: NotNegative = 0.0
    lead_time_days: NotNegative = 0.0

    @property
    def capacity(self) -> tuple[int, int, int]:
        """What a host gives of VCPU, MEMORY_MB (MiB) and DISK_GB (GiB), by Placement's rule: (total - reserved) *
        ratio, rounded down."""
        memory_mb = round(self.memory_gb * 1024)
        reserved_mb = round(self.reserved_memory_gb * 1024)
        return (
            int((self.vcpus - self.reserved_vcpus) * self.cpu_allocation_ratio),
            int((memory_mb - reserved_mb) * self.ram_allocation_ratio),
            int((self.disk_gb - self.reserved_disk_gb) * self.disk_allocation_ratio),
        )


def cost_of(kind: Hardware, years: float, energy_price: float = 0.0) -> float:
    """What a host costs over so many years, with its power at a price per kWh."""
    hourly = kind.price_per_hour + kind.watts / 1000 * energy_price
    return kind.price + hourly * HOURS_PER_YEAR * years
