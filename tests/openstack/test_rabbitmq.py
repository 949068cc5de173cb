"""Nova's scheduler RPC over a real RabbitMQ, by the client that Nova's conductor uses, with processes that are killed,
stopped and restarted. Installing the broker takes some 15 seconds, its start 5."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostler.bench import rabbit_broker
from hostler.bench.etcd_servers import EtcdServers
from tests.daemon.processes import Daemon, metrics

from ..patience import HANG_SECONDS
from .clouds import Cloud, flavor, instance_uuid, request_spec

oslo_messaging = pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")
if rabbit_broker.missing():
    pytest.skip(f"{', '.join(rabbit_broker.missing())} are not installed", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
THREADS = 2
SMALL = flavor(vcpus=1, memory_mb=64, root_gb=0)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbit_broker.Broker]:
    """A broker that is not started."""
    made = rabbit_broker.Broker(tmp_path_factory.mktemp("rabbit"))
    yield made
    made.end()


class Conductor:
    """Calls as nova-conductor makes them, on one connection."""

    def __init__(self, url: str) -> None:
        from oslo_config import cfg

        self._transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
        target = oslo_messaging.Target(exchange="nova", topic="scheduler", version="4.0")
        self.client = oslo_messaging.get_rpc_client(self._transport, target)

    def select(self, number: int, *, timeout: float = HANG_SECONDS, monitor: int | None = None, **changes: Any) -> Any:
        """select_destinations for one small guest."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        prepared = self.client.prepare(version="4.5", timeout=timeout, call_monitor_timeout=monitor)
        return prepared.call(
            {"request_id": "req-1", "timestamp": now},
            "select_destinations",
            spec_obj=request_spec(**{"flavor": SMALL, **changes}),
            instance_uuids=[instance_uuid(number)],
            return_objects=True,
            return_alternates=True,
        )

    def ping(self, *, timeout: float = HANG_SECONDS) -> Any:
        return self.client.prepare(namespace="baseapi", version="1.0", timeout=timeout).call({}, "ping", arg="x")

    def until_answered(self) -> None:
        """Until calls are answered: a client whose queue is gone loses what it sends."""
        until(lambda: self._is_answered())

    def _is_answered(self) -> bool:
        try:
            return bool(self.ping(timeout=2))
        except oslo_messaging.MessagingTimeout:
            return False

    def close(self) -> None:
        self._transport.cleanup()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


@pytest.fixture
def conductor(broker: rabbit_broker.Broker) -> Iterator[Conductor]:
    made = Conductor(broker.url)
    yield made
    made.close()


class Calls:
    """Calls under way, each in a thread of its own. ``answered``: their numbers."""

    def __init__(self, conductor: Conductor, numbers: Iterable[int], **options: Any) -> None:
        self.numbers, self.answered, self.refused = list(numbers), set[int](), set[int]()

        def call(number: int) -> None:
            try:
                conductor.select(number, **options)
            except (oslo_messaging.MessagingTimeout, oslo_messaging.RemoteError):
                self.refused.add(number)
            else:
                self.answered.add(number)

        for number in self.numbers:
            threading.Thread(target=call, args=(number,), daemon=True).start()

    @property
    def open(self) -> list[int]:
        """Those that are not answered."""
        return [number for number in self.numbers if number not in self.answered]


@contextmanager
def cloud_in(folder: Path) -> Iterator[Cloud]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.openstack.clouds.MODERN", 72)  # 34's trait comes by the Placement API
        cloud = Cloud(folder)
        for number in (1, 2, 3):
            cloud.host(number, seen=time.time())
        yield cloud


def daemon_of(cloud: Cloud, url: str, folder: Path, *, more: str = "", **options: Any) -> Daemon:
    folder.mkdir()
    given = {"database": cloud.url("api"), "host": folder.name, "threads": THREADS, "poll_seconds": 0.2, **options}
    lines = "".join(f"{name} = {value!r}\n" for name, value in given.items())
    policy = folder / "nova.conf"
    policy.write_text("[DEFAULT]\nservice_down_time = 3600\n")  # the computes write no heartbeats
    config = f'policy = "{policy}"\n[nova]\n{lines}{more}'
    return Daemon(folder, "--nova", url, "--http", "127.0.0.1:0", config=config)


@pytest.fixture(scope="module")
def served(
    broker: rabbit_broker.Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cloud, Daemon, Conductor]]:
    """A service that is started before its broker is there, and then takes calls."""
    folder = tmp_path_factory.mktemp("served")
    with cloud_in(folder) as cloud:
        options: dict[str, Any] = {"services_database": cloud.url("cell"), "report_seconds": 0.2}
        with daemon_of(cloud, broker.url, folder / "a", **options) as daemon:
            with daemon.client() as client:
                assert [line.name for line in client.call("providers")] == ["cmp1", "cmp2", "cmp3"]
            assert "the bus does not answer yet" in daemon.log()
            broker.start()
            conductor = Conductor(broker.url)
            conductor.until_answered()
            yield cloud, daemon, conductor
            conductor.close()


def claimed(daemon: Daemon, numbers: Iterable[int]) -> dict[int, int]:
    """On how many providers guests hold something, for those that hold any."""
    with daemon.client() as client:
        held = {line.consumer: len(line.allocations) for line in client.call("allocations", {"limit": 1000})}
    return {number: held[instance_uuid(number)] for number in numbers if instance_uuid(number) in held}


def test_calls_refusals_and_pings_are_answered(served: tuple[Cloud, Daemon, Conductor]) -> None:
    _, daemon, conductor = served
    ((chosen, *alternates),) = conductor.select(1)
    nodes = {each["nova_object.data"]["nodename"] for each in (chosen, *alternates)}
    assert nodes == {"cmp1", "cmp2", "cmp3"}
    with pytest.raises(oslo_messaging.RemoteError) as refused:
        conductor.select(2, flavor=flavor(vcpus=999))
    assert refused.value.exc_type == "NoValidHost"
    assert str(refused.value.value).startswith("No valid host was found. Of 3 hosts, 3 without enough VCPU. ")
    assert conductor.ping() == {"service": "scheduler", "arg": "x"}
    measured = metrics(daemon)
    assert measured["hostler_nova_calls_total", "select_destinations", "no_valid_host"] == 1
    assert measured["hostler_nova_calls_total", "select_destinations", "ok"] == 1
    assert measured["hostler_nova_call_seconds_count", "select_destinations"] == 2
    assert measured["hostler_nova_consuming",] == 1
    assert ("hostler_nova_cell_age_seconds", "cell cell1") in measured


def test_fan_outs_and_heartbeats(served: tuple[Cloud, Daemon, Conductor]) -> None:
    cloud, daemon, conductor = served
    cloud.aggregate(1, "cmp2", availability_zone="z")
    conductor.client.prepare(version="4.1", fanout=True).cast({}, "update_aggregates", aggregates=[])
    until(lambda: zone_of(conductor, 3) == "cmp2")
    assert metrics(daemon)["hostler_nova_fan_outs_total", "update_aggregates"] == 1
    beats = cloud.rows(cloud.cell, "SELECT host, topic, version, report_count FROM services WHERE binary LIKE '%sch%'")
    assert [beat[:3] for beat in beats] == [("a", "scheduler", 72)]
    assert beats[0][3] > 1


def zone_of(conductor: Conductor, number: int) -> str:
    """The node for a guest of zone z, empty if there is none."""
    try:
        return str(conductor.select(number, availability_zone="z")[0][0]["nova_object.data"]["nodename"])
    except oslo_messaging.RemoteError:
        return ""


def test_a_call_whose_caller_has_given_up_claims_nothing(
    served: tuple[Cloud, Daemon, Conductor], broker: rabbit_broker.Broker
) -> None:
    _, daemon, conductor = served
    assert daemon.process is not None
    pid = daemon.process.pid
    os.kill(pid, signal.SIGSTOP)
    # The thread that takes the signal stops the others, once it has its turn of a busy processor.
    until(lambda: states_of(pid) == {"T"})
    calls = Calls(conductor, range(200, 212), timeout=1)
    until(lambda: len(calls.refused) == len(calls.numbers))
    # The broker counts a message's time from when it has it.
    until(lambda: queues(broker, "messages_ready")["scheduler"] == 0)
    os.kill(pid, signal.SIGCONT)
    assert conductor.select(299)
    assert len(claimed(daemon, calls.numbers)) <= THREADS, "what it had fetched before it was stopped"


def test_calls_that_waited_for_longer_than_their_callers_claim_nothing(
    served: tuple[Cloud, Daemon, Conductor], broker: rabbit_broker.Broker
) -> None:
    """Nova's conductor waits for a minute for a sign of the scheduler, and has its calls kept by the broker for half an
    hour. After a restart they are taken from the queue, and so is that of a conductor that is no more."""
    _, daemon, conductor = served
    daemon.kill()
    calls = Calls(conductor, range(250, 256), monitor=1)
    until(lambda: len(calls.refused) == len(calls.numbers))
    before, gone = queues(broker).keys(), Conductor(broker.url)
    last = Calls(gone, [256], timeout=600, monitor=60)
    waiting = Calls(conductor, [257], monitor=60)
    until(lambda: queues(broker)["scheduler"] == 8)
    (answers,) = queues(broker).keys() - before
    gone.close()
    broker.ctl("delete_queue", answers)  # as the broker does after half an hour without its reader
    daemon.start()
    until(lambda: bool(waiting.answered))
    assert conductor.select(258)
    assert claimed(daemon, [*calls.numbers, *last.numbers]) == {}
    assert claimed(daemon, [257, 258]) == {257: 1, 258: 1}
    assert metrics(daemon)["hostler_nova_calls_total", "select_destinations", "gave_up"] == 7


def states_of(pid: int) -> set[str]:
    """States of a process's threads, as in ps; T: stopped."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.add((task / "stat").read_text().rpartition(") ")[2][0])
    return found


def queues(broker: rabbit_broker.Broker, count: str = "messages") -> dict[str, int]:
    """Messages that wait with the broker, by queue, with those that were taken and are not done; ``messages_ready``:
    without these."""
    lines = [line.split() for line in broker.ctl("list_queues", "name", count).splitlines()]
    return {line[0]: int(line[1]) for line in lines if line[1].isdecimal()}


def test_a_call_that_is_given_back_comes_again_as_the_same_call(broker: rabbit_broker.Broker, served: object) -> None:
    from oslo_config import cfg

    from hostler.core.process.bus_metrics import BusMetrics
    from hostler.drivers.openstack.bus.server import GivenBack, current, rpc_server

    seen: list[str] = []

    class Endpoint:
        @oslo_messaging.expected_exceptions(GivenBack)  # type: ignore[untyped-decorator]  # oslo.messaging is not typed
        def ask(self, context: Any, number: int) -> list[Any]:
            seen.append(current.id)
            if len(seen) == 1:
                raise GivenBack
            return [context["request_id"], number]

    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=broker.url)
    target = oslo_messaging.Target(exchange="nova", topic="given-back", server="s")
    server = rpc_server(transport, target, [Endpoint()], limit=2, metrics=BusMetrics(), seconds=60.0)
    server.begin()
    caller = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(exchange="nova", topic="given-back"), timeout=HANG_SECONDS
    )
    assert caller.call({"request_id": "req-7"}, "ask", number=3) == ["req-7", 3]
    assert len(seen) == 2
    assert seen[0] == seen[1] != ""
    server.end()
    transport.cleanup()


def test_calls_are_answered_again_after_a_restart_of_the_broker(
    served: tuple[Cloud, Daemon, Conductor], broker: rabbit_broker.Broker
) -> None:
    _, daemon, conductor = served
    before = metrics(daemon)["hostler_nova_reconnects_total",]
    broker.restart()
    conductor.until_answered()
    assert conductor.select(300)
    measured = metrics(daemon)
    assert measured["hostler_nova_connection_failures_total",] >= 1
    assert measured["hostler_nova_reconnects_total",] > before


def test_calls_outlive_schedulers_that_are_stopped_and_killed(
    served: tuple[Cloud, Daemon, Conductor], broker: rabbit_broker.Broker, tmp_path: Path
) -> None:
    """Two schedulers take calls. One is stopped gracefully: no call is lost. The other is killed: at most the calls in
    its hands are lost, a repeated call replaces what was claimed for it, and no instance holds two hosts."""
    cloud, first, conductor = served
    with daemon_of(cloud, broker.url, tmp_path / "b") as second:
        calls = Calls(conductor, range(400, 425))
        until(lambda: len(calls.answered) > 3)
        assert second.terminate() == 0
        until(lambda: len(calls.answered) + len(calls.refused) == len(calls.numbers))
        assert not calls.open
    calls = Calls(conductor, range(500, 525))
    until(lambda: len(calls.answered) > 3)
    first.restart()
    bound = 2 * THREADS + 1
    until(lambda: len(calls.open) <= bound)
    for number in calls.open:
        assert conductor.select(number)
    assert claimed(first, calls.numbers) == dict.fromkeys(calls.numbers, 1)
    assert first.terminate() == 0


class Members:
    """Two members of a cluster, each of which would take calls."""

    def __init__(self, cloud: Cloud, url: str, folder: Path, etcd: EtcdServers) -> None:
        store = f'[data]\nstore = "etcd"\n[data.etcd]\nendpoints = ["{etcd.endpoints[0]}"]\n'
        self.daemons = {
            name: daemon_of(cloud, url, folder / name, more=f'{store}[cluster]\nname = "{name}"\nlease_seconds = 1\n')
            for name in ("m1", "m2")
        }

    def leader(self) -> Daemon:
        """The one that takes calls, once one does and the other does not."""
        found: list[Daemon] = []

        def one_does() -> bool:
            alive = [each for each in self.daemons.values() if each.process is not None and each.process.poll() is None]
            found[:] = [each for each in alive if metrics(each)["hostler_nova_consuming",]]
            return len(found) == 1

        until(one_does)
        return found[0]


@pytest.fixture
def members(broker: rabbit_broker.Broker, served: object, tmp_path: Path) -> Iterator[Members]:
    """Two that run, on a broker from which the other service of this file is gone."""
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    (tmp_path / "cloud").mkdir()
    (tmp_path / "etcd").mkdir()
    with ExitStack() as stack:
        cloud = stack.enter_context(cloud_in(tmp_path / "cloud"))
        etcd = stack.enter_context(EtcdServers(tmp_path / "etcd", 1, election_ms=500))
        made = Members(cloud, broker.url, tmp_path, etcd)
        for daemon in made.daemons.values():
            stack.enter_context(daemon)
        yield made


def test_the_member_that_leads_takes_calls_and_a_hand_over_loses_none(
    members: Members, served: tuple[Cloud, Daemon, Conductor]
) -> None:
    """Another member is told to lead while calls are under way, and then the leader is killed. The first loses no call;
    those that the second had taken are left to their callers. No guest holds two hosts."""
    _, other, conductor = served
    if other.process is not None and other.process.poll() is None:
        other.kill()
    leader = members.leader()
    calls = Calls(conductor, range(600, 640))
    until(lambda: len(calls.answered) > 3)
    with leader.client() as client:
        client.call("lead", {})
    until(lambda: len(calls.answered) + len(calls.refused) == len(calls.numbers))
    assert not calls.open
    successor = members.leader()
    assert successor is not leader
    assert claimed(successor, calls.numbers) == dict.fromkeys(calls.numbers, 1)
    calls = Calls(conductor, range(700, 725))
    until(lambda: len(calls.answered) > 3)
    successor.kill()
    until(lambda: len(calls.open) <= 2 * THREADS + 1)
    for number in calls.open:
        assert conductor.select(number)
    assert members.leader() is leader
    assert claimed(leader, calls.numbers) == dict.fromkeys(calls.numbers, 1)
