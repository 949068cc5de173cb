"""Counters of a scheduler in shadow, canary or live mode, and the page on which Prometheus reads them. Needs
prometheus-client."""

from __future__ import annotations

import logging
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, start_http_server

LOG = logging.getLogger(__name__)
PORTS: Final = 64
"""Ports that are tried for the page, one a worker."""


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by who decided them and how", "decided_by", "outcome")
        self.fallbacks = self._counter(
            "fallbacks", "Requests that Hostler was to decide and did not, by reason", "reason"
        )
        self.failures = self._counter("failures", "Failures of Hostler by the class of the exception", "error")
        self.compared = self._counter("shadow_comparisons", "Comparisons with the stock scheduler by result", "result")
        self.cpu = self._counter("cpu_seconds", "CPU time of decisions, without databases and Placement", "engine")
        self.hosts = Gauge("hostler_hosts", "Hosts or pools that are kept", registry=self.registry)
        self.unreadable = Gauge(
            "hostler_hosts_unreadable", "Hosts whose state could not be read", registry=self.registry
        )
        self.changes = self._counter("hosts_read", "Hosts or pools that were read in because they changed")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"hostler_{name}", text, labels, registry=self.registry)

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def value(self, name: str, **labels: str) -> float:
        """The value of one metric; 0.0 if it has not been counted."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def serve(self, host: str, port: int) -> Any:
        """Answer on the first free port from ``port`` on, in a thread; None, and a warning in the log, if none is."""
        for each in range(port, min(port + PORTS, 65536)):
            try:
                server = start_http_server(each, host, registry=self.registry)
            except OSError:
                continue
            LOG.info("metrics are served at http://%s:%d/", host, each)
            return server
        LOG.warning("no port from %d on is free at %s: metrics are not served", port, host)
        return None
