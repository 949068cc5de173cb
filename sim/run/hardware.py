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
PCPU: Final = "PCPU"
"""The resource class of CPUs that a guest has for itself."""
HYPERTHREADING: Final = "HW_CPU_HYPERTHREADING"


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of host and how many there are, spread evenly over its zones and, within each, over ``racks`` racks,
    which are dealt to ``cells`` in turn. ``resources``: amounts of other resource classes, ``CUSTOM_…``.
    ``numa_cells``: equal NUMA cells that CPUs and memory are dealt to; 0: none are reported, or one where there are
    dedicated CPUs or huge pages. ``dedicated_vcpus``: of the ``vcpus``, those that guests get for themselves (PCPU,
    Nova's cpu_dedicated_set), the same number in each cell but for the rest of a division; the others are shared.
    ``threads_per_core``: of CPUs with neighbouring numbers. ``huge_pages``: how many of each size, such as
    ``{"2MiB" = 1024, "1GiB" = 16}``, dealt to the cells; they are part of the memory.

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
    dedicated_vcpus: Count = 0
    threads_per_core: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    huge_pages: dict[str, Positive] = {}
    traits: tuple[str, ...] = ()
    resources: dict[str, Positive] = {}
    price: NotNegative = 0.0
    price_per_hour: NotNegative = 0.0
    watts: NotNegative = 0.0
    rack_units: NotNegative = 0.0
    lead_time_days: NotNegative = 0.0

    @property
    def shared_vcpus(self) -> int:
        """CPUs that guests share: those that are not dedicated."""
        return self.vcpus - self.dedicated_vcpus

    @property
    def reported_traits(self) -> frozenset[str]:
        """The traits, with that of cores with several threads."""
        threads = [HYPERTHREADING] if self.threads_per_core > 1 else []
        return frozenset([*self.traits, *threads])

    @property
    def capacity(self) -> tuple[int, int, int]:
        """What a host gives of VCPU, MEMORY_MB (MiB) and DISK_GB (GiB), by Placement's rule: (total - reserved) *
        ratio, rounded down."""
        memory_mb = round(self.memory_gb * 1024)
        reserved_mb = round(self.reserved_memory_gb * 1024)
        return (
            int((self.shared_vcpus - self.reserved_vcpus) * self.cpu_allocation_ratio),
            int((memory_mb - reserved_mb) * self.ram_allocation_ratio),
            int((self.disk_gb - self.reserved_disk_gb) * self.disk_allocation_ratio),
        )


def cost_of(kind: Hardware, years: float, energy_price: float = 0.0) -> float:
    """What a host costs over so many years, with its power at a price per kWh."""
    hourly = kind.price_per_hour + kind.watts / 1000 * energy_price
    return kind.price + hourly * HOURS_PER_YEAR * years
