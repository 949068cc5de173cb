"""Makes guests.csv, a trace of invented guests for the examples: python docs/examples/make_guests.py > guests.csv"""

import random
import sys

SIZES = ((1, 2), (2, 4), (2, 8), (4, 16), (8, 32), (16, 64))
"""vCPUs and GiB of memory."""
SHARES = (30, 30, 16, 14, 8, 2)
STEP_S, DAY_S, DAYS = 300, 86_400, 3
PER_STEP = 4.0
"""Guests that arrive in five minutes at noon, on average; a third of that at midnight."""


def main() -> None:
    draw = random.Random(2026)
    print("arrival_s,departure_s,vcpus,memory_gb")
    for at_s in range(0, DAYS * DAY_S, STEP_S):
        noon = 1 - abs(at_s % DAY_S - DAY_S / 2) / (DAY_S / 2)
        for _ in range(int(draw.expovariate(1 / (PER_STEP * (1 + 2 * noon) / 3)) + 0.5)):
            vcpus, memory_gb = draw.choices(SIZES, SHARES)[0]
            hours = draw.choices((0.5, 4, 24, 24 * 14), (40, 30, 20, 10))[0]
            lives_s = int(draw.expovariate(1 / (hours * 3_600)) / STEP_S + 1) * STEP_S
            print(at_s, at_s + lives_s, vcpus, memory_gb, sep=",")


if __name__ == "__main__":
    sys.exit(main())
