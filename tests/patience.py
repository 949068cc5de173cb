"""How long tests wait for something that must happen: a guard against hanging, never a bound that is tested."""

from __future__ import annotations

import os
from typing import Final

HANG_SECONDS: Final = float(os.environ.get("HOSTLER_TEST_HANG_SECONDS", "120"))
"""A wait of this many seconds counts as a hang. Generous, so that a loaded or instrumented machine passes."""
