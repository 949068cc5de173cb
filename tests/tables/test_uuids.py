"""UuidTable against a dict, and uuids in text."""

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hostler.ext.tables import UuidTable, format_many, format_uuid, make_many, parse_many, parse_uuid

pytestmark = pytest.mark.kernel_twin

words = st.integers(0, 2**64 - 1)
pairs = st.tuples(st.integers(0, 1), st.integers(0, 60)) | st.tuples(words, words)
values = st.integers(0, 2**31 - 1)


class Uuids(RuleBasedStateMachine):
    """The table, and beside it a dict."""

    @initialize()
    def begin(self) -> None:
        self.table = UuidTable()
        self.values: dict[str, int] = {}

    @rule(pair=pairs, value=values)
    def add(self, pair: tuple[int, int], value: int) -> None:
        text = format_uuid(*pair)
        if text in self.values:
            with pytest.raises(KeyError) as caught:
                self.table.add(text, value)
            assert caught.value.args == (text,)
        else:
            self.table.add(text, value)
            self.values[text] = value

    @rule(items=st.lists(st.tuples(pairs, values), max_size=40))
    def add_many(self, items: list[tuple[tuple[int, int], int]]) -> None:
        given = np.array([pair for pair, _ in items], dtype=np.uint64).reshape(-1, 2)
        numbers = np.array([value for _, value in items], dtype=np.int32)
        texts = [format_uuid(*pair) for pair, _ in items]
        duplicate = next((text for at, text in enumerate(texts) if text in self.values or text in texts[:at]), None)
        if duplicate is None:
            self.table.add_many(given, numbers)
            self.values.update(zip(texts, numbers.tolist(), strict=True))
        else:
            with pytest.raises(KeyError) as caught:
                self.table.add_many(given, numbers)
            assert caught.value.args == (duplicate,)

    @rule(first=st.integers(0, 50), count=st.integers(0, 300))
    def add_a_run(self, first: int, count: int) -> None:
        self.add_many([((7, number), number) for number in range(first, first + count)])

    @rule(data=st.data(), pair=pairs)
    def pop(self, data: st.DataObject, pair: tuple[int, int]) -> None:
        text = format_uuid(*pair)
        if data.draw(st.booleans()) and self.values:
            text = data.draw(st.sampled_from(sorted(self.values)))
        if text in self.values:
            assert self.table.pop(text) == self.values.pop(text)
        else:
            with pytest.raises(KeyError) as caught:
                self.table.pop(text)
            assert caught.value.args == (text,)

    @rule(of=st.lists(pairs, max_size=40), value=values)
    def put(self, of: list[tuple[int, int]], value: int) -> None:
        before = list[int]()
        for text in [format_uuid(*pair) for pair in of]:
            before.append(self.values.get(text, -1))
            self.values[text] = value
        assert self.table.put([format_uuid(*pair) for pair in of], value) == before

    @rule(of=st.lists(pairs, max_size=40))
    def discard(self, of: list[tuple[int, int]]) -> None:
        texts = [format_uuid(*pair) for pair in of]
        assert self.table.discard(texts) == [self.values.pop(text, -1) for text in texts]

    @rule(of=st.lists(pairs, max_size=3), value=values)
    def no_uuid_changes_nothing(self, of: list[tuple[int, int]], value: int) -> None:
        texts = [*(format_uuid(*pair) for pair in of), "no uuid"]
        with pytest.raises(ValueError, match="not a uuid: 'no uuid'"):
            self.table.put(texts, value)
        with pytest.raises(ValueError, match="not a uuid: 'no uuid'"):
            self.table.discard(texts)

    @rule()
    def to_arrays(self) -> None:
        uuids, found = self.table.to_arrays()
        assert list(zip(format_many(uuids), found.tolist(), strict=True)) == sorted(self.values.items())

    @rule(pair=pairs)
    def get(self, pair: tuple[int, int]) -> None:
        text = format_uuid(*pair)
        assert self.table.get(text) == self.values.get(text, -1)

    @invariant()
    def agrees(self) -> None:
        self.table.check()
        assert len(self.table) == len(self.values)
        assert all(self.table.get(text) == value for text, value in self.values.items())


@pytest.mark.property
def test_the_table_keeps_up_with_a_dict_through_any_operations() -> None:
    run_state_machine_as_test(Uuids, settings=settings(deadline=None, max_examples=60, stateful_step_count=40))


@pytest.mark.parametrize("kind", ["random", "counters in the low word", "counters in the high word", "low bits alike"])
def test_a_hundred_thousand_uuids_come_and_go_whatever_their_bits(kind: str) -> None:
    count = 100_000
    uuids = make_many(1, 0, count) if kind == "random" else np.zeros((count, 2), np.uint64)
    if kind == "counters in the low word":
        uuids[:, 1] = np.arange(count)
    elif kind == "counters in the high word":
        uuids[:, 0] = np.arange(count)
    elif kind == "low bits alike":
        uuids[:, 1] = np.arange(count, dtype=np.uint64) << np.uint64(40)
    table = UuidTable()
    table.add_many(uuids, np.arange(count, dtype=np.int32))
    texts = [format_uuid(hi, lo) for hi, lo in uuids.tolist()]
    assert [table.get(text) for text in texts] == list(range(count))
    assert [table.pop(text) for text in texts[::2]] == list(range(0, count, 2))
    assert [table.get(text) for text in texts] == [-1 if number % 2 == 0 else number for number in range(count)]


def test_a_negative_value_is_refused() -> None:
    table = UuidTable()
    with pytest.raises(ValueError, match="-1 is negative"):
        table.add(str(uuid.UUID(int=1)), -1)
    with pytest.raises(ValueError, match="-5 is negative"):
        table.add_many(make_many(1, 0, 2), np.array([0, -5], np.int32))
    with pytest.raises(ValueError, match="-1 is negative"):
        table.put([str(uuid.UUID(int=1))], -1)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("uuids", "numbers"),
    [
        (np.zeros((2, 2), np.uint64), np.zeros(1, np.int32)),
        (np.zeros((2, 3), np.uint64), np.zeros(2, np.int32)),
        (np.zeros((2, 2), np.int64), np.zeros(2, np.int32)),
        (np.zeros((2, 2), np.uint64), np.zeros(2, np.int64)),
        (np.zeros(2, np.uint64), np.zeros(2, np.int32)),
        (np.zeros((2, 2), np.uint64, order="F"), np.zeros(2, np.int32)),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(uuids: Any, numbers: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        UuidTable().add_many(uuids, numbers)


@pytest.mark.property
@given(st.uuids())
def test_a_uuid_is_read_in_each_of_its_forms_and_written_in_one(value: uuid.UUID) -> None:
    expected = divmod(value.int, 2**64)
    for text in (str(value), str(value).upper(), value.hex, value.hex.upper()):
        assert parse_uuid(text) == expected
    assert format_uuid(*expected) == str(value)


GOOD = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        GOOD[:-1],
        GOOD + "0",
        GOOD + "\n",
        " " + GOOD,
        "{" + GOOD + "}",
        "urn:uuid:" + GOOD,
        *(GOOD[:at] + "_" + GOOD[at + 1 :] for at in (8, 13, 18, 23)),
        GOOD.replace("-", "", 1),
        GOOD.replace("-", "")[:-1] + "-",
        "0123456-789ab-cdef-0123-456789abcdef",
        GOOD[:-1] + "é",
        GOOD[:-2] + "ð",  # its UTF-8 bytes are those of "C0" with the top bits set
        GOOD[:-1] + "\uff11",
        GOOD[:-1] + "\ud800",
        "\0" * 32,
        "0x" + "0" * 30,
        "+" + "0" * 31,
        "0" * 31 + "_",
    ],
)
def test_what_is_no_uuid_is_refused(bad: str) -> None:
    for call in (parse_uuid, lambda text: parse_many([GOOD, text]), UuidTable().get, UuidTable().pop):
        with pytest.raises(ValueError, match="not a uuid"):
            call(bad)


def test_exactly_the_hexadecimal_digits_are_digits() -> None:
    for point in range(256):
        for at in (0, 9, 35):
            text = GOOD[:at] + chr(point) + GOOD[at + 1 :]
            if chr(point) in "0123456789abcdefABCDEF":
                assert parse_uuid(text) == divmod(uuid.UUID(text).int, 2**64)
            else:
                with pytest.raises(ValueError, match="not a uuid"):
                    parse_uuid(text)


@pytest.mark.parametrize("bad", [None, 1, b"0" * 32, uuid.UUID(int=1)])
def test_a_uuid_that_is_no_str_is_refused_by_type(bad: Any) -> None:
    for call in (parse_uuid, lambda value: parse_many([value]), UuidTable().get):
        with pytest.raises(TypeError, match="must be a str"):
            call(bad)


@pytest.mark.parametrize("bad", [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_words_beyond_64_bits_are_not_formatted(bad: tuple[int, int]) -> None:
    with pytest.raises(OverflowError):
        format_uuid(*bad)


def test_many_uuids_are_parsed_from_any_sequence() -> None:
    for form in (list, tuple, np.array, lambda texts: np.array(texts, dtype=object)):
        parsed = parse_many(form([GOOD, "0" * 32]))
        assert parsed.dtype == np.uint64
        assert parsed.tolist() == [[0x0123456789ABCDEF, 0x0123456789ABCDEF], [0, 0]]
    assert parse_many([]).shape == (0, 2)


def test_made_uuids_are_the_same_on_every_machine_and_in_every_release() -> None:
    assert [format_uuid(hi, lo) for hi, lo in make_many(7, 0, 3).tolist()] == [
        "b8b4c297-7eab-4e45-a653-05fd338ec8fe",
        "8ca3cbb6-ca63-429b-9aaf-21d8296e1e3d",
        "591a5ca9-608c-4826-aeaa-3ed3cd8991c6",
    ]


@pytest.mark.property
@given(st.integers(-(2**70), 2**70), st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 50))
def test_made_uuids_do_not_depend_on_how_many_are_made_at_once(seed: int, first: int, one: int, other: int) -> None:
    whole = make_many(seed, first, one + other)
    assert np.array_equal(whole[:one], make_many(seed, first, one))
    assert np.array_equal(whole[one:], make_many(seed, first + one, other))


def test_made_uuids_are_distinct_and_look_like_version_4() -> None:
    made = np.concatenate([make_many(seed, 0, 50_000) for seed in (0, 1, 2)])
    assert len(np.unique(made, axis=0)) == len(made)
    for hi, lo in made[:100].tolist():
        value = uuid.UUID(format_uuid(hi, lo))
        assert (value.version, value.variant) == (4, uuid.RFC_4122)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, -1)])
def test_uuids_are_not_made_in_negative_numbers(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        make_many(1, first, count)
