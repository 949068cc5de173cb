"""A hash table from uuid to value without an object per entry, uuids in text, and the uuids that a seed gives.

Answers depend on the inserted values and their order, never on an address or the time. Hashes are keyed by a random
secret of the process, so that callers cannot choose uuids that collide. tables_py.py is the pure-Python twin.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.number cimport PyNumber_Index
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

import os

import numpy as np

cdef extern from "Python.h":
    bint PyUnicode_Check(object)
    const char* as_utf8 "PyUnicode_AsUTF8AndSize"(object, Py_ssize_t*)
    void PyErr_Clear()
    str PyUnicode_DecodeASCII(const char*, Py_ssize_t, const char*)

cdef extern from "tables.h":
    void prefetch "hostler_prefetch"(const void*) nogil
    void set_key "hostler_set_key"(const unsigned char*, size_t) nogil
    uint64_t hash_uuid "hostler_hash_uuid"(uint64_t, uint64_t) nogil
    uint64_t splitmix "hostler_splitmix"(uint64_t) nogil
    int parse_digits "hostler_parse_uuid"(const unsigned char*, Py_ssize_t, uint64_t*, uint64_t*) nogil
    void format_digits "hostler_format_uuid"(uint64_t, uint64_t, char*) nogil

cdef enum:
    SLOTS = 8                # of an empty table
    AHEAD = 16               # entries between a prefetch and its use

cdef uint64_t GAMMA = 0x9E3779B97F4A7C15   # splitmix64's step, 2**64 / golden ratio


cdef bytearray secret = bytearray(os.urandom(32))
secret[24] |= 1   # the last word is a factor and may not be 0
set_key(secret, len(secret))


cdef class UuidTable:
    """128-bit uuids to int32 values >= 0. 24 bytes a slot, a third to two thirds of them taken."""

    def __cinit__(self):
        self.slots = <uuid_slot_t*>calloc(SLOTS, sizeof(uuid_slot_t))
        if self.slots == NULL:
            raise MemoryError
        self.mask = SLOTS - 1
        self.room = SLOTS * 2 // 3

    def __dealloc__(self):
        free(self.slots)

    cdef int find(self, uint64_t hi, uint64_t lo) noexcept nogil:
        cdef uuid_slot_t* slot = &self.slots[hash_uuid(hi, lo) & self.mask]
        cdef uuid_slot_t* end = self.slots + self.mask
        while slot.taken_by != 0:
            if slot.hi == hi and slot.lo == lo:
                return <int>(slot.taken_by - 1)
            slot = slot + 1 if slot < end else self.slots
        return -1

    cdef int insert(self, uint64_t hi, uint64_t lo, int32_t value) noexcept nogil:
        cdef uuid_slot_t* slot = &self.slots[hash_uuid(hi, lo) & self.mask]
        cdef uuid_slot_t* end = self.slots + self.mask
        while slot.taken_by != 0:
            if slot.hi == hi and slot.lo == lo:
                return 1
            slot = slot + 1 if slot < end else self.slots
        if self.live >= self.room:
            return -1
        slot.hi = hi
        slot.lo = lo
        slot.taken_by = <uint32_t>value + 1
        self.live += 1
        return 0

    cdef int remove(self, uint64_t hi, uint64_t lo) noexcept nogil:
        cdef uint64_t hole = hash_uuid(hi, lo) & self.mask
        cdef uint64_t at
        cdef int value
        while self.slots[hole].taken_by == 0 or self.slots[hole].hi != hi or self.slots[hole].lo != lo:
            if self.slots[hole].taken_by == 0:
                return -1
            hole = (hole + 1) & self.mask
        value = <int>(self.slots[hole].taken_by - 1)
        at = (hole + 1) & self.mask
        while self.slots[at].taken_by != 0:
            if ((at - hash_uuid(self.slots[at].hi, self.slots[at].lo)) & self.mask) >= ((at - hole) & self.mask):
                self.slots[hole] = self.slots[at]
                hole = at
            at = (at + 1) & self.mask
        self.slots[hole].taken_by = 0
        self.live -= 1
        return value

    cdef int reserve(self, int64_t extra) except -1:
        cdef uint64_t count = self.mask + 1, at, to, mask
        cdef int64_t wanted = self.live + extra
        if wanted <= self.room:
            return 0
        while <int64_t>(count * 2 // 3) < wanted:
            if count >> 58:
                raise MemoryError
            count *= 2
        cdef uuid_slot_t* slots = <uuid_slot_t*>calloc(count, sizeof(uuid_slot_t))
        if slots == NULL:
            raise MemoryError
        mask = count - 1
        for at in range(self.mask + 1):
            if self.slots[at].taken_by != 0:
                to = hash_uuid(self.slots[at].hi, self.slots[at].lo) & mask
                while slots[to].taken_by != 0:
                    to = (to + 1) & mask
                slots[to] = self.slots[at]
        free(self.slots)
        self.slots = slots
        self.mask = mask
        self.room = <int64_t>(count * 2 // 3)
        return 0

    def __len__(self):
        """Number of uuids. O(1)."""
        return self.live

    def get(self, uuid):
        """The uuid's value, or -1. O(1)."""
        cdef uint64_t hi = 0, lo = 0
        parse_uuid_str(uuid, &hi, &lo)
        return self.find(hi, lo)

    def add(self, uuid, Py_ssize_t value):
        """Insert a new uuid; KeyError if it is present, ValueError for a negative value. O(1), amortised."""
        cdef uint64_t hi = 0, lo = 0
        if value != <int32_t>value:
            raise OverflowError(f"{value} is no int32")
        parse_uuid_str(uuid, &hi, &lo)
        if value < 0:
            raise ValueError(f"{value} is negative")
        self.reserve(1)
        if self.insert(hi, lo, <int32_t>value) != 0:
            raise KeyError(uuid_text(hi, lo))

    def pop(self, uuid):
        """Remove the uuid and return its value; KeyError if it is absent. O(1)."""
        cdef uint64_t hi = 0, lo = 0
        parse_uuid_str(uuid, &hi, &lo)
        cdef int value = self.remove(hi, lo)
        if value < 0:
            raise KeyError(uuid_text(hi, lo))
        return value

    def put(self, uuids, Py_ssize_t value):
        """Have each of these uuids with a value, whether it is present or not; returns a list of the values that they
        had before, -1 for none. ValueError for a malformed uuid and for a negative value; then nothing is changed.

        O(k) for k uuids, amortised.
        """
        cdef Py_ssize_t i
        cdef uuid_slot_t* slot
        if value != <int32_t>value:
            raise OverflowError(f"{value} is no int32")
        if value < 0:
            raise ValueError(f"{value} is negative")
        cdef list items = list(uuids)
        cdef Py_ssize_t count = len(items)
        cdef list before = [-1] * count
        cdef uint64_t* words = self.parsed(items)
        try:
            self.reserve(count)
            for i in range(count):
                slot = self.slot_of(words[2 * i], words[2 * i + 1])
                if slot.taken_by != 0:
                    before[i] = <int64_t>slot.taken_by - 1
                else:
                    slot.hi, slot.lo = words[2 * i], words[2 * i + 1]
                    self.live += 1
                slot.taken_by = <uint32_t>value + 1
        finally:
            PyMem_Free(words)
        return before

    def discard(self, uuids):
        """Remove these uuids, as far as they are present; returns a list of the values that they had, -1 for none.
        ValueError for a malformed uuid; then nothing is changed. O(k) for k uuids."""
        cdef list items = list(uuids)
        cdef Py_ssize_t i, count = len(items)
        cdef list before = [-1] * count
        cdef uint64_t* words = self.parsed(items)
        try:
            for i in range(count):
                before[i] = self.remove(words[2 * i], words[2 * i + 1])
        finally:
            PyMem_Free(words)
        return before

    cdef uint64_t* parsed(self, list items) except NULL:
        """The words of uuids in text, to be freed by the caller, with their slots on their way from memory."""
        cdef Py_ssize_t i, count = len(items)
        cdef uint64_t* words = <uint64_t*>PyMem_Malloc((2 * count + 1) * sizeof(uint64_t))
        if words == NULL:
            raise MemoryError
        try:
            for i in range(count):
                parse_uuid_str(items[i], &words[2 * i], &words[2 * i + 1])
                prefetch(&self.slots[hash_uuid(words[2 * i], words[2 * i + 1]) & self.mask])
        except BaseException:
            PyMem_Free(words)
            raise
        return words

    cdef uuid_slot_t* slot_of(self, uint64_t hi, uint64_t lo) noexcept nogil:
        """The uuid's slot, or the empty one where it would be put."""
        cdef uuid_slot_t* slot = &self.slots[hash_uuid(hi, lo) & self.mask]
        cdef uuid_slot_t* end = self.slots + self.mask
        while slot.taken_by != 0 and (slot.hi != hi or slot.lo != lo):
            slot = slot + 1 if slot < end else self.slots
        return slot

    def to_arrays(self):
        """All uuids in ascending order, (n, 2) uint64, and their values, (n,) int32. O(n log n)."""
        cdef uint64_t at
        cdef Py_ssize_t i = 0
        uuids, values = np.empty((self.live, 2), dtype=np.uint64), np.empty(self.live, dtype=np.int32)
        cdef uint64_t[:, ::1] words = uuids
        cdef int32_t[::1] out = values
        for at in range(self.mask + 1):
            if self.slots[at].taken_by != 0:
                words[i, 0], words[i, 1] = self.slots[at].hi, self.slots[at].lo
                out[i] = <int32_t>(self.slots[at].taken_by - 1)
                i += 1
        order = np.lexsort((uuids[:, 1], uuids[:, 0]))
        return uuids[order], values[order]

    def add_many(self, const uint64_t[:, ::1] uuids, const int32_t[::1] values):
        """Insert new uuids, (hi, lo) a row, all or none: KeyError with the first that is present or repeated.

        O(k) for k uuids, amortised.
        """
        cdef Py_ssize_t i, count = values.shape[0]
        if uuids.shape[1] != 2 or uuids.shape[0] != count:
            raise ValueError(f"{count} values need uuids of shape ({count}, 2), not {uuids.shape[0], uuids.shape[1]}")
        for i in range(count):
            if values[i] < 0:
                raise ValueError(f"{values[i]} is negative")
        self.reserve(count)
        for i in range(count):
            if i + AHEAD < count:
                prefetch(&self.slots[hash_uuid(uuids[i + AHEAD, 0], uuids[i + AHEAD, 1]) & self.mask])
            if self.insert(uuids[i, 0], uuids[i, 1], values[i]) != 0:
                duplicate = uuid_text(uuids[i, 0], uuids[i, 1])
                for i in range(i - 1, -1, -1):
                    self.remove(uuids[i, 0], uuids[i, 1])
                raise KeyError(duplicate)

    def check(self):
        """Assert every invariant. O(n)."""
        cdef uint64_t at, before
        cdef int64_t live = 0
        for at in range(self.mask + 1):
            if self.slots[at].taken_by:
                live += 1
                before = hash_uuid(self.slots[at].hi, self.slots[at].lo) & self.mask
                while before != at:
                    assert self.slots[before].taken_by, f"slot {at} cannot be reached"
                    before = (before + 1) & self.mask
                assert self.find(self.slots[at].hi, self.slots[at].lo) == <int64_t>self.slots[at].taken_by - 1, \
                    f"slot {at} is not found"
        assert live == self.live <= self.room <= <int64_t>((self.mask + 1) * 2 // 3), "the slots are miscounted"


# ----- uuids in text -----

cdef int parse_uuid_str(object text, uint64_t* hi, uint64_t* lo) except -1:
    cdef Py_ssize_t length = 0
    cdef const char* raw = NULL
    if not PyUnicode_Check(text):
        raise TypeError(f"a uuid must be a str, not {type(text).__name__}")
    raw = as_utf8(text, &length)
    if raw == NULL:   # a surrogate
        PyErr_Clear()
        length = 0
    if parse_digits(<const unsigned char*>raw, length, hi, lo) != 0:
        raise ValueError(f"not a uuid: {text[:200]!r}")
    return 0


cdef str uuid_text(uint64_t hi, uint64_t lo):
    cdef char text[36]
    format_digits(hi, lo, text)
    return PyUnicode_DecodeASCII(text, 36, NULL)


def parse_uuid(text):
    """(hi, lo) of a uuid in 8-4-4-4-12 or 32 hexadecimal digits of either case; ValueError for anything else. O(1)."""
    cdef uint64_t hi = 0, lo = 0
    parse_uuid_str(text, &hi, &lo)
    return hi, lo


def format_uuid(hi, lo):
    """The uuid in lower-case 8-4-4-4-12 form. O(1)."""
    hi, lo = PyNumber_Index(hi), PyNumber_Index(lo)   # a float is no word, though C would take it
    return uuid_text(hi, lo)


def parse_many(uuids):
    """(n, 2) uint64 of n uuids in text; ValueError as ``parse_uuid``. O(n)."""
    if isinstance(uuids, (str, bytes)):
        raise TypeError("uuids must be a sequence of uuids, not one")
    cdef tuple items = tuple(uuids.tolist() if isinstance(uuids, np.ndarray) else uuids)
    cdef Py_ssize_t i
    result = np.empty((len(items), 2), dtype=np.uint64)
    cdef uint64_t[:, ::1] out = result
    for i in range(len(items)):
        parse_uuid_str(items[i], &out[i, 0], &out[i, 1])
    return result


def format_many(const uint64_t[:, ::1] words):
    """The uuids of ``words``, (n, 2), in text. O(n)."""
    cdef Py_ssize_t i
    if words.shape[1] != 2:
        raise ValueError("words must be (n, 2)")
    return [uuid_text(words[i, 0], words[i, 1]) for i in range(words.shape[0])]


def make_many(seed, Py_ssize_t first, Py_ssize_t count):
    """(count, 2) uint64: uuids number ``first``, ``first + 1``, ... of the sequence of a seed, in the form of version
    4.

    Uuid i is elements 2i and 2i + 1 of splitmix64 from a state that is itself mixed from the seed. O(count).
    """
    if first < 0 or count < 0:
        raise ValueError(f"first and count must not be negative: {first}, {count}")
    cdef uint64_t state = splitmix(<uint64_t>(PyNumber_Index(seed) & 0xFFFF_FFFF_FFFF_FFFF) + GAMMA)
    cdef int64_t i
    result = np.empty((count, 2), dtype=np.uint64)
    cdef uint64_t[:, ::1] out = result
    state += 2 * <uint64_t>first * GAMMA
    for i in range(count):
        state += GAMMA
        out[i, 0] = splitmix(state) & 0xFFFF_FFFF_FFFF_0FFFu | 0x4000u
        state += GAMMA
        out[i, 1] = splitmix(state) & 0x3FFF_FFFF_FFFF_FFFFu | 0x8000_0000_0000_0000u
    return result
