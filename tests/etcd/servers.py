"""Real etcd servers for tests. ``NEEDS_ETCD`` skips them with the reason where etcd is not installed."""

from __future__ import annotations

import pytest

from hostler.bench.etcd_servers import ETCD, EtcdServers

NEEDS_ETCD = pytest.mark.skipif(ETCD is None, reason="etcd is not installed (Debian: etcd-server)")

__all__ = ["NEEDS_ETCD", "EtcdServers"]
