"""How many objects a value holds."""

from __future__ import annotations

import gc
import types
import weakref
from typing import Any, Final

_OF_THE_PROGRAM: Final = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.FrameType,
    weakref.ref,
)


def reachable(root: Any) -> int:
    """Number of objects that can be reached from ``root``; code is not followed."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        for each in gc.get_referents(waiting.pop()):
            if id(each) not in seen and not isinstance(each, _OF_THE_PROGRAM):
                seen.add(id(each))
                waiting.append(each)
    return len(seen)
