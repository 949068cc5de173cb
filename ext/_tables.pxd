"""Contract of the hash table of names."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef struct name_t:
    # A name's entry in the arena; the entry is rounded up to a whole number of name_t.
    int32_t id
    int32_t length         # in bytes
    # char text[length]

cdef struct name_slot_t:
    uint32_t tag           # 32 bits of the name's hash; the low ones say where the slot should be
    uint32_t taken_by      # the name's place in the arena + 1; 0: empty

cdef class NameTable:
    # Places in the arena are counted in name_t. A lookup touches one slot and one entry.
    cdef int64_t* places               # [room] by id: the name's place; of a freed id: -2 - the id freed before
    cdef int64_t room                  # ids that fit
    cdef int32_t fill                  # ids handed out, freed ones included
    cdef int32_t live                  # names
    cdef int32_t last_freed            # the next add's id, -1 none
    cdef name_t* arena                 # the names, in order of insertion
    cdef int64_t arena_room
    cdef int64_t arena_fill
    cdef int64_t garbage               # bytes of the arena that no id uses
    cdef name_slot_t* slots            # linear probing, no tombstones
    cdef uint64_t mask                 # slots - 1, a power of two less one

    cdef int32_t lookup(self, const char* text, Py_ssize_t length, uint32_t tag) noexcept nogil
    cdef void link(self, int64_t place, uint32_t tag) noexcept nogil
    cdef void unlink(self, int32_t id) noexcept nogil
    cdef uint32_t tag_at(self, int64_t place) noexcept nogil
    cdef int reserve_slots(self, int64_t live) except -1
    cdef int reserve_ids(self, int64_t ids) except -1
    cdef int reserve_text(self, int64_t length) except -1
    cdef char* open(self, int32_t id) noexcept nogil
    cdef void close(self, int32_t id, Py_ssize_t length) noexcept nogil
    cdef void forget(self, int32_t id) noexcept nogil
    cdef void compact(self) noexcept nogil
    cdef int32_t take(self, const char* text, Py_ssize_t length, uint32_t tag) except -1
    cdef object text_of(self, int32_t id)
    cdef int demand(self, int64_t id) except -1
    cdef int append_strings(self, tuple names) except -1
    cdef int append_bytes(self, const char* items, Py_ssize_t count, Py_ssize_t size) except -1
    cdef int append_ucs4(self, const uint32_t* items, Py_ssize_t count, Py_ssize_t size) except -1
    cdef int index(self, int32_t first, int32_t count) except -1
