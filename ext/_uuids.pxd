"""Contract of the table of uuids, and of uuids in text."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef struct uuid_slot_t:
    uint64_t hi
    uint64_t lo
    uint32_t taken_by      # value + 1; 0: empty

cdef class UuidTable:
    cdef uuid_slot_t* slots            # linear probing, no tombstones
    cdef uint64_t mask                 # slots - 1, a power of two less one
    cdef int64_t live                  # uuids
    cdef int64_t room                  # uuids that fit before the table must grow

    cdef int find(self, uint64_t hi, uint64_t lo) noexcept nogil                       # value or -1
    cdef int insert(self, uint64_t hi, uint64_t lo, int32_t value) noexcept nogil      # 0; 1 present; -1 no room
    cdef int remove(self, uint64_t hi, uint64_t lo) noexcept nogil                     # value or -1
    cdef int reserve(self, int64_t extra) except -1                                    # room for `extra` more inserts
    cdef uint64_t* parsed(self, list items) except NULL
    cdef uuid_slot_t* slot_of(self, uint64_t hi, uint64_t lo) noexcept nogil

cdef int parse_uuid_str(object text, uint64_t* hi, uint64_t* lo) except -1
cdef str uuid_text(uint64_t hi, uint64_t lo)
