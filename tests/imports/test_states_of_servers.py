"""Servers of OpenStack take what they have in every state in which they are on a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from .test_imports_of_fleets import FLAVORS, HYPERVISORS, SERVERS, UUID, taken, why, write


@pytest.mark.parametrize(
    ("status", "host", "reason"),
    [
        *((each, "cmp0", None) for each in ("ERROR", "BUILD", "SOFT_DELETED", "PAUSED", "SHELVED", "VERIFY_RESIZE")),
        *((each, "cmp0", f"it is {each}") for each in ("DELETED", "SHELVED_OFFLOADED")),
        *((each, None, f"it is {each} and on no host") for each in ("ERROR", "BUILD")),
    ],
)
def test_a_server_takes_what_it_has_in_every_state_in_which_it_is_on_a_host(
    tmp_path: Path, status: str, host: str | None, reason: str | None
) -> None:
    """Nova frees the resources of servers that are deleted or shelved and offloaded, and of no others."""
    files = [
        write(tmp_path, "h.json", HYPERVISORS),
        write(tmp_path, "f.csv", FLAVORS),
        write(tmp_path, "s.json", [{**SERVERS[0], "Status": status, "Host": host}]),
    ]
    _, _, report = taken(tmp_path, "openstack", *files)
    assert (report.guests, why(report)) == ((1, {}) if reason is None else (0, {f"{UUID}1": reason}))


@pytest.mark.parametrize(
    ("state", "host", "deleted", "reason"),
    [
        *((each, "cmp0", "0", None) for each in ("active", "error", "building", "soft-delete", "stopped")),
        ("deleted", "cmp0", "0", "it is deleted"),
        ("active", "cmp0", "7", "it is deleted"),
        ("shelved_offloaded", "", "0", "it is shelved_offloaded and on no host"),
        ("error", "", "0", "it is error and on no host"),
    ],
)
def test_a_row_of_instances_takes_what_it_has_in_every_state_in_which_it_is_on_a_host(
    tmp_path: Path, state: str, host: str, deleted: str, reason: str | None
) -> None:
    rows = f"uuid,host,vcpus,memory_mb,vm_state,deleted\n{UUID}1,{host},1,512,{state},{deleted}\n"
    _, _, report = taken(tmp_path, "openstack", write(tmp_path, "h.json", HYPERVISORS), write(tmp_path, "i.csv", rows))
    assert (report.guests, why(report)) == ((1, {}) if reason is None else (0, {f"{UUID}1": reason}))
