"""Greatest and least values that the engine takes."""

from typing import Final

MAX_AMOUNT: Final = 2**31 - 1
"""Greatest total, reserved, unit or amount (Placement: a signed 32-bit database integer)."""
MAX_RAW: Final = 2.0**1022
"""Greatest magnitude of a weigher's raw value: the difference of any two is finite."""
