"""Contract of the ranking kernel: exact best rows for one compiled request signature."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from .._fleet cimport Columns
from ._host_index cimport HostIndex
from ._state cimport ranking_t, way_t

cdef class Ranking:
    cdef ranking_t r
    cdef readonly Columns columns
    cdef readonly HostIndex index
    cdef Ranking origin                # whose results by host class this one shares
    cdef dict arrays                   # keeps the arrays that the pointers above lead to
    cdef int top_room

    cdef bint can_search(self) noexcept
    cdef int find_classes(self) except -1
    cdef int catch_up(self) except -1
    cdef int check_capacity(self) except -1
    cdef int check_own_classes(self) except -1
    cdef int reserve_top(self, int64_t wanted) except -1
    cdef Ranking another(self)
    cdef void sync(self) noexcept nogil
    cdef void search_as(self, const int64_t* amounts) noexcept nogil
    cdef int worth(self, way_t* way) noexcept nogil
    cdef bint keep_rows(self) noexcept nogil
    cdef void decide(self, int32_t group, int32_t wanted, uint64_t seed) noexcept nogil
    cdef void tally(self, int32_t group, int64_t* out) noexcept nogil
    cdef void weigh_row(self, int32_t row, double members, double* out) noexcept nogil
    cdef bint passes(self, int32_t row) noexcept nogil
