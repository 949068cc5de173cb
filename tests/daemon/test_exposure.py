"""A start that lets people in who do not say who they are is refused, unless it is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from hostler.core import cli
from hostler.core.process.config import BadConfig, load
from hostler.core.process.exposure import in_clear
from hostler.core.regions.options import RegionOptions

from .processes import Daemon

STATIC: Final[dict[tuple[str, ...], Any]] = {
    ("placement", "auth"): "static",
    ("placement", "tokens"): [{"sha256": "0" * 64, "user": "nova"}],
}
OPEN: Final[list[tuple[dict[tuple[str, ...], Any], str]]] = [
    ({("rpc", "listen"): ["tcp:0.0.0.0:7777"], ("rpc", "auth"): "none"}, "rpc.auth"),
    ({("rpc", "listen"): ["unix:s", "tcp:[::]:7777"], ("rpc", "auth"): "none"}, "rpc.auth"),
    ({("rpc", "listen"): ["tcp:cloud.example:7777"], ("rpc", "auth"): "none"}, "rpc.auth"),
    ({("hooks", "listen"): "127.0.0.1:8779"}, "hooks.auth"),
    ({("hooks", "listen"): "0.0.0.0:8779", ("rpc", "auth"): "none"}, "hooks.auth"),
    ({("placement", "listen"): "127.0.0.1:8778"}, "placement.auth"),
    ({("placement", "listen"): "127.0.0.1:8778", ("placement", "auth"): "none"}, "placement.auth"),
    ({("placement", "listen"): "[::1]:8778", ("placement", "auth"): "noauth2"}, "placement.auth"),
    ({("placement", "listen"): "0.0.0.0:8778", ("placement", "auth"): "none"}, "placement.auth"),
    (
        {("placement", "listen"): "10.0.0.1:8778", ("placement", "auth"): "noauth2", ("rpc", "auth"): "none"},
        "placement.auth",
    ),
]
CLOSED: Final[list[dict[tuple[str, ...], Any]]] = [
    {},
    {("rpc", "listen"): ["tcp:0.0.0.0:7777"]},
    {("rpc", "auth"): "none"},
    {("hooks", "listen"): "127.0.0.1:8779", ("rpc", "auth"): "none"},
    {("hooks", "listen"): "0.0.0.0:8779", ("hooks", "auth"): "tokens"},
    {("rpc", "listen"): ["tcp:127.0.0.1:7777", "tcp:localhost:7778", "tcp:[::1]:7"], ("rpc", "auth"): "none"},
    {("placement", "listen"): "127.0.0.1:8778", ("rpc", "auth"): "none"},
    {("placement", "listen"): "0.0.0.0:8778", **STATIC},
    {("placement", "listen"): "127.0.0.1:8778", **STATIC},
]


@pytest.mark.parametrize(("options", "key"), OPEN)
def test_a_configuration_that_admits_every_client_is_refused_unless_that_is_meant(
    options: dict[tuple[str, ...], Any], key: str
) -> None:
    with pytest.raises(BadConfig) as error:
        load(None, {}, options)
    assert [problem.key for problem in error.value.problems] == [key]
    assert "--insecure" in str(error.value)
    load(None, {}, {**options, ("operation", "insecure"): True})


@pytest.mark.parametrize("options", CLOSED)
def test_others_are_taken(options: dict[tuple[str, ...], Any]) -> None:
    load(None, {}, options)


def test_the_command_line_refuses_it_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--rpc", "tcp:0.0.0.0:0", "--auth", "none"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "rpc.auth: none lets every client that reaches tcp:0.0.0.0:0 do everything" in told


def test_an_insecure_start_that_is_meant_is_said_in_the_log(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--insecure", "--placement", "127.0.0.1:0") as daemon:
        assert "every user of this machine" in daemon.log()


def test_passwords_and_tokens_that_go_to_other_machines_in_clear_are_told() -> None:
    endpoints = ["https://10.0.0.1:2379", "http://127.0.0.1:2379", "http://10.0.0.2:2379"]
    regions = {
        "safe": RegionOptions(addresses=("tls:10.0.0.1:1", "unix:/run/x", "tcp:127.0.0.1:1"), token="env:T"),
        "open": RegionOptions(addresses=("tcp:10.0.0.1:1",), token="env:T"),
        "none": RegionOptions(addresses=("tcp:10.0.0.1:1",)),
    }
    found = list(in_clear(endpoints, regions))
    assert [("10.0.0.2:2379" in text, "region open" in text) for text in found] == [(True, False), (False, True)]
    assert list(in_clear((), {})) == []
