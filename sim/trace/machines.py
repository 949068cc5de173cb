"""The machine that sizes of a trace are fractions of."""

from __future__ import annotations

from typing import NamedTuple

from ...placement.types.errors import InvalidValue


class Machine(NamedTuple):
    """The machine that sizes are fractions of."""

    vcpus: int = 64
    memory_gb: float = 256.0


def machine_of(text: str) -> Machine:
    """The machine that ``64x256`` names: vCPUs and GiB. InvalidValue for another text."""
    vcpus, _, memory = text.partition("x")
    try:
        found = Machine(int(vcpus), float(memory))
    except ValueError:
        found = Machine(0, 0.0)
    if not 0 < found.vcpus < 2**20 or not 0 < found.memory_gb < 2**20:
        raise InvalidValue(f"{text!r} is not a machine", field="machine", hint="vCPUs x GiB: 64x256")
    return found
