"""What Azure's 2017 trace says about guests, as figures: flavors, tenant batches, arrivals by hour, lifetimes.

Source: AzurePublicDatasetV1 (CC-BY-4.0), of which shared/data/azure2017/azure_v1_dev.csv.gz holds 259,159 guests in
53,109 tenant batches over 83 hours and 20 minutes. Where that file is present, tests/sim/test_demo.py computes every
figure again.
"""

from __future__ import annotations

from typing import Final

FLAVORS: Final = (
    (1, 768, 4108),
    (1, 1792, 156437),
    (1, 2048, 10),
    (2, 3584, 48008),
    (2, 4096, 22),
    (2, 14336, 49),
    (2, 16384, 3),
    (4, 7168, 25700),
    (4, 8192, 15),
    (4, 28672, 49),
    (4, 32768, 1),
    (8, 14336, 23315),
    (8, 16384, 5),
    (8, 57344, 1427),
    (8, 65536, 1),
    (16, 114688, 9),
)
"""(vCPUs, memory in MiB, guests)."""

BATCH_SIZES: Final = (
    (1, 30760),
    (2, 9826),
    (3, 3303),
    (4, 2034),
    (5, 1198),
    (6, 738),
    (8, 1090),
    (10, 752),
    (14, 884),
    (20, 695),
    (30, 527),
    (45, 458),
    (70, 274),
    (110, 185),
    (150, 107),
    (200, 86),
    (250, 83),
    (300, 56),
    (400, 49),
    (600, 4),
)
"""(guests at most, tenant batches with more than the row before and no more than that). The greatest has 587."""

SAME_LIFETIME: Final = 0.57
"""Chance that two guests of a batch have lifetimes in the same bin, the mean over the batches of two or more."""

BATCHES_BY_HOUR: Final = (
    *(446.0, 443.5, 394.0, 396.2, 426.0, 495.8, 534.8, 616.8, 662.3, 740.0, 798.0, 812.7),
    *(828.0, 897.0, 970.3, 922.3, 930.0, 918.7, 798.3, 682.7, 619.0, 584.8, 497.2, 455.8),
)
"""Mean number of batches an hour by hour of the trace's own day, which seems to begin at midnight."""

LIFETIME_UP_TO_S: Final = (
    *range(300, 3_601, 300),
    *range(7_200, 86_401, 3_600),
    *(172_800, 259_200, 345_600),
)
"""Upper ends of the lifetime bins in seconds: five minutes wide, from one hour on an hour, from one day on a day."""
LIFETIMES: Final = (
    *(0.1146, 0.1153, 0.1101, 0.1062, 0.0832, 0.0456, 0.0308, 0.0285, 0.0239, 0.0112, 0.0104, 0.0101),
    *(0.0779, 0.0311, 0.0207, 0.0138, 0.0128, 0.0121, 0.0099, 0.0094, 0.0083, 0.0077, 0.0085, 0.0082),
    *(0.0061, 0.0061, 0.0062, 0.0060, 0.0024, 0.0036, 0.0023, 0.0024, 0.0018, 0.0024, 0.0023, 0.0199),
    *(0.0056, 0.0011),
)
"""Share of the guests that end in each bin, by the actuarial form of Kaplan and Meier: a guest still running at the
trace's edge counts as at risk up to there, in a bin wider than a step for half of it. The others (0.0215) outlive the
trace's four days."""
