"""What must not be written anywhere."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hostler.core.client import open_client
from hostler.core.tenancy.commands import CreateDomain, CreateUser

from .serving import serving


async def test_nothing_secret_is_in_the_logs_or_the_audit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(open_to_all=False, journal=tmp_path) as served:
        await served.do(CreateDomain(id="d"), CreateUser(id="ann", domain="d"))
        token = await served.token("ann")
        secret = token.rpartition("_")[2]
        async with open_client(served.address, token=token) as client:
            mine = await client.call("create_token", {})
        async with open_client(served.address, token=token[:-1], within=1) as client:
            with pytest.raises(Exception, match="wrong, expired or revoked"):
                await client.call("hosts")
    for text in (secret, mine.token.rpartition("_")[2]):
        assert text not in caplog.text
        for file in sorted(tmp_path.rglob("*")):  # noqa: ASYNC240
            assert not file.is_file() or text.encode() not in file.read_bytes()
