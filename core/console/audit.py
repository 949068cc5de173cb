"""``hostler audit``: the audit log of a data folder, rebuilt from its journal."""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..machine.machine import ServiceMachine
from ..machine.replaying import begin, records
from ..process.audit import line_of

audit = cyclopts.App(name="audit", help="Rebuild the audit log from a journal.")


@audit.default
async def print_audit(
    folder: Path, *, after: Annotated[int, Parameter(validator=Number(gte=0), help="only commands behind this one")] = 0
) -> int:
    """Print a line of JSON for each command of the journal in a data folder, as ``audit.jsonl`` has them: from its
    first command if the history was kept, else from its oldest snapshot. The folder is that of a service that has
    ended, or a copy; nothing in it is changed."""
    machine, encode = ServiceMachine(), msgspec.json.Encoder().encode
    last = begin(folder, machine)
    async with aclosing(records(folder, last)) as parts:
        async for read in parts:
            orders = [machine.decode(record.body) for record in read]
            for record, order, outcome in zip(read, orders, machine.apply_batch(orders), strict=True):
                if record.sequence > after:
                    sys.stdout.write(encode(line_of(record.sequence, order, outcome)).decode() + "\n")
    return 0
