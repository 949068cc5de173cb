"""Several members on real etcd servers: followers, take-overs, hand-overs, and members that have slept or were away."""

from __future__ import annotations

import json
import secrets
import signal
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hostler.core.cli import main
from hostler.core.errors import LeadershipLost, NotLeader, TooStale
from hostler.core.rpc.addresses import Address
from hostler.placement.types.errors import HostlerError, InvalidValue

from ..daemon.processes import http_of, metrics
from ..etcd.servers import NEEDS_ETCD, EtcdServers
from ..patience import HANG_SECONDS
from .members import Members, running, until

pytestmark = [NEEDS_ETCD, pytest.mark.xdist_group("etcd")]


def host(name: str) -> dict[str, object]:
    return {"host": name, "vcpus_total": 64, "total_usable_ram_mb": 262_144, "total_usable_disk_gb": 4_000}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServers]:
    with EtcdServers(tmp_path_factory.mktemp("etcd")) as servers:
        yield servers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServers) -> Iterator[Members]:
    with running(Members(tmp_path_factory.mktemp("pair"), etcd)) as both:
        yield both


@pytest.fixture
def members(pair: Members) -> Members:
    """Two members that run and agree, without hosts."""
    for daemon in pair.daemons.values():
        if daemon.process is None or daemon.process.poll() is not None:
            daemon.start()
    until(lambda: all(line.alive for line in pair.lines()))
    left = names(pair, pair.leader())
    with pair.client() as client:
        for each in left:
            client.call("remove_host", {"name": each})
    pair.settle()
    return pair


class Load:
    """A client that adds hosts one after the other, and what was acknowledged to it."""

    def __init__(self, members: Members) -> None:
        self.acknowledged: list[str] = []
        self.errors: list[HostlerError] = []
        self.longest = 0.0
        self._stop, self._client = threading.Event(), members.client(within=30)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number, last = 0, time.monotonic()
        while not self._stop.is_set():
            number += 1
            try:
                self._client.call("add_hosts", {"hosts": [host(f"h{number:05d}")]})
                self.acknowledged.append(f"h{number:05d}")
            except HostlerError as error:
                self.errors.append(error)
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    def __enter__(self) -> Load:
        self._thread.start()
        until(lambda: len(self.acknowledged) > 5)
        return self

    def __exit__(self, *_: object) -> None:
        before = len(self.acknowledged)
        try:
            until(lambda: len(self.acknowledged) > before + 5 or self.errors)
        finally:
            self._stop.set()
            self._thread.join()
            self._client.close()


def names(members: Members, name: str) -> list[str]:
    """The hosts that a member knows, sorted."""
    with members.daemons[name].client() as client:
        found: list[str] = []
        while page := client.call("hosts", {"limit": 1_000, "after": found[-1] if found else None}):
            found += [line.node for line in page]
        return sorted(found)


def other(name: str) -> str:
    return {"a": "b", "b": "a"}[name]


def test_a_follower_answers_questions_and_names_the_leader_for_commands(members: Members) -> None:
    leader = members.leader()
    follower = other(leader)
    with members.daemons[leader].client() as client:
        client.call("add_hosts", {"hosts": [host("h1")]})
    members.settle()
    assert names(members, follower) == ["h1"]
    with members.daemons[follower].client() as client:
        status = client.call("status")
        assert (status.role, status.ready) == ("follower", False)
        assert status.leader == (members.daemons[leader].address,)
        (result,) = client.pipeline([("remove_host", {"name": "h1"})])
        assert isinstance(result, NotLeader)
        assert list(result.leader) == [members.daemons[leader].address]
        client.call("remove_host", {"name": "h1"})  # which goes to the leader
    members.settle()
    assert names(members, follower) == []


def test_readiness_and_metrics_tell_which_member_takes_commands(members: Members) -> None:
    leader = members.leader()
    for name, code in ((leader, 200), (other(leader), 503)):
        base = http_of(members.daemons[name])
        assert httpx.get(f"{base}/readyz").status_code == code
        assert httpx.get(f"{base}/readyz/questions").status_code == 200
        measured = metrics(members.daemons[name])
        assert measured["hostler_cluster_role", "leader"] == (name == leader)
        assert measured["hostler_cluster_behind_seconds",] < 2


def test_nothing_that_was_acknowledged_is_lost_when_the_leader_is_killed(members: Members) -> None:
    with Load(members) as load:
        killed = members.leader()
        members.daemons[killed].kill()
    assert load.errors == []
    assert members.leader() == other(killed)
    assert names(members, other(killed)) == load.acknowledged
    members.daemons[killed].start()
    members.settle()
    assert names(members, killed) == load.acknowledged


def test_a_leader_that_is_killed_is_followed_at_once_however_long_its_lease_is(
    tmp_path: Path, etcd: EtcdServers
) -> None:
    with running(Members(tmp_path, etcd, more="lease_seconds = 600")) as both:
        until(lambda: all(line.alive for line in both.lines()))
        killed = both.leader()
        both.daemons[killed].kill()
        assert both.leader(among=[other(killed)]) == other(killed)
        both.daemons[killed].start()  # its name is free again, too
        until(lambda: all(line.alive for line in both.lines()))


def test_a_leader_that_sleeps_longer_than_its_lease_writes_nothing_afterwards(members: Members) -> None:
    asleep = members.leader()
    with members.daemons[asleep].client(within=30) as client:
        client.call("add_hosts", {"hosts": [host("h0")]})
        members.signal(asleep, signal.SIGSTOP)
        failed: list[object] = []

        def write() -> None:
            failed.extend(client.pipeline([("add_hosts", {"hosts": [host("late")]})]))

        thread = threading.Thread(target=write)
        thread.start()
        until(lambda: members.leader(among=[other(asleep)]))
        with members.daemons[other(asleep)].client() as new:
            new.call("add_hosts", {"hosts": [host("h1")]})
        members.signal(asleep, signal.SIGCONT)
        thread.join()
    assert len(failed) == 1
    assert isinstance(failed[0], NotLeader | LeadershipLost)
    members.settle()
    assert names(members, asleep) == names(members, other(asleep)) == ["h0", "h1"]


def test_a_planned_hand_over_fails_no_command(members: Members) -> None:
    with Load(members) as load, members.client() as client:
        for _ in range(3):
            before = members.leader()
            until(lambda: all(line.alive for line in members.lines()))
            assert client.call("lead") == other(before)
            assert members.leader() == other(before)
    assert load.errors == []
    members.settle()
    assert names(members, "a") == names(members, "b") == load.acknowledged


def test_a_leader_that_is_terminated_hands_over_first(members: Members) -> None:
    with Load(members) as load:
        leader = members.leader()
        assert members.daemons[leader].terminate() == 0
    assert load.errors == []
    assert "handing over" in members.daemons[leader].log()
    assert names(members, other(leader)) == load.acknowledged


def test_a_key_is_answered_by_the_next_leader_as_by_the_last(members: Members) -> None:
    leader = members.leader()
    with members.client() as client:
        first = client.call("add_hosts", {"hosts": [host("h1")]}, key="k1")
        members.daemons[leader].kill()
        assert client.call("add_hosts", {"hosts": [host("h1")]}, key="k1") == first
    assert names(members, other(leader)) == ["h1"]


def test_events_go_on_at_the_next_leader_without_a_gap(members: Members) -> None:
    with members.client() as watcher, members.client() as client:
        first = watcher.call("watch", {"kinds": ["changes"]}) + 1
        client.call("add_hosts", {"hosts": [host("h1")]})
        assert [event.sequence for event in watcher.events(1)] == [first]
        members.daemons[members.leader()].kill()
        client.call("add_hosts", {"hosts": [host("h2")]})
        client.call("add_hosts", {"hosts": [host("h3")]})
        seen = until(lambda: [event.sequence for event in watcher.events(2)])
        assert seen == [first + 1, first + 2]


def test_operators_see_all_members_and_have_one_of_them_lead(
    members: Members, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOSTLER_SERVER", ",".join(members.addresses))
    until(lambda: all(line.behind == 0 for line in members.lines()))  # by the last reports, of each two seconds

    def commanded(*words: str, code: int = 0) -> str:
        assert (main(words) or 0) == code
        said = capsys.readouterr()
        return said.out + said.err

    until(lambda: all(line.alive for line in members.lines()))
    leader = members.leader()
    follower = other(leader)
    (line,) = [line for line in commanded("members").splitlines() if f" {leader} " in f" {line} "]
    assert "leader" in line
    lines = json.loads(commanded("members", "--json"))
    assert {line["name"]: (line["role"], line["alive"], line["behind"]) for line in lines} == {
        leader: ("leader", True, 0),
        follower: ("follower", True, 0),
    }
    before = metrics(members.daemons[follower])
    assert commanded("lead", "--to", follower) == f"{follower} takes over\n"
    assert members.leader() == follower
    measured = metrics(members.daemons[follower])
    assert measured["hostler_cluster_elections_total",] == before["hostler_cluster_elections_total",] + 1
    assert measured["hostler_cluster_term",] > before["hostler_cluster_term",]
    assert measured["hostler_cluster_takeover_seconds",] < HANG_SECONDS
    assert measured["hostler_cluster_behind_commands",] == 0
    assert "no_such_member" in commanded("lead", "--to", "no_such_member", code=1)


def test_a_question_may_demand_how_old_its_answer_is_at_most(members: Members) -> None:
    follower = other(members.leader())
    with members.daemons[follower].client() as client:
        assert client.call("hosts", {}, stale_ms=60_000) == []
        assert client.address == Address.parse(members.daemons[follower].address)
        number, data = client._wire.call("hosts", {}, {"stale_ms": 0})
        answer = client._run(client._transfer([(number, data)], client._deadline(None)))[number]
        assert isinstance(answer.error, TooStale)
        assert list(answer.error.leader) == [members.daemons[members.leader()].address]
        assert client.call("hosts", {}, stale_ms=0) == []  # of the leader, which the error has named
        assert client.address == Address.parse(members.daemons[members.leader()].address)
        with pytest.raises(InvalidValue, match="no question"):
            client.call("remove_host", {"name": "h1"}, stale_ms=0)


def test_commands_go_on_when_the_leader_of_etcd_is_killed(members: Members, etcd: EtcdServers) -> None:
    with Load(members) as load:
        killed = etcd.leader()
        etcd.kill(killed)
        before = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > before + 10)
        etcd.start(killed)
        etcd.wait(killed)
    assert load.errors == []
    members.settle()
    assert names(members, "a") == names(members, "b") == load.acknowledged


def test_without_a_quorum_of_etcd_all_members_answer_questions_only_and_go_on_by_themselves(
    members: Members, etcd: EtcdServers
) -> None:
    leader = members.leader()
    with members.daemons[leader].client() as client:
        client.call("add_hosts", {"hosts": [host("before")]})
    members.settle()
    for number in (1, 2):
        etcd.pause(number)  # connections stay, and nothing answers
    try:
        for daemon in members.daemons.values():  # all: who leads yet would be asked in place of one that is behind
            with daemon.client() as client:
                until(lambda: client.call("status").role == "follower")
                until(lambda: client.call("status").behind_ms > 1_000)
        for name, daemon in members.daemons.items():
            with daemon.client() as client:
                (refused,) = client.pipeline([("add_hosts", {"hosts": [host("meanwhile")]})])
                assert isinstance(refused, NotLeader)
                assert names(members, name) == ["before"]
                with pytest.raises(TooStale):
                    client.call("hosts", {}, stale_ms=500, within=1)
            assert httpx.get(f"{http_of(daemon)}/readyz").status_code == 503
            assert metrics(daemon)["hostler_cluster_role", "leader"] == 0
    finally:
        for number in (1, 2):
            etcd.resume(number)
    with members.client() as client:
        client.call("add_hosts", {"hosts": [host("later")]})
    members.settle()
    assert names(members, "a") == names(members, "b") == ["before", "later"]


def test_a_member_that_was_long_gone_fetches_a_snapshot_of_another(tmp_path: Path, etcd: EtcdServers) -> None:
    more = "forget_seconds = 2\ncompact_seconds = 1"
    with running(Members(tmp_path, etcd, more=more, rest="[rpc]\nauth = 'none'")) as both:
        until(lambda: all(line.alive for line in both.lines()))
        gone = other(both.leader())
        both.daemons[gone].kill()
        with both.client() as client:
            client.call("add_hosts", {"hosts": [host(f"h{number}") for number in range(50)]})
            snapshot = client.call("snapshot")
            until(lambda: _oldest_block(etcd, tmp_path.name) > snapshot)
            client.call("add_hosts", {"hosts": [host("after")]})
        both.daemons[gone].start()
        both.settle()
        assert "fetching snapshot" in both.daemons[gone].log()
        assert names(both, gone) == names(both, other(gone))
        assert len(names(both, gone)) == 51


def _oldest_block(etcd: EtcdServers, prefix: str) -> float:
    start = f"/{prefix}/blocks/".encode()
    body = {"key": b64encode(start).decode(), "range_end": b64encode(start[:-1] + b"0").decode(), "limit": 1}
    kvs = etcd.ask("/v3/kv/range", body).get("kvs", [])
    assert isinstance(kvs, list)
    return int(b64decode(kvs[0]["key"]).rpartition(b"/")[2]) if kvs else float("inf")


def test_what_etcd_holds_stays_bounded(tmp_path: Path, etcd: EtcdServers) -> None:
    bound = 20_000
    with running(Members(tmp_path, etcd, more=f"snapshot_bytes = {bound}\ncompact_seconds = 1")) as both:
        until(lambda: all(line.alive for line in both.lines()))
        with both.client() as client:
            for number in range(30):
                names = [f"{number}-{secrets.token_hex(20)}" for _ in range(20)]
                client.call("add_hosts", {"hosts": [host(name) for name in names]})
                for name in names:
                    client.call("remove_host", {"name": name})
            until(lambda: _oldest_block(etcd, tmp_path.name) > 1)
            until(lambda: _block_bytes(etcd, tmp_path.name) < 2 * bound)
        both.settle()


def _block_bytes(etcd: EtcdServers, prefix: str) -> int:
    """Of all blocks that are in etcd."""
    start = f"/{prefix}/blocks/".encode()
    body = {"key": b64encode(start).decode(), "range_end": b64encode(start[:-1] + b"0").decode()}
    kvs = etcd.ask("/v3/kv/range", body).get("kvs", [])
    assert isinstance(kvs, list)
    return sum(len(each["value"]) * 3 // 4 for each in kvs)


def test_a_full_etcd_refuses_commands_until_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    with (
        EtcdServers(tmp_path / "etcd", 1, quota=6 << 20) as servers,
        running(Members(tmp_path, servers, 1)) as one,
        one.client() as client,
    ):
        client.call("add_hosts", {"hosts": [host("h0")]})
        _fill(servers)
        with pytest.raises(HostlerError) as caught:
            client.call("add_hosts", {"hosts": [host("h1")]}, within=3)
        assert caught.value.code == "storage_failed"
        assert [line.node for line in client.call("hosts")] == ["h0"]
        _make_room(servers)
        until(lambda: client.call("status").ready)
        client.call("add_hosts", {"hosts": [host("h2")]})
        assert [line.node for line in client.call("hosts")] == ["h0", "h2"]


def _fill(servers: EtcdServers) -> None:
    for number in range(40):
        key, value = b64encode(b"fill%d" % number).decode(), b64encode(bytes(400_000)).decode()
        if "error" in servers.ask("/v3/kv/put", {"key": key, "value": value}):
            return
    raise AssertionError("it did not become full")


def _make_room(servers: EtcdServers) -> None:
    ends = {"key": b64encode(b"fill").decode(), "range_end": b64encode(b"film").decode()}
    found: object = servers.ask("/v3/kv/deleterange", ends)["header"]
    assert isinstance(found, dict)
    servers.ask("/v3/kv/compaction", {"revision": found["revision"], "physical": True})
    servers.ask("/v3/maintenance/defragment", {})
    alarms = servers.ask("/v3/maintenance/alarm", {"action": "GET"}).get("alarms", [])
    assert isinstance(alarms, list)
    for alarm in alarms:
        servers.ask("/v3/maintenance/alarm", {"action": "DEACTIVATE"} | alarm)


def test_a_member_alone_stops_when_told_and_leads_again_at_once(tmp_path: Path, etcd: EtcdServers) -> None:
    with running(Members(tmp_path, etcd, 1, more="lease_seconds = 60")) as one, one.client() as client:
        client.call("add_hosts", {"hosts": [host("h0")]})
        assert one.daemons["a"].terminate() == 0
        one.daemons["a"].start()
        client.call("add_hosts", {"hosts": [host("h1")]})
        assert names(one, "a") == ["h0", "h1"]


def test_members_compare_digests_and_agree(tmp_path: Path, etcd: EtcdServers) -> None:
    with running(Members(tmp_path, etcd, more="digest_every = 5")) as both:
        until(lambda: all(line.alive for line in both.lines()))
        follower = both.daemons[other(both.leader())]
        compared = ("hostler_cluster_digests_compared_total",)
        before = metrics(follower)[compared]
        with both.client() as client:
            for number in range(20):
                client.call("add_hosts", {"hosts": [host(f"h{number}")]})
        until(lambda: metrics(follower)[compared] > before)
        assert metrics(follower)["hostler_cluster_differences",] == 0
        assert both.settle() == 20


def test_a_second_process_of_the_same_name_ends_and_says_why(tmp_path: Path, etcd: EtcdServers) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other" / "one").mkdir(parents=True)
    with running(Members(tmp_path / "one", etcd, 1)) as one:
        second = Members(tmp_path / "other" / "one", etcd, 1)  # with the same prefix and name
        with running(second):
            process = second.daemons["a"].process
            assert process is not None
            assert process.wait(HANG_SECONDS) != 0
            log = second.daemons["a"].log()
            assert "\nhostler: another process is member a of the cluster" in log
            assert "Traceback" not in log
        assert one.leader() == "a"
