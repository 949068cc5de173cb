"""Nothing secret is written anywhere: not in the journal, snapshots, audit or log, on no page, by no command."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from hostler.core.cli import main
from hostler.core.rpc.client import BlockingClient
from hostler.core.tenancy.errors import NotAuthenticated
from hostler.placement.types.errors import HostlerError
from tests.rpc.serving import Authority

from .processes import Daemon, http_of

PASSWORD = "correct-horse-battery-staple"
STATIC = "a-static-token-of-the-placement-api"
CONFIG = f"""
[operation]
log_level = "debug"
[placement]
auth = "static"
[placement.keystone]
auth_url = "http://scheduler:{PASSWORD}@keystone:5000/v3"
password = "{PASSWORD}"
[[placement.tokens]]
sha256 = "{hashlib.sha256(STATIC.encode()).hexdigest()}"
user = "nova"
"""


@pytest.fixture
def said_by(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command says."""

    def run(*words: str, server: str, token: str = "") -> str:
        monkeypatch.setenv("HOSTLER_SERVER", server)
        if token:
            monkeypatch.setenv("HOSTLER_TOKEN", token)
        main(words)
        said = capsys.readouterr()
        return said.out + said.err

    return run


def test_no_secret_is_in_any_file_page_or_output(tmp_path: Path, said_by: Callable[..., str]) -> None:
    (tmp_path / "ca").mkdir()
    certificate, key = Authority(tmp_path / "ca").sign("localhost")
    tls = f'[rpc.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
    outputs: dict[str, str] = {}
    with Daemon(tmp_path, "--http", "127.0.0.1:0", "--placement", "127.0.0.1:0", config=CONFIG + tls) as daemon:
        with daemon.client() as client:
            client.call("create_domain", {"id": "d"})
            client.call("create_user", {"id": "ann", "domain": "d"})
            first = client.call("create_token", {"user": "ann"}).token
            client.call("snapshot")
            client.call("watch", {"kinds": ["changes", "refusals"], "after": 0})
            second = client.call("create_token", {"user": "ann"}).token
            wrong = first[:-1] + ("a" if first[-1] != "a" else "b")
            outputs["errors"] = ""
            for method, params in (
                ("hello", {"token": wrong}),
                ("revoke_token", {"id": second}),
                ("host", {"name": first}),
                ("create_user", {"id": "bob", "domain": "d", "password": PASSWORD}),
            ):
                with suppress(HostlerError):
                    client.call(method, params)
            outputs["tokens"] = repr(client.call("tokens", {"user": "ann"}))
            outputs["events"] = repr(list(client.events(0.3)))
        with BlockingClient(daemon.address, token=wrong, within=2.0) as stranger, pytest.raises(NotAuthenticated) as no:
            stranger.call("status")
        outputs["refusal"] = repr(no.value.args)
        for page in ("metrics", "readyz", "healthz"):
            outputs[page] = httpx.get(f"{http_of(daemon)}/{page}").text
        for words in (
            ("token", "list", "ann"),
            ("token", "list", "ann", "--json"),
            ("token", "revoke", second),
            ("host", "list"),
            ("user", "list", "--json"),
            ("watch", "--after", "0", "--seconds", "0.3", "--json"),
            ("config", "show", str(tmp_path / "config.toml")),
            ("config", "show", str(tmp_path / "config.toml"), "--json"),
            ("config", "check", str(tmp_path / "config.toml")),
        ):
            outputs[" ".join(words)] = said_by(*words, server=daemon.address, token=first)
        assert daemon.terminate() == 0
    assert "revoked" in outputs[f"token revoke {second}"]
    outputs["replay"] = said_by("replay", str(tmp_path / "data"), "--json", server=daemon.address)

    secrets = [first.rpartition("_")[2], second.rpartition("_")[2], wrong.rpartition("_")[2], PASSWORD, STATIC]
    files = {path: path.read_bytes() for path in (*(tmp_path / "data").rglob("*"), tmp_path / "log") if path.is_file()}
    assert any(hashlib.sha256(secrets[0].encode()).digest() in content for content in files.values()), "kept as a hash"
    assert {path.name for path in files} >= {"audit.jsonl", "log", "manifest.json", "state"}
    for secret in secrets:
        for path, content in files.items():
            assert secret.encode() not in content, path
        for name, text in outputs.items():
            assert secret not in text, name
    private = key.read_text().splitlines()[1]
    assert all(private.encode() not in content for content in files.values())
