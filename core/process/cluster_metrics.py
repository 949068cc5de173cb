"""Metrics of a member of a cluster."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ...placement.types.errors import HostlerError
from ..cluster_status import Cluster
from ..etcd.errors import EtcdDenied, EtcdFull, EtcdRefused, EtcdUnavailable, EtcdUntrusted


def cluster_metrics(member: Cluster) -> Iterator[Metric]:
    """Role, term, lag, elections, and how etcd answers."""
    role = GaugeMetricFamily("hostler_cluster_role", "1 for the role that this member has", labels=("role",))
    for name in ("leader", "follower"):
        role.add_metric((name,), float(member.role == name))
    yield role
    yield GaugeMetricFamily("hostler_cluster_term", "Term of the leader that is known", value=member.term)
    text = "Commands in etcd that this member has not carried out"
    yield GaugeMetricFamily("hostler_cluster_behind_commands", text, value=member.behind)
    age = member.age
    text = "Age of the state that this member answers from; -1: unknown"
    yield GaugeMetricFamily("hostler_cluster_behind_seconds", text, value=-1.0 if age is None else age)
    yield CounterMetricFamily("hostler_cluster_elections", "Times that this member was elected", value=member.elections)
    text = "Time from finding no leader to leading, of the last election that this member won"
    yield GaugeMetricFamily("hostler_cluster_takeover_seconds", text, value=member.takeover_seconds)
    text = "Digests of the leader's state that were compared with this member's"
    yield CounterMetricFamily("hostler_cluster_digests_compared", text, value=member.compared)
    text = "Times that this member's state differed from the leader's, over all its starts with this data folder"
    yield GaugeMetricFamily("hostler_cluster_differences", text, value=member.differences)
    text = "Times that an endpoint of etcd failed and the next one was asked"
    yield CounterMetricFamily("hostler_etcd_failovers", text, value=member.failovers)


def etcd_trouble(error: HostlerError | None) -> Metric:
    """1 for what etcd answers a member of a cluster with, while it does not do what this asks for."""
    text = "1 for the reason for which etcd does not do what this member asks for"
    trouble = GaugeMetricFamily("hostler_etcd_trouble", text, labels=("reason",))
    for kind in (EtcdUnavailable, EtcdUntrusted, EtcdFull, EtcdDenied, EtcdRefused):
        trouble.add_metric((kind.code.removeprefix("etcd_"),), float(type(error) is kind))
    return trouble
