"""Log-ons that are refused are not tried again at once."""

from __future__ import annotations

import pytest
import trio

from hostler.drivers import log_ons
from hostler.drivers.protocol import Denied, DriverError, Transient


def test_a_refused_log_on_is_tried_again_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    account, tried = log_ons.LogOns(), list[type[DriverError]]()

    def log_on(kind: type[DriverError]) -> None:
        with account.one():
            tried.append(kind)
            raise kind("no")

    for kind in (Transient, Transient, Denied, Denied):  # what was not refused may be tried at once
        with pytest.raises(kind):
            log_on(kind)
    assert tried == [Transient, Transient, Denied]
    monkeypatch.setattr(log_ons, "DENIED_SECONDS", 0.0)
    with pytest.raises(Transient):
        log_on(Transient)
    assert tried == [Transient, Transient, Denied, Transient]


async def test_calls_at_the_same_time_do_not_lock_an_account_of_a_vcenter(monkeypatch: pytest.MonkeyPatch) -> None:
    vim = pytest.importorskip("pyVmomi", reason="pyvmomi is not installed").vim
    from hostler.drivers.compute import vsphere_api

    tried = list[int]()

    def connect() -> object:
        tried.append(len(tried))
        if 0 < len(tried) - 1 < 3:
            raise vim.fault.InvalidLogin(msg="Cannot complete login")
        return object()

    def ended() -> None:
        raise vim.fault.NotAuthenticated()

    session = vsphere_api.Session(connect, 4)

    async def ask() -> None:
        with pytest.raises(Denied, match="Cannot complete login"):
            await session.read(ended)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    assert tried == [0, 1]
    monkeypatch.setattr(log_ons, "DENIED_SECONDS", 0.0)
    await ask()
    assert tried == [0, 1, 2]
