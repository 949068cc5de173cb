"""The check for newer releases, without PyPI."""

from __future__ import annotations

from hostler.bench import releases


def test_a_newer_release_is_found_by_its_numbers() -> None:
    known = {**releases.COMPARED, "nova": "34.0.10"}
    assert releases.newer(known.__getitem__) == {"nova": (releases.COMPARED["nova"], "34.0.10")}
    assert releases.newer(releases.COMPARED.__getitem__) == {}
    assert releases.newer({**releases.COMPARED, "cinder": "9.0.0"}.__getitem__) == {}
