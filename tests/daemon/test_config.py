"""The configuration: where values come from, and what is said where they are wrong."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core import cli
from hostler.core.process.config import BadConfig, Loaded, key_lines, load, paths
from hostler.core.process.settings import Config, cluster_problems, http_address
from hostler.placement.types.errors import InvalidValue

from ..patience import HANG_SECONDS
from .processes import HOSTLER


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hostler.toml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(tmp_path: Path, text: str, **environment: str) -> Loaded:
    return load(written(tmp_path, text), environment)


def problems(tmp_path: Path, text: str, **environment: str) -> list[str]:
    with pytest.raises(BadConfig) as caught:
        loaded(tmp_path, text, **environment)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_no_file_and_no_variables_are_the_defaults() -> None:
    assert load(environment={}).config == Config()


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[data]\nqueue = 7\n[operation]\nlog_level = "debug"\n').config
    assert (settings.data.queue, settings.operation.log_level) == (7, "debug")
    assert settings.data.keys_kept == Config().data.keys_kept


def test_a_variable_is_over_the_file_and_an_option_over_both(tmp_path: Path) -> None:
    text, environment = "[data]\nqueue = 7\n", {"HOSTLER_DATA__QUEUE": "8"}
    assert load(written(tmp_path, text), environment).config.data.queue == 8
    options: dict[tuple[str, ...], Any] = {("data", "queue"): 9}
    assert load(written(tmp_path, text), environment, options).config.data.queue == 9


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("HOSTLER_DATA__KEEP_HISTORY", "true", ("data", "keep_history"), True),
        ("HOSTLER_OPERATION__DRAIN_SECONDS", "1.5", ("operation", "drain_seconds"), 1.5),
        ("HOSTLER_PLACEMENT__KEYSTONE__PASSWORD", "123", ("placement", "keystone", "password"), "123"),
        ("HOSTLER_OPERATION__LOG_FORMAT", "json", ("operation", "log_format"), "json"),
        ("HOSTLER_RPC__LISTEN", "unix:/a, tcp:[::1]:3", ("rpc", "listen"), ("unix:/a", "tcp:[::1]:3")),
        ("HOSTLER_RPC__LISTEN", '["unix:/a"]', ("rpc", "listen"), ("unix:/a",)),
    ],
)
def test_a_variable_is_read_as_its_key_s_type(name: str, text: str, path: tuple[str, ...], value: Any) -> None:
    found: Any = load(environment={name: text}).config
    for step in path:
        found = getattr(found, step)
    assert found == value


def test_variables_without_a_section_are_none_of_ours() -> None:
    assert load(environment={"HOSTLER_PURE": "1", "OTHER_LOG__LEVEL": "loud"}).config == Config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[operation]\nlog_level = 3\n", "hostler.toml:2: operation.log_level: Expected `str`, got `int`"),
        (
            "[operation]\n\n# loud\nlog_level = 'loud'\n",
            "hostler.toml:4: operation.log_level: Invalid enum value 'loud', there are: debug, error, info, warning",
        ),
        (
            "[operation]\nlog_levle = 'info'\n",
            "hostler.toml:2: operation.log_levle: there is no such key, the closest is log_level",
        ),
        ("operation.log_level = 3\n", "hostler.toml:1: operation.log_level: Expected `str`, got `int`"),
        ("[dtaa]\n", "hostler.toml:1: dtaa: there is no such key, the closest is data"),
        ("\n[data]\nqueue = 0\n", "hostler.toml:3: data.queue: Expected `int` >= 1"),
        (
            "[rpc]\nlisten = [\n 'unix:/a',\n 'tcp:x',\n]\n",
            "hostler.toml:2: rpc.listen[1]: 'tcp:x' is not an address "
            "(write unix:PATH, tcp:HOST:PORT or tls:HOST:PORT)",
        ),
        (
            "rpc.listen = ['tls:h:1']\n",
            "hostler.toml:1: rpc.listen[0]: tls: needs a table [rpc.tls]",
        ),
        ("[rpc.limits]\n\noutstanding = 0\n", "hostler.toml:3: rpc.limits.outstanding: must be above 0"),
        ("[rpc.tls]\nkey = 'k'\n", "hostler.toml:1: rpc.tls: certificate is missing"),
        (
            "[rpc.tls]\ncertificate = 'c'\nkey = 'k'\nclient_certificates = 'required'\n",
            "hostler.toml:4: rpc.tls.client_certificates: required needs client_ca, the authority that signs them",
        ),
        (
            "[rpc.tls]\ncertificate = 'c'\nkey = 'k'\nminimum_version = '1.1'\n",
            "hostler.toml:4: rpc.tls.minimum_version: Invalid enum value '1.1', there are: 1.2, 1.3",
        ),
        (
            "[data]\nfolder = ':memory:'\n",
            "hostler.toml:2: data.folder: :memory: is not a folder: remove the key to run without durable state",
        ),
        ("[[placement.tokens]]\nuser = 'u'\n", "hostler.toml:1: placement.tokens[0]: sha256 is missing"),
        ("[placement]\nprefix = 'x'\n", None),
        ("[log\n", "hostler.toml:1: not TOML: Expected ']' at the end of a table declaration"),
        ("[operation]\na = 1\na = 2\n", "hostler.toml:3: not TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(tmp_path: Path, text: str, said: str | None) -> None:
    found = problems(tmp_path, text)
    assert found == [
        said or "hostler.toml:2: placement.prefix: prefix is 'x', but must start with / and not end with it"
    ]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = "[operation]\nlog_level = 1\nlog_format = 'x'\nhttp = 'here'\n[[placement.tokens]]\nuser = 3\nsha256 = ''\n"
    found = problems(tmp_path, text, HOSTLER_DATA__QUEUE="many", HOSTLER_DATA__QEUE="1")
    assert sorted(problem.split(": ")[:2] for problem in found) == [
        ["HOSTLER_DATA__QEUE", "data.qeue"],
        ["HOSTLER_DATA__QUEUE", "data.queue"],
        ["hostler.toml:2", "operation.log_level"],
        ["hostler.toml:3", "operation.log_format"],
        ["hostler.toml:4", "operation.http"],
        ["hostler.toml:6", "placement.tokens[0].user"],
    ]


def test_a_file_that_is_not_there_or_no_text_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read: No such file"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="cannot be read: it is not UTF-8"):
        load(tmp_path / "bytes.toml", {})
    with pytest.raises(BadConfig, match="not TOML"):
        load(written(tmp_path, "a = " + "[" * 100_000), {})


_keys = st.sampled_from(["a", "b", "c", '"d.e"'])
_values = st.sampled_from(["1", '"x # y"', "[\n  1,\n  2, # two\n]", '"""\n[a]\nb = 1\n"""', "{ x = 1, y = [2] }"])
_lines = st.one_of(
    st.tuples(_keys, _values).map(" = ".join),
    _keys.map(lambda key: f"[{key}]"),
    _keys.map(lambda key: f"[[list.{key}]]"),
    st.sampled_from(["", "# a = 1", "  "]),
)


@given(st.lists(_lines, max_size=12).map("\n".join))
def test_the_line_of_a_key_is_where_its_statement_begins(text: str) -> None:
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines, found = text.splitlines(), key_lines(text)
    assert set(found) == set(paths(value))
    for path, line in found.items():
        statement = "\n".join(lines[line - 1 :])
        before = tomllib.loads("\n".join(lines[: line - 1]))
        assert path not in set(paths(before))
        assert statement.strip()
        assert not statement.lstrip().startswith("#")


def test_the_http_address_is_a_host_and_a_port() -> None:
    assert http_address("[::1]:80")[1:] == ("::1", 80)
    for wrong in ("80", "host:http", ":80", "h:65536", "unix:/x"):
        with pytest.raises(InvalidValue, match="is not HOST:PORT"):
            http_address(wrong)


# hostler config


def run(*arguments: str) -> int | None:
    return cli.main(["config", *arguments])


def test_check_says_what_is_wrong_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "[operation]\nlog_level = 3\n")
    assert run("check", str(path)) == 1
    assert capsys.readouterr().err == f"{path}:2: operation.log_level: Expected `str`, got `int`\n"
    path = written(tmp_path, "[operation]\nlog_level = 'info'\n")
    assert run("check", str(path)) == 0
    assert capsys.readouterr().out == f"{path}: all is well\n"


def test_check_looks_into_the_files_that_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.toml").write_text("[filter_scheduler]\nram_weight_multiplier = 'x'\n")
    path = written(
        tmp_path,
        "policy = 'policy.toml'\n[rpc.tls]\ncertificate = '/none'\nkey = '/none'\nclient_ca = '/n'\n",
    )
    assert run("check", str(path)) == 1
    policy, certificate = capsys.readouterr().err.splitlines()
    assert policy.startswith(f"{path}:1: policy: filter_scheduler.ram_weight_multiplier")
    assert certificate.startswith(f"{path}:3: rpc.tls: certificate /none with key /none cannot be used")


def test_a_cinder_conf_says_how_volumes_are_placed(tmp_path: Path) -> None:
    (tmp_path / "cinder.conf").write_text("[DEFAULT]\nscheduler_default_filters = CapacityFilter\ndebug = true\n")
    (tmp_path / "policy.toml").write_text("[filter_scheduler]\nhost_subset_size = 2\n")
    storage = {"storage": {"scheduler_default_filters": ["CapacityFilter"]}}
    alone = load(written(tmp_path, "storage_policy = 'cinder.conf'\n"))
    assert alone.policy_values() == storage
    both = load(written(tmp_path, "policy = 'policy.toml'\nstorage_policy = 'cinder.conf'\n"))
    assert both.policy_values() == {"filter_scheduler": {"host_subset_size": 2}, **storage}


@pytest.mark.parametrize(
    ("policy", "storage", "said"),
    [
        (
            "[storage]\ncapacity_weight_multiplier = 2.0\n",
            "",
            "policy: {folder}/policy.toml says how volumes are placed",
        ),
        ("", "[filter_scheduler]\n", "storage_policy: the storage policy {folder}/storage.toml has only the table"),
        ("", "[storage]\ncompat = 'x'\n", "storage_policy: unknown compatibility 'x'"),
    ],
)
def test_a_storage_policy_that_cannot_be_used_is_named(
    tmp_path: Path, policy: str, storage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    (tmp_path / "storage.toml").write_text(storage)
    path = written(tmp_path, "policy = 'policy.toml'\nstorage_policy = 'storage.toml'\n")
    assert run("check", str(path)) == 1
    (problem,) = capsys.readouterr().err.splitlines()
    assert said.format(folder=tmp_path) in problem


def test_show_is_toml_that_means_the_same_with_origins_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOSTLER_PLACEMENT__KEYSTONE__PASSWORD", "hunter2")
    token = f"[[placement.tokens]]\nsha256 = '{'a' * 64}'\nuser = 'u'\nroles = ['x']\n"
    url = "[placement.keystone]\nauth_url = 'http://me:hunter2@keystone/v3'\n"
    path = written(tmp_path, f"[data]\nqueue = 7\n{token}{url}")
    assert run("show", str(path)) == 0
    shown = capsys.readouterr().out
    assert "hunter2" not in shown
    assert "aaaa" not in shown
    origins = {line.split(" = ")[0]: line.rpartition(" # ")[2] for line in shown.splitlines()}
    assert origins["data.queue"] == f"{path}:2"
    assert origins["placement.keystone.password"] == "HOSTLER_PLACEMENT__KEYSTONE__PASSWORD"
    assert origins["operation.log_level"] == "default"
    assert load(written(tmp_path, shown.replace("********", "a" * 64)), {}).config.data.queue == 7


def test_json_of_both_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "[data]\nqueue = 7\n")
    assert run("show", str(path), "--json") == 0
    found = {line["key"]: line for line in msgspec.json.decode(capsys.readouterr().out)}
    assert found["data.queue"] == {"key": "data.queue", "value": 7, "from": f"{path}:2"}
    assert found["rpc.auth"] == {"key": "rpc.auth", "value": "tokens", "from": "default"}
    assert run("check", str(path), "--json") == 0
    assert msgspec.json.decode(capsys.readouterr().out) == []
    assert run("check", str(written(tmp_path, "[data]\nqueue = 'x'\nspeed = 1\n")), "--json") == 1
    assert [(line["where"], line["key"]) for line in msgspec.json.decode(capsys.readouterr().out)] == [
        (f"{path}:2", "data.queue"),
        (f"{path}:3", "data.speed"),
    ]


def test_a_bad_configuration_is_an_invalid_value_of_its_first_key() -> None:
    with pytest.raises(InvalidValue) as caught:
        load(environment={"HOSTLER_OPERATION__LOG_LEVEL": "x"})
    assert (caught.value.code, caught.value.field) == ("bad_config", "operation.log_level")


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("", None),
        ("[data]\nfolder = 'd'\n", "d"),
        ("[rpc]\nauth = 'none'\n[placement]\nlisten = '127.0.0.1:1'\ndata = 'p'\n", "p"),
        ("[rpc]\nauth = 'none'\n[placement]\nlisten = '127.0.0.1:1'\n", None),
        ("[placement]\ndata = 'p'\n", None),
        ("[data]\nfolder = 'd'\n[rpc]\nauth = 'none'\n[placement]\nlisten = '127.0.0.1:1'\ndata = 'p'\n", "d"),
    ],
)
def test_there_is_one_folder_for_all_that_is_served(tmp_path: Path, text: str, folder: str | None) -> None:
    file = tmp_path / "hostler.toml"
    file.write_text(text)
    assert load(file, {}).config.folder == folder


def test_pages_of_the_service_are_not_promised_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--placement", "127.0.0.1:0", "--http", "127.0.0.1:0"]) == 1
    assert "only the Placement API (give --rpc as well)" in capsys.readouterr().err


def test_memory_in_place_of_a_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "hostler.toml").write_text("[data]\nfolder = 'kept'\n")
    command = [str(HOSTLER), "serve", "--config", "hostler.toml", "--rpc", "unix:rpc.sock", "--data", ":memory:"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready unix:rpc.sock\n"
        process.terminate()
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert "all state is lost when this process ends" in said
    assert [path.name for path in tmp_path.iterdir()] == ["hostler.toml"]


def test_a_parent_of_regions_is_given_nothing_that_works_on_hosts(tmp_path: Path) -> None:
    text = 'shadow_policy = "other.toml"\n[placement]\nlisten = "127.0.0.1:1"\n[hooks]\nlisten = "127.0.0.1:2"\n'
    text += '[backends.a]\ndriver = "model"\n[regions.eu]\naddresses = ["unix:/eu"]\n'
    said = "a parent of regions has no hosts"
    found = [line for line in problems(tmp_path, text) if said in line]
    assert len(found) == 4
    for key in ("placement.listen", "hooks.listen", "backends", "shadow_policy"):
        assert any(key in line for line in found)


@pytest.mark.parametrize(
    ("placement", "advertised", "fine"),
    [
        ("0.0.0.0:8778", "", False),
        ("[::]:8778", "", False),
        ("0.0.0.0:8778", "http://10.0.0.1:8778", True),
        ("0.0.0.0:8778", "https://cloud.example/placement/", True),
        ("0.0.0.0:8778", "http://0.0.0.0:8778", False),
        ("10.0.0.1:8778", "", True),
        ("10.0.0.1:8778", "10.0.0.1:8778", False),
        ("", "", True),
    ],
)
def test_a_member_redirects_to_a_url_that_others_can_use(placement: str, advertised: str, fine: bool) -> None:
    values = {
        "data": {"store": "etcd", "folder": "/var/lib/hostler", "etcd": {"endpoints": ["http://10.0.0.1:2379"]}},
        "cluster": {"advertise_placement": advertised},
        "placement": {"listen": placement, "auth": "static"},
    }
    problems = [key for key, _ in cluster_problems(msgspec.convert(values, Config))]
    assert problems == ([] if fine else [("cluster", "advertise_placement")])
