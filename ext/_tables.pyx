"""A hash table without an object per entry: names to dense ids. ``_uuids.pyx`` has that of uuids.

Answers depend on the inserted values and their order, never on a seed, an address or the time. Hashes are keyed by a
random secret of the process, so that callers cannot choose names or uuids that collide. tables_py.py is the pure-Python
twin; tests compare them call by call.
"""

from cpython.number cimport PyNumber_Index
from libc.stdint cimport INT32_MAX, UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

import os

import numpy as np

cdef extern from "Python.h":
    bint PyUnicode_Check(object)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    void PyErr_Clear()
    str PyUnicode_FromKindAndData(int, const void*, Py_ssize_t)
    str PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*)
    str PyUnicode_DecodeASCII(const char*, Py_ssize_t, const char*)

cdef extern from "tables.h":
    void prefetch "hostler_prefetch"(const void*) nogil
    void set_key "hostler_set_key"(const unsigned char*, size_t) nogil
    uint64_t hash_bytes "hostler_hash_bytes"(const char*, size_t) nogil
    bint is_ascii "hostler_is_ascii"(const char*, size_t) nogil
    Py_ssize_t unpadded_bytes "hostler_unpadded_bytes"(const char*, Py_ssize_t) nogil
    Py_ssize_t unpadded_ucs4 "hostler_unpadded_ucs4"(const uint32_t*, Py_ssize_t) nogil
    Py_ssize_t utf8_of_ucs4 "hostler_utf8_of_ucs4"(const uint32_t*, Py_ssize_t, char*) nogil

cdef enum:
    SLOTS = 8                # of an empty table
    AHEAD = 16               # entries between a prefetch and its use
    MUCH_GARBAGE = 1 << 13   # places in the arena; less is not worth a compaction

cdef int64_t UNCHAINED = -(1 << 40)           # in place of a freed id that is not yet in the chain of freed ids


cdef bytearray secret = bytearray(os.urandom(32))
secret[24] |= 1   # the last word is a factor and may not be 0
set_key(secret, len(secret))


cdef inline const char* utf8_of(object name, Py_ssize_t* length) except NULL:
    """The name's UTF-8 bytes, which live as long as ``name``."""
    if not PyUnicode_Check(name):
        raise TypeError(f"a name must be a str, not {type(name).__name__}")
    cdef const char* text = PyUnicode_AsUTF8AndSize(name, length)
    if length[0] > INT32_MAX:
        raise ValueError("a name must be shorter than 2 GiB")
    return text


cdef inline int64_t entry_size(int64_t length) noexcept nogil:
    """Places that a name of so many bytes takes in the arena."""
    return 1 + (length + <int64_t>sizeof(name_t) - 1) // <int64_t>sizeof(name_t)


cdef inline uint32_t tag_of(const char* text, Py_ssize_t length) noexcept nogil:
    return <uint32_t>(hash_bytes(text, length) >> 32)


cdef object column(object arrays, str name, object dtype):
    """The one-dimensional array of that name, or ValueError."""
    if name not in arrays:
        raise ValueError(f"array {name!r} is missing")
    array = arrays[name]
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"array {name!r} must be one-dimensional, of {np.dtype(dtype).name}")
    return np.ascontiguousarray(array)


cdef class NameTable:
    """Dense ids 0, 1, 2, ... for unique strings, each way.

    Bytes lie in one arena, ids in one hash table: about 32 bytes a name beside its own. A freed id is the next one that
    ``add`` gives out, the last freed first. Running times count a name's length as constant.
    """

    def __cinit__(self):
        self.last_freed = -1
        self.slots = <name_slot_t*>calloc(SLOTS, sizeof(name_slot_t))
        if self.slots == NULL:
            raise MemoryError
        self.mask = SLOTS - 1

    def __dealloc__(self):
        free(self.places)
        free(self.arena)
        free(self.slots)

    # ----- the hash table -----

    cdef int32_t lookup(self, const char* text, Py_ssize_t length, uint32_t tag) noexcept nogil:
        cdef uint64_t at = tag & self.mask
        cdef name_t* name
        while self.slots[at].taken_by != 0:
            if self.slots[at].tag == tag:
                name = self.arena + (self.slots[at].taken_by - 1)
                if name.length == length and memcmp(name + 1, text, length) == 0:
                    return name.id
            at = (at + 1) & self.mask
        return -1

    cdef uint32_t tag_at(self, int64_t place) noexcept nogil:
        return tag_of(<const char*>(self.arena + place + 1), self.arena[place].length)

    cdef void link(self, int64_t place, uint32_t tag) noexcept nogil:
        cdef uint64_t at = tag & self.mask
        while self.slots[at].taken_by != 0:
            at = (at + 1) & self.mask
        self.slots[at].tag = tag
        self.slots[at].taken_by = <uint32_t>(place + 1)

    cdef void unlink(self, int32_t id) noexcept nogil:
        """Remove the name's slot and close the gap, so that no probe meets an empty slot before its own."""
        cdef uint32_t taken_by = <uint32_t>(self.places[id] + 1)
        cdef uint64_t hole = self.tag_at(self.places[id]) & self.mask
        cdef uint64_t at
        while self.slots[hole].taken_by != taken_by:
            hole = (hole + 1) & self.mask
        at = (hole + 1) & self.mask
        while self.slots[at].taken_by != 0:
            if ((at - self.slots[at].tag) & self.mask) >= ((at - hole) & self.mask):   # it may stand in the hole
                self.slots[hole] = self.slots[at]
                hole = at
            at = (at + 1) & self.mask
        self.slots[hole].taken_by = 0

    cdef int reserve_slots(self, int64_t live) except -1:
        """Slots for that many names at a load of at most 2/3."""
        cdef uint64_t count = self.mask + 1, at, to, mask
        while <uint64_t>live * 3 > count * 2:
            count *= 2
        if count == self.mask + 1:
            return 0
        cdef name_slot_t* slots = <name_slot_t*>calloc(count, sizeof(name_slot_t))
        if slots == NULL:
            raise MemoryError
        mask = count - 1
        for at in range(self.mask + 1):
            if self.slots[at].taken_by != 0:
                to = self.slots[at].tag & mask
                while slots[to].taken_by != 0:
                    to = (to + 1) & mask
                slots[to] = self.slots[at]
        free(self.slots)
        self.slots = slots
        self.mask = mask
        return 0

    # ----- ids and the arena -----

    cdef int reserve_ids(self, int64_t ids) except -1:
        cdef int64_t room = self.fill + ids
        cdef void* block
        if room <= self.room:
            return 0
        if room > INT32_MAX:
            raise OverflowError("a name table holds at most 2**31 - 1 names")
        room = max(room, 2 * self.room, SLOTS)
        block = realloc(self.places, room * sizeof(int64_t))
        if block == NULL:
            raise MemoryError
        self.places = <int64_t*>block
        self.room = room
        return 0

    cdef int reserve_text(self, int64_t length) except -1:
        """Reserve space in the arena for one more name of at most that many bytes."""
        cdef int64_t room = self.arena_fill + entry_size(length)
        cdef void* block
        if room <= self.arena_room:
            return 0
        if room > UINT32_MAX:
            raise OverflowError("a name table holds at most 32 GiB of names")
        room = max(room, 2 * self.arena_room, 4 * SLOTS)
        block = realloc(self.arena, room * sizeof(name_t))
        if block == NULL:
            raise MemoryError
        self.arena = <name_t*>block
        self.arena_room = room
        return 0

    cdef char* open(self, int32_t id) noexcept nogil:
        """Where the id's bytes are to be written; there is room, and close() follows."""
        self.places[id] = self.arena_fill
        self.arena[self.arena_fill].id = id
        return <char*>(self.arena + self.arena_fill + 1)

    cdef void close(self, int32_t id, Py_ssize_t length) noexcept nogil:
        self.arena[self.arena_fill].length = <int32_t>length
        self.arena_fill += entry_size(length)

    cdef void forget(self, int32_t id) noexcept nogil:
        """Mark the bytes of an id as garbage."""
        cdef int64_t place = self.places[id]
        cdef int64_t size = entry_size(self.arena[place].length)
        if place + size == self.arena_fill:
            self.arena_fill = place
        else:
            self.garbage += size

    cdef void compact(self) noexcept nogil:
        """Compact the arena once half of it is garbage: constant cost per byte of garbage."""
        cdef int64_t place, size, to = 0, room = self.arena_fill - self.garbage + SLOTS
        cdef int32_t id
        cdef uint64_t at
        cdef name_t* arena
        if self.garbage < MUCH_GARBAGE or 2 * self.garbage < self.arena_fill:
            return
        arena = <name_t*>malloc(room * sizeof(name_t))
        if arena == NULL:
            return   # the next one that frees a name tries again
        for id in range(self.fill):
            place = self.places[id]
            if place >= 0:
                size = entry_size(self.arena[place].length)
                memcpy(arena + to, self.arena + place, size * sizeof(name_t))
                self.places[id] = to
                to += size
        for at in range(self.mask + 1):
            if self.slots[at].taken_by != 0:
                self.slots[at].taken_by = <uint32_t>(self.places[self.arena[self.slots[at].taken_by - 1].id] + 1)
        free(self.arena)
        self.arena = arena
        self.arena_room = room
        self.arena_fill = to
        self.garbage = 0

    cdef int32_t take(self, const char* text, Py_ssize_t length, uint32_t tag) except -1:
        """A new name, known to be absent, under the last freed id or else the next one."""
        cdef int32_t id = self.last_freed
        if id < 0:
            self.reserve_ids(1)
        self.reserve_text(length)
        self.reserve_slots(<int64_t>self.live + 1)
        if id < 0:
            id = self.fill
            self.fill += 1
        else:
            self.last_freed = <int32_t>(-2 - self.places[id])
        memcpy(self.open(id), text, length)
        self.close(id, length)
        self.link(self.places[id], tag)
        self.live += 1
        return id

    cdef object text_of(self, int32_t id):
        cdef name_t* name = self.arena + self.places[id]
        return PyUnicode_DecodeUTF8(<const char*>(name + 1), name.length, NULL)

    cdef int demand(self, int64_t id) except -1:
        if id < 0 or id >= self.fill or self.places[id] < 0:
            raise KeyError(id)
        return 0

    # ----- many at once: first the bytes of ids fill, fill + 1, ..., then their slots -----

    cdef int append_strings(self, tuple names) except -1:
        cdef Py_ssize_t length, i, count = len(names)
        cdef const char* text
        for i in range(count):
            text = utf8_of(names[i], &length)
            self.reserve_text(length)
            memcpy(self.open(self.fill + <int32_t>i), text, length)
            self.close(self.fill + <int32_t>i, length)
        return 0

    cdef int append_bytes(self, const char* items, Py_ssize_t count, Py_ssize_t size) except -1:
        cdef Py_ssize_t length, i
        cdef const char* text = items
        for i in range(count):
            length = unpadded_bytes(text, size)
            if not is_ascii(text, length):
                PyUnicode_DecodeUTF8(text, length, NULL)   # raises if it is not text
            self.reserve_text(length)
            memcpy(self.open(self.fill + <int32_t>i), text, length)
            self.close(self.fill + <int32_t>i, length)
            text += size
        return 0

    cdef int append_ucs4(self, const uint32_t* items, Py_ssize_t count, Py_ssize_t size) except -1:
        cdef Py_ssize_t points, length, i
        for i in range(count):
            points = unpadded_ucs4(items + i * size, size)
            self.reserve_text(4 * points)
            length = utf8_of_ucs4(items + i * size, points, self.open(self.fill + <int32_t>i))
            if length < 0:
                PyUnicode_FromKindAndData(4, items + i * size, points).encode()   # raises what is wrong
                raise ValueError(f"item {i} is not text")
            self.close(self.fill + <int32_t>i, length)
        return 0

    cdef int index(self, int32_t first, int32_t count) except -1:
        """Give ``count`` ids from ``first`` on their slots (freed ones need none), or none of them and KeyError."""
        cdef int32_t i, id
        cdef int64_t place
        cdef name_t* name
        cdef uint32_t[AHEAD] tags   # of the next ids, whose slots are on their way from memory
        self.reserve_slots(<int64_t>self.live + count)
        for i in range(count + AHEAD):
            if i >= AHEAD:
                id = first + i - AHEAD
                place = self.places[id]
                if place >= 0:
                    name = self.arena + place
                    if self.lookup(<const char*>(name + 1), name.length, tags[i % AHEAD]) >= 0:
                        duplicate = self.text_of(id)
                        for id in range(id - 1, first - 1, -1):
                            if self.places[id] >= 0:
                                self.unlink(id)
                                self.live -= 1
                        raise KeyError(duplicate)
                    self.link(place, tags[i % AHEAD])
                    self.live += 1
            if i < count and self.places[first + i] >= 0:
                tags[i % AHEAD] = self.tag_at(self.places[first + i])
                prefetch(&self.slots[tags[i % AHEAD] & self.mask])
        return 0

    # ----- the table as Python sees it -----

    def __repr__(self):
        return f"<NameTable of {self.live} names>"

    def __len__(self):
        """Number of names. O(1)."""
        return self.live

    @property
    def span(self):
        """Number of ids handed out, freed ones included: every id is below. O(1)."""
        return self.fill

    def find(self, name):
        """The name's id, or -1. O(1)."""
        cdef Py_ssize_t length
        cdef const char* text = utf8_of(name, &length)
        return self.lookup(text, length, tag_of(text, length))

    def get(self, Py_ssize_t id):
        """The id's name; KeyError for an id that is freed or was never given. O(1)."""
        self.demand(id)
        return self.text_of(<int32_t>id)

    def add(self, name):
        """The new name's id; KeyError if the name is present. O(1), amortised."""
        cdef Py_ssize_t length
        cdef const char* text = utf8_of(name, &length)
        cdef uint32_t tag = tag_of(text, length)
        cdef int32_t id = self.lookup(text, length, tag)
        if id >= 0:
            raise KeyError(self.text_of(id))
        return self.take(text, length, tag)

    def intern(self, name):
        """The name's id; a new name is added. O(1), amortised."""
        cdef Py_ssize_t length
        cdef const char* text = utf8_of(name, &length)
        cdef uint32_t tag = tag_of(text, length)
        cdef int32_t id = self.lookup(text, length, tag)
        return id if id >= 0 else self.take(text, length, tag)

    def add_many(self, names):
        """The first of the new names' consecutive ids, which begin at ``span``: freed ids are left to ``add``.

        ``names`` is a sequence of str or a numpy array of strings or bytes (UTF-8). A name that is present, or comes
        twice, is a KeyError with that name, and the table is as before, as after any other error. O(k) for k names,
        amortised.
        """
        if isinstance(names, (str, bytes)):
            raise TypeError("names must be a sequence of names, not one")
        cdef int64_t arena_fill = self.arena_fill, count
        cdef const uint8_t[::1] raw
        cdef object items = names
        cdef str kind = "O"
        cdef Py_ssize_t size = 0
        if isinstance(names, np.ndarray):
            if names.ndim != 1:
                raise ValueError("names must be one-dimensional")
            kind = names.dtype.kind
            size = names.dtype.itemsize
            if kind not in "OSTU":
                raise TypeError(f"names must be strings, not {names.dtype}")
            if kind in "OT" or not size or not names.size:
                kind = "O"
                items = [name.decode() if isinstance(name, bytes) else name for name in names.tolist()]
            else:
                raw = np.ascontiguousarray(names, dtype=names.dtype.newbyteorder("=")).view(np.uint8)
        if kind == "O":
            items = tuple(items)
        count = len(items)
        self.reserve_ids(count)
        try:
            if kind == "S":
                self.append_bytes(<const char*>&raw[0], count, size)
            elif kind == "U":
                self.append_ucs4(<const uint32_t*>&raw[0], count, size // 4)
            else:
                self.append_strings(items)
            self.index(self.fill, <int32_t>count)
        except BaseException:
            self.arena_fill = arena_fill
            raise
        self.fill += <int32_t>count
        return self.fill - <int32_t>count

    def rename(self, Py_ssize_t id, name):
        """Another name for the id; KeyError with what is at fault, an unknown id or a name in use. O(1), amortised."""
        self.demand(id)
        cdef Py_ssize_t length
        cdef const char* text = utf8_of(name, &length)
        cdef uint32_t tag = tag_of(text, length)
        cdef int32_t other = self.lookup(text, length, tag)
        if other == id:
            return
        if other >= 0:
            raise KeyError(self.text_of(other))
        self.reserve_text(length)
        self.unlink(<int32_t>id)
        self.forget(<int32_t>id)
        memcpy(self.open(<int32_t>id), text, length)
        self.close(<int32_t>id, length)
        self.link(self.places[id], tag)
        self.compact()

    def discard(self, Py_ssize_t id):
        """Free the id and its name; KeyError for an unknown id. O(1), amortised."""
        self.demand(id)
        self.unlink(<int32_t>id)
        self.forget(<int32_t>id)
        self.places[id] = -2 - <int64_t>self.last_freed
        self.last_freed = <int32_t>id
        self.live -= 1
        self.compact()

    def restore(self, Py_ssize_t id, name):
        """Undo ``discard(id)``: only of the last freed id, else ValueError; KeyError if the name is present. O(1)."""
        if id < 0 or id != self.last_freed:
            raise ValueError(f"id {id} is not the last freed one")
        cdef Py_ssize_t length
        cdef const char* text = utf8_of(name, &length)
        cdef uint32_t tag = tag_of(text, length)
        cdef int32_t other = self.lookup(text, length, tag)
        if other >= 0:
            raise KeyError(self.text_of(other))
        self.take(text, length, tag)

    def truncate(self, Py_ssize_t span):
        """Undo the adds that raised ``span``: ids from ``span`` on never were. ValueError if one of them is freed.

        O(k) for k ids taken back, amortised.
        """
        if span < 0 or span > self.fill:
            raise ValueError(f"{span} is beyond the {self.fill} ids")
        cdef int64_t id
        for id in range(span, self.fill):
            if self.places[id] < 0:
                raise ValueError(f"id {id} is freed: undo that first")
        for id in range(self.fill - 1, span - 1, -1):
            self.unlink(<int32_t>id)
            self.forget(<int32_t>id)
            self.live -= 1
        self.fill = <int32_t>span
        self.compact()

    def to_arrays(self):
        """The whole state: ``lengths`` by id (-1: freed), ``text`` in order of the ids, ``free``, the last freed last.

        Equal tables give equal arrays, whatever their history. O(n) for n ids.
        """
        cdef int64_t total = 0, at = 0
        cdef int32_t id
        cdef name_t* name
        lengths = np.empty(self.fill, dtype=np.int32)
        free_ids = np.empty(self.fill - self.live, dtype=np.int32)
        cdef int32_t[::1] length = lengths
        cdef int32_t[::1] freed = free_ids
        for id in range(self.fill):
            length[id] = self.arena[self.places[id]].length if self.places[id] >= 0 else -1
            total += max(length[id], 0)
        text = np.empty(total, dtype=np.uint8)
        cdef uint8_t[::1] out = text
        for id in range(self.fill):
            if length[id] > 0:
                name = self.arena + self.places[id]
                memcpy(&out[at], name + 1, length[id])
                at += length[id]
        at = freed.shape[0]
        id = self.last_freed
        while id >= 0:
            at -= 1
            freed[at] = id
            id = <int32_t>(-2 - self.places[id])
        return {"lengths": lengths, "text": text, "free": free_ids}

    @staticmethod
    def from_arrays(arrays):
        """The table that ``to_arrays`` described; ValueError for arrays that describe no table. O(n) for n ids."""
        cdef const int32_t[::1] length = column(arrays, "lengths", np.int32)
        cdef const uint8_t[::1] text = column(arrays, "text", np.uint8)
        cdef const int32_t[::1] freed = column(arrays, "free", np.int32)
        cdef NameTable table = NameTable()
        cdef int64_t total = 0, at = 0, i
        cdef int32_t id, free_count = 0
        for i in range(length.shape[0]):
            if length[i] < -1:
                raise ValueError(f"id {i} has a length of {length[i]}")
            if length[i] < 0:
                free_count += 1
            else:
                total += length[i]
        if total != text.shape[0] or free_count != freed.shape[0]:
            raise ValueError("the arrays disagree on the number of bytes or of freed ids")
        cdef bint plain = total == 0 or is_ascii(<const char*>&text[0], total)
        table.reserve_ids(length.shape[0])
        for i in range(length.shape[0]):
            if length[i] < 0:
                table.places[i] = UNCHAINED
                continue
            table.reserve_text(length[i])
            if length[i] == 0:
                table.open(<int32_t>i)
            else:
                memcpy(table.open(<int32_t>i), &text[at], length[i])
            table.close(<int32_t>i, length[i])
            if not plain:
                table.text_of(<int32_t>i)
            at += length[i]
        table.fill = <int32_t>length.shape[0]
        for i in range(freed.shape[0]):
            id = freed[i]
            if id < 0 or id >= table.fill or table.places[id] != UNCHAINED:
                raise ValueError(f"id {id} is no freed one, or comes twice")
            table.places[id] = -2 - <int64_t>table.last_freed
            table.last_freed = id
        try:
            table.index(0, table.fill)
        except KeyError as error:
            raise ValueError(f"the name {error.args[0]!r} comes twice") from None
        return table

    def check(self):
        """Assert every invariant. O(n)."""
        cdef int32_t id, live = 0, freed = 0
        cdef int64_t total = 0
        cdef uint64_t at, before, slots = 0
        for id in range(self.fill):
            if self.places[id] < 0:
                continue
            live += 1
            total += entry_size(self.arena[self.places[id]].length)
            assert self.arena[self.places[id]].id == id, f"id {id} has another's place"
            assert self.find(self.text_of(id)) == id, f"id {id} is not found by its name"
        assert live == self.live, "the names are miscounted"
        assert total + self.garbage == self.arena_fill <= self.arena_room, "the arena is miscounted"
        id = self.last_freed
        while id >= 0:
            assert self.places[id] < 0, f"id {id} is in use and free"
            freed += 1
            assert freed <= self.fill, "the freed ids run in a circle"
            id = <int32_t>(-2 - self.places[id])
        assert live + freed == self.fill, "a freed id is lost"
        for at in range(self.mask + 1):
            if self.slots[at].taken_by:
                slots += 1
                before = self.slots[at].tag & self.mask
                while before != at:
                    assert self.slots[before].taken_by, f"slot {at} cannot be reached"
                    before = (before + 1) & self.mask
        assert slots == <uint64_t>live and 3 * slots <= 2 * (self.mask + 1), "the slots are miscounted or too full"
