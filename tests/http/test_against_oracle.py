"""Random calls of the whole API, each answered as a slow, obvious model of the rules has it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .calling import Caller
from .operations import PROJECTS, calls, comparable, usages_path, views
from .oracle import Oracle


@pytest.mark.property
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_every_answer_is_the_oracles(data: st.DataObject) -> None:
    oracle, call = Oracle(), Caller()
    for _ in range(data.draw(st.integers(1, 30))):
        wish = data.draw(calls(oracle))
        expected = oracle(*wish)
        answer = call(*wish)
        assert comparable(answer.status, answer.json) == expected, wish
    call.fleet.check()
    for wish in views(oracle):
        answer = call(*wish)
        assert comparable(answer.status, answer.json) == oracle(*wish), wish
    for project in PROJECTS:
        assert call("GET", usages_path(project)).json == {"usages": oracle.usages(project)}
