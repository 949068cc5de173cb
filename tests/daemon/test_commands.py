"""The command line against a daemon: what operators type, what they read, and the exit codes that programs read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.orders import uuid_of

from .commands import Run
from .processes import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), config="[data]\nkeep_history = true\n") as started:
        yield started


@pytest.fixture(scope="module")
def fleet(daemon: Daemon) -> Path:
    """Three hosts, added from a file."""
    file = daemon.folder / "hosts.json"
    sizes = {"vcpus_total": 8, "total_usable_ram_mb": 32_768, "total_usable_disk_gb": 100}
    file.write_text(json.dumps([{"host": f"node-{number}", **sizes} for number in range(3)]))
    with daemon.client() as client:
        client.call("add_hosts", {"hosts": json.loads(file.read_text())})
    return file


def test_hosts_are_listed_shown_disabled_and_enabled(run: Run, fleet: Path) -> None:
    code, said = run("host", "list")
    assert code == 0
    assert "node-2" in said
    assert run("host", "disable", "node-2", "--reason", "disk") == (0, "node-2 disabled\n")
    shown = run("host", "show", "node-2")[1]
    assert "disk" in shown
    assert "MEMORY_MB" in shown
    assert run("host", "enable", "node-2")[0] == 0
    assert json.loads(run("host", "show", "node-2", "--json")[1])["line"]["disabled"] is False


def test_hosts_are_added_from_a_file_and_removed(run: Run, fleet: Path, tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    file.write_text('[{"host": "extra", "vcpus_total": 1, "total_usable_ram_mb": 1}]')
    assert run("host", "add", str(file)) == (0, "1 host added\n")
    code, said = run("host", "add", str(file))
    assert code == 1
    assert "extra" in said
    assert run("host", "remove", "extra")[0] == 0
    file.write_text('[{"host": "extra", "cpus": 1}]')
    code, said = run("host", "add", str(file))
    assert (code, "hosts[0].cpus" in said) == (1, True)


def test_a_guest_is_placed_explained_moved_and_released(run: Run, fleet: Path) -> None:
    code, said = run("place", "--vcpus", "2", "--memory-mb", "2048", "--uuid", uuid_of(1), "--project", "p1")
    assert code == 0
    assert "node-" in said
    where = json.loads(run("place", "--uuid", uuid_of(2), "--json")[1])["selections"][0]["node"]
    assert run("move", uuid_of(2))[0] == 0
    assert json.loads(run("usage", "project:p1", "--json")[1])["used"]["VCPU"] == 2
    assert "MEMORY_MB" in run("usage")[1]
    assert run("usage", "project:of-nobody") == (0, "project:of-nobody uses nothing and has no limits\n")
    assert "'p1' is not a scope (use domain:ID or project:ID)" in run("usage", "p1")[1]
    assert "unknown domain 'of-nobody'" in run("usage", "domain:of-nobody")[1]
    assert where in run("explain", "--vcpus", "2")[1]
    assert run("release", uuid_of(1), uuid_of(2)) == (0, "2 released\n")


def test_what_no_host_can_take_has_an_exit_code_of_its_own(run: Run, fleet: Path) -> None:
    code, said = run("place", "--vcpus", "4000")
    assert code == 3
    assert "No valid host was found" in said
    assert "4000" in run("explain", "--vcpus", "4000")[1]


def test_what_if_tries_another_policy_and_fewer_hosts(run: Run, fleet: Path, tmp_path: Path) -> None:
    assert run("what-if", "--without", "node-0", "--without", "node-1", "--without", "node-2")[0] == 3
    policy = tmp_path / "policy.toml"
    policy.write_text("[filter_scheduler]\nram_weight_multiplier = -1.0\n")
    assert run("what-if", "--policy", str(policy))[0] == 0
    assert "more fit" in run("fits", "--vcpus", "4")[1]
    policy.write_text("nonsense")
    assert run("what-if", "--policy", str(policy))[0] == 1


def test_tenants_pools_quotas_and_tokens(run: Run, fleet: Path) -> None:
    for words in (
        ("domain", "create", "acme"),
        ("project", "create", "web", "--domain", "acme"),
        ("user", "create", "ann", "ann.example", "--domain", "acme"),
        ("user", "grant", "ann", "member", "project:web"),
        ("quota", "set", "project:web", "instances=1", "VCPU=4"),
        ("pool", "create", "gold", "node-1", "--exclusive"),
        ("pool", "grant", "gold", "project:web"),
    ):
        assert run(*words)[0] == 0, words
    assert "acme" in run("domain", "list")[1]
    assert "web" in run("project", "list")[1]
    assert "member of project:web" in run("user", "list")[1]
    assert "node-1" in run("pool", "list")[1]
    token = run("token", "create", "ann")[1].strip()
    code, said = run("place", "--project", "web", "--uuid", uuid_of(5), "--token", token)
    assert (code, "node-1" in said) == (0, True)
    code, said = run("place", "--project", "web")
    assert (code, "may have 1 instances" in said) == (1, True)
    assert "4" in run("quota", "show", "project:web")[1]
    (line,) = json.loads(run("token", "list", "ann", "--json")[1])
    assert set(line) == {"id", "user", "expires"}
    assert run("token", "revoke", line["id"])[0] == 0
    assert run("release", uuid_of(5))[0] == 0
    for words in (("pool", "ungrant", "gold", "project:web"), ("pool", "delete", "gold"), ("user", "delete", "ann")):
        assert run(*words)[0] == 0, words
    assert run("quota", "set", "project:web", "nonsense")[0] == 1


def test_watching_ends_when_nothing_happens(run: Run, fleet: Path) -> None:
    code, said = run("watch", "--seconds", "0.1", "--json")
    assert (code, said) == (0, "")


def test_top_shows_the_fullest_hosts(run: Run, fleet: Path) -> None:
    assert "node-0" in run("top", "--times", "1")[1]
    assert json.loads(run("top", "--times", "1", "--json")[1])["status"]["ready"] is True


def test_a_snapshot_is_taken(run: Run, daemon: Daemon, fleet: Path) -> None:
    code, said = run("snapshot")
    assert code == 0
    assert list((daemon.folder / "data").glob("snapshot-*")), said


def test_history_is_replayed_under_another_policy(run: Run, daemon: Daemon, fleet: Path, tmp_path: Path) -> None:
    for number in range(10, 16):
        run("place", "--memory-mb", "4096", "--uuid", uuid_of(number))
    policy = tmp_path / "policy.toml"
    policy.write_text("[filter_scheduler]\nram_weight_multiplier = -5.0\n")
    found: dict[str, Any] = json.loads(run("replay", str(daemon.folder / "data"), "--policy", str(policy), "--json")[1])
    assert found["first"] == 1
    assert found["placed_then"] == found["placed_now"] >= 6
    assert found["elsewhere"] > 0
    assert {"sequence", "instance", "was", "would_be"} == set(found["differences"][0])
    same = json.loads(run("replay", str(daemon.folder / "data"), "--json")[1])
    assert same["placed_then"] == found["placed_then"]
    assert "elsewhere" in run("replay", str(daemon.folder / "data"), "--policy", str(policy))[1]


def test_a_service_that_is_not_there_is_an_error_in_words(run: Run) -> None:
    code, said = run("host", "list", "--server", "unix:/nowhere", "--within", "0.1")
    assert code == 4
    assert "no connection to unix:/nowhere" in said
    assert run("host", "list", "--server", "unix:/nowhere")[0] == 4


def test_a_guest_is_resized_and_moved_or_stays_where_there_is_no_room(run: Run, fleet: Path) -> None:
    uuid = uuid_of(40)
    assert run("place", "--uuid", uuid, "--memory-mb", "1024")[0] == 0
    code, said = run("resize", uuid, "--vcpus", "2", "--memory-mb", "2048", "--json")
    assert (code, json.loads(said)["selections"][0]["instance_uuid"]) == (0, uuid)
    before = json.loads(run("host", "list", "--json")[1])
    code, said = run("resize", uuid, "--vcpus", "99")
    assert (code, "No valid host" in said) == (3, True)
    assert json.loads(run("host", "list", "--json")[1]) == before
    assert run("move", uuid, "--vcpus", "2", "--memory-mb", "2048")[0] == 0
    assert run("release", uuid)[0] == 0


def test_a_move_that_is_under_way_is_listed_with_the_time_at_which_it_began(run: Run, fleet: Path) -> None:
    guest = uuid_of(880)
    assert run("place", "--uuid", guest)[0] == 0
    assert run("move", "begin", guest, "--expires-in", "3600")[0] == 0
    assert len(re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d\+00:00", run("move", "list")[1])) == 2
    assert run("move", "revert", guest)[0] == 0
    assert run("release", guest)[0] == 0


def test_who_may_not_and_whose_token_is_no_good_is_told_so_by_exit_code_5(run: Run, fleet: Path) -> None:
    assert run("domain", "create", "north")[0] == 0
    assert run("user", "create", "eve", "--domain", "north")[0] == 0
    token = run("token", "create", "eve")[1].strip()
    expired = run("token", "create", "eve", "--days", "0.000001")[1].strip()
    time.sleep(0.3)
    for shown, said in (
        (token, "user eve does not have the role reader in cloud"),
        (expired, "the token is wrong, expired or revoked"),
        ("hst_no_such", "the token is wrong, expired or revoked"),
        ("nonsense", "the token is wrong, expired or revoked"),
    ):
        code, answer = run("host", "list", "--token", shown)
        assert (code, answer.count("\n"), said in answer) == (5, 1, True), answer


def test_programs_get_errors_as_objects(run: Run, fleet: Path) -> None:
    code, said = run("host", "show", "nobody", "--json")
    assert (code, json.loads(said)["error"]["code"], json.loads(said)["error"]["field"]) == (1, "unknown_name", "name")


def test_what_was_is_watched_from_a_command_on(run: Run, fleet: Path) -> None:
    assert run("place", "--uuid", uuid_of(41))[0] == 0
    sequence = json.loads(run("top", "--times", "1", "--json")[1])["status"]["sequence"]
    code, said = run("watch", "decisions", "--after", str(sequence - 1), "--seconds", "2", "--json")
    (event,) = map(json.loads, said.splitlines())
    assert (code, event["sequence"], list(event["hosts"])) == (0, sequence, [uuid_of(41)])
    assert run("release", uuid_of(41))[0] == 0


def test_a_long_list_says_that_there_is_more(run: Run, fleet: Path) -> None:
    said = run("host", "list", "--limit", "2")[1]
    assert said.splitlines()[-1] == "there may be more: --after node-1"
    assert "node-2" in run("host", "list", "--after", "node-1")[1]


def test_a_server_group_is_created_joined_listed_and_deleted(run: Run, fleet: Path) -> None:
    group = uuid_of(600)
    assert run("server-group", "create", "anti-affinity", "--uuid", group.upper())[0] == 0
    for number in (601, 602):
        assert run("place", "--uuid", uuid_of(number), "--group", group)[0] == 0
    (line,) = json.loads(run("server-group", "list", "--json")[1])
    assert (line["uuid"], line["policy"], line["members"]) == (group, "anti-affinity", 2)
    assert len({each["node"] for each in json.loads(run("guest", "list", "--group", group, "--json")[1])}) == 2
    assert run("server-group", "delete", group)[0] == 0
    assert run("server-group", "list") == (0, "none\n")
    assert run("release", uuid_of(601), uuid_of(602))[0] == 0
    code, said = run("place", "--group", group)
    assert code == 1
    assert "add it first" in said


def test_providers_aggregates_and_allocations_are_kept_by_hand(run: Run, fleet: Path) -> None:
    assert run("provider", "add", "card", "--parent", "node-1", "--trait", "CUSTOM_CARD")[0] == 0
    assert run("provider", "inventory", "card", "VGPU", "4", "--reserved", "1")[0] == 0
    assert run("provider", "inventory", "card", "VGPU", "8") == (0, "VGPU of card: 8\n")
    shown = json.loads(run("provider", "show", "card", "--json")[1])
    assert shown["inventories"]["VGPU"] | {"max_unit": 0} == {
        "total": 8, "reserved": 1, "min_unit": 1, "max_unit": 0, "step_size": 1, "allocation_ratio": 1.0,
    }  # fmt: skip
    assert "0/7" in run("provider", "list", "--under", "node-1")[1]
    assert run("aggregate", "create", "rack", "node-1", "--zone", "z1", "--property", "a=b")[0] == 0
    assert run("aggregate", "set", "rack", "--rename", "row", "--zone", "z2", "--property", "a=")[0] == 0
    assert run("aggregate", "add", "row", "card")[0] == 0
    found = json.loads(run("aggregate", "show", "row", "--json")[1])
    assert (found["metadata"], found["providers"]) == ({"availability_zone": "z2"}, ["card", "node-1"])
    assert run("place", "--uuid", uuid_of(77), "--zone", "z2")[0] == 0
    assert "node-1" in run("allocation", "list", "--provider", "node-1")[1]
    assert run("allocation", "remove", uuid_of(77))[0] == 0
    assert "has 2 hosts" in run("aggregate", "delete", "row")[1]
    assert run("aggregate", "remove", "row", "card", "node-1")[0] == 0
    assert run("aggregate", "delete", "row") == (0, "aggregate row deleted\n")
    assert "row" not in run("aggregate", "list")[1]
    assert run("provider", "inventory", "card", "VGPU", "0")[0] == 0
    assert run("provider", "remove", "card") == (0, "provider card removed\n")
    assert run("aggregate", "show", "nowhere")[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("host", "list"),
        ("host", "show", "node-0"),
        ("explain",),
        ("explain", "--vcpus", "99"),
        ("what-if", "--without", "node-0"),
        ("fits",),
        ("usage",),
        ("project", "list"),
        ("user", "list"),
        ("domain", "list"),
        ("provider", "list"),
        ("provider", "show", "node-0"),
        ("aggregate", "list"),
        ("server-group", "list"),
        ("allocation", "list"),
        ("top", "--times", "1"),
        ("snapshot",),
    ],
    ids=" ".join,
)
def test_every_question_has_its_answer_as_json(run: Run, fleet: Path, words: tuple[str, ...]) -> None:
    code, said = run(*words, "--json")
    assert code == 0, said
    json.loads(said)


def test_every_command_has_its_answer_as_json(run: Run, fleet: Path) -> None:
    """Each needs what those before it made, so they are one test."""
    for words in (
        ("host", "disable", "node-2"),
        ("host", "enable", "node-2"),
        ("place", "--uuid", uuid_of(50)),
        ("resize", uuid_of(50), "--vcpus", "2"),
        ("move", uuid_of(50), "--vcpus", "2"),
        ("release", uuid_of(50)),
        ("domain", "create", "json"),
        ("project", "create", "json", "--domain", "json"),
        ("user", "create", "json", "--domain", "json"),
        ("user", "grant", "json", "member", "project:json"),
        ("token", "create", "json"),
        ("token", "list", "json"),
        ("quota", "set", "project:json", "VCPU=4"),
        ("quota", "show", "project:json"),
        ("usage", "project:json"),
        ("pool", "create", "json", "node-2"),
        ("pool", "grant", "json", "project:json"),
        ("pool", "list"),
        ("pool", "ungrant", "json", "project:json"),
        ("pool", "delete", "json"),
    ):
        code, said = run(*words, "--json")
        assert code == 0, said
        json.loads(said)


@pytest.mark.parametrize(
    "words",
    [
        ("host", "add", "/nonexistent"),
        ("host", "list", "--server", "nonsense"),
        ("host", "list", "--limit", "0"),
        ("place", "--vcpus", "many"),
        ("place", "--hint", "group"),
        ("place", "--uuid", "no uuid"),
        ("release", uuid_of(99)),
        ("move", uuid_of(99)),
        ("quota", "set", "project:none", "VCPU=1"),
        ("token", "revoke", "none"),
        ("user", "grant", "nobody", "king", "cloud"),
        ("watch", "nonsense"),
        ("what-if", "--policy", "/nonexistent"),
        ("replay", "/nonexistent"),
        ("config", "check", "/nonexistent"),
    ],
)
def test_a_mistake_is_said_in_words_and_is_an_exit_code(run: Run, fleet: Path, words: tuple[str, ...]) -> None:
    code, said = run(*words)
    assert code in (1, 2)
    assert said.strip()
    assert "Traceback" not in said


def test_a_guest_that_is_moved_keeps_its_size_and_one_that_is_resized_what_is_not_said(
    run: Run, fleet: Path, daemon: Daemon
) -> None:
    def held() -> tuple[dict[str, int], str | None]:
        with daemon.client() as client:
            guest = client.call("instance", {"uuid": uuid_of(60)})
        return guest.resources, guest.server_group

    with daemon.client() as client:
        client.call("add_server_group", {"uuid": uuid_of(61), "policy": "soft-affinity"})
    size = ("--vcpus", "3", "--memory-mb", "2048", "--disk-gb", "5")
    assert run("place", "--uuid", uuid_of(60), "--group", uuid_of(61), *size)[0] == 0
    assert run("move", uuid_of(60))[0] == 0
    assert held() == ({"VCPU": 3, "MEMORY_MB": 2_048, "DISK_GB": 5}, uuid_of(61))
    assert run("resize", uuid_of(60), "--vcpus", "2")[0] == 0
    assert held() == ({"VCPU": 2, "MEMORY_MB": 2_048, "DISK_GB": 5}, uuid_of(61))
    assert run("release", uuid_of(60))[0] == 0


def test_a_guest_is_moved_by_what_was_asked_for_even_if_its_flavor_cannot_be_derived(run: Run, daemon: Daemon) -> None:
    with daemon.client() as client:
        size = {"vcpus_total": 4, "total_usable_ram_mb": 4_096}
        client.call("add_hosts", {"hosts": [{"host": f"gpu-{number}", **size} for number in range(2)]})
        for number in range(2):
            client.call("add_provider", {"name": f"card-{number}", "parent": f"gpu-{number}"})
            client.call("set_inventory", {"name": f"card-{number}", "inventories": {"VGPU": {"total": 1}}})
    shape = ("--vcpus", "1", "--memory-mb", "64", "--extra-spec", "resources:VGPU=1")
    assert run("place", "--uuid", uuid_of(62), *shape)[0] == 0
    assert run("move", uuid_of(62))[0] == 0
    assert run("move", uuid_of(62), *shape)[0] == 0
    assert run("release", uuid_of(62))[0] == 0


def test_options_of_a_move_or_resize_change_what_was_asked_no_further(run: Run, daemon: Daemon) -> None:
    with daemon.client() as client:
        size = {"vcpus_total": 4, "total_usable_ram_mb": 4_096}
        client.call("add_hosts", {"hosts": [{"host": f"apart-{number}", **size} for number in range(2)]})
    nodes, guest = ("apart-0", "apart-1"), uuid_of(63)
    assert run("aggregate", "create", "apart", *nodes, "--zone", "apart")[0] == 0
    assert run("place", "--uuid", guest, "--zone", "apart", "--memory-mb", "512")[0] == 0
    for words in (
        ("move", "--alternates", "1"),
        ("resize", "--vcpus", "2"),
        ("move", "begin", "--kind", "resize", "--vcpus", "3"),
    ):
        code, said = run(*words, guest, "--json")
        assert (code, json.loads(said)["selections"][0]["node"] in nodes) == (0, True), words
    assert [line["uuid"] for line in json.loads(run("guest", "list", "--json", "--node", nodes[0])[1])] == [guest]
    assert [line["uuid"] for line in json.loads(run("guest", "list", "--json", "--node", nodes[1])[1])] in ([guest], [])
    assert run("move", "confirm", guest)[0] == 0
    assert run("aggregate", "set", "apart", "--zone", "away")[0] == 0
    assert "unknown availability zone 'apart'" in run("move", guest)[1]
    assert run("move", guest, "--zone", "away")[0] == 0
    assert run("move", guest)[0] == 0
    assert run("release", guest)[0] == 0


@pytest.mark.parametrize("command", ["host", "place", "resize", "replay", "token", "serve"])
def test_every_command_has_help(run: Run, command: str) -> None:
    code, said = run(command, "--help")
    assert code == 0
    assert "Usage" in said


def test_a_guest_is_placed_with_one_of_placements_candidates(run: Run, daemon: Daemon, fleet: Path) -> None:
    with daemon.client() as client:
        providers = {each.name: each.uuid for each in client.call("providers", {})}
    full, fitting = ({"allocations": {providers["node-1"]: {"resources": {"VCPU": n}}}} for n in (999, 3))
    answer = daemon.folder / "candidates.json"
    answer.write_text(json.dumps({"allocation_requests": [full, fitting], "provider_summaries": {}}))
    code, said = run("place", "--uuid", uuid_of(880), "--candidates", str(answer))
    assert (code, "node-1" in said) == (0, True), said
    with daemon.client() as client:
        assert client.call("instance", {"uuid": uuid_of(880)}).resources == {"VCPU": 3}
    assert run("release", uuid_of(880))[0] == 0
    answer.write_text('{"error": 1}')
    code, said = run("place", "--candidates", str(answer))
    assert code == 1
    assert "no allocation candidates" in said
    code, said = run("place", "--candidates", str(answer), "--volume", "1")
    assert code == 1
    assert "without volumes" in said
