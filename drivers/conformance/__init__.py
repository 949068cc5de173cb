"""The conformance suite for drivers, as a pytest plug-in: subclass ``ComputeConformance`` or ``StorageConformance``,
give it a fixture ``bench``, and every test of the suite runs on your driver. Needs the extra ``conformance``.

Add ``pytest_plugins = ["hostler.drivers.conformance"]`` to conftest.py for detailed assertion messages.
"""

import pytest

_ASSERTING = ("bench", "changes", "compute", "faults", "optional", "storage")
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _ASSERTING))

from .bench import ComputeBench, Outage, StorageBench, new_uuid  # noqa: E402  # after the registration, as pytest requires
from .compute import ComputeConformance  # noqa: E402  # as above
from .storage import StorageConformance  # noqa: E402  # as above

__all__ = ["ComputeBench", "ComputeConformance", "Outage", "StorageBench", "StorageConformance", "new_uuid"]
