"""Which moves are due is known without looking at all of them, whatever was remembered, forgotten and put back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostler.placement.fleet.moves_under_way import MovesUnderWay
from hostler.placement.types.moves import PendingMove

GUESTS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), GUESTS, st.none() | st.integers(0, 20)),
        st.tuples(st.just("forget"), GUESTS, st.none()),
        st.tuples(st.just("due"), st.just(""), st.integers(0, 25)),
        st.tuples(st.just("end"), st.just(""), st.integers(0, 25)),
    ),
    max_size=40,
)


def move(guest: str, expires: float | None) -> PendingMove:
    return PendingMove(instance=guest, migration="m", kind="cold_migrate", source="a", target="b", expires=expires)


@given(steps=STEPS)
def test_what_is_due_is_what_a_look_at_all_moves_finds(steps: list[tuple[str, str, float | None]]) -> None:
    moves, known = MovesUnderWay(), dict[str, PendingMove]()
    for what, guest, when in steps:
        if what == "put":
            known[guest] = move(guest, when)
            moves.put(guest, known[guest])
        elif what == "forget":
            known.pop(guest, None)
            moves.put(guest, None)
        else:
            assert when is not None
            due = [each for _, each in sorted(known.items()) if each.expires is not None and each.expires <= when]
            assert moves.due(when) == due
            for each in due if what == "end" else ():
                del known[each.instance]
                moves.put(each.instance, None)
            if what == "end":  # it is undone, and done again
                for each in due:
                    moves.put(each.instance, each)
                assert moves.due(when) == due
                for each in due:
                    moves.put(each.instance, None)
        assert moves == known


def test_moves_that_are_not_due_are_not_looked_at() -> None:
    moves = MovesUnderWay()
    for number in range(1_000):
        moves.put(str(number), move(str(number), 1_000.0 + number))
    moves.values = None  # type: ignore[assignment,method-assign]  # to look at all is an error
    assert moves.due(999.9) == []
