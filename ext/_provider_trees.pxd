"""Contract of the kernel that counts provider trees."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from ._fleet cimport Columns, columns_t

cdef enum:
    NONE = 0
    SOME = 1
    UNSURE = 2      # a search has to tell
    JUDGED = 2      # marks of ``update``: a tree is judged once
    OTHER = 4
    NAMED = 8

cdef struct need_t:
    int32_t resource
    bint units             # min_unit and step_size are judged, too
    int64_t amount

cdef struct slot_t:        # ``count`` equal slots
    int32_t first_need, needs
    const uint8_t* traits  # by host class, NULL: all pass
    const uint8_t* member
    const uint8_t* outcast
    int32_t tree           # the only one, -1: any
    bint collective        # of the unsuffixed group: the root's aggregates count for each provider
    bint apart             # each of the slots from a provider of its own
    int64_t count


cdef class TreeCounts:
    cdef Columns columns
    cdef int64_t capacity, classes
    cdef const int32_t[::1] root, tree_of, rows
    cdef const int64_t[::1] starts
    cdef const uint8_t[::1] unsure
    cdef need_t* needs
    cdef slot_t* slots
    cdef int32_t slot_count, required_count
    cdef int64_t filled                # slots in all
    cdef const uint8_t** required
    cdef const uint8_t* roots
    cdef list kept

    cdef const uint8_t* mask(self, array) except? NULL
    cdef int check(self) except -1
    cdef bint able(self, const slot_t* slot, int32_t row, int32_t tree, int32_t top) noexcept nogil
    cdef int64_t times(self, const slot_t* slot, int32_t row) noexcept nogil
    cdef int judge(self, int32_t row, int32_t* way) noexcept nogil
