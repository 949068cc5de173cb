"""Contract of the table of request shapes."""

from libc.stdint cimport int32_t, int64_t

from ._fleet cimport Columns
from .ranking._ranking cimport Ranking
from .ranking._state cimport way_t

cdef enum:
    AMOUNTS = 8            # resource classes whose amounts tell sizes apart

cdef struct size_row_t:
    int32_t guest          # shape of the consumer that is added
    int32_t count          # amounts; -1: those that the ranking was made with
    int64_t amounts[8]

cdef struct shape_t:
    int32_t ranking, size
    way_t way

cdef class Shapes:
    cdef readonly Columns columns
    cdef readonly list rankings        # by number
    cdef list searchers                # by number: a copy of the ranking that takes the amounts of each size in turn, or None
    cdef list own                      # by shape: a ranking with rows of its own, or None
    cdef dict numbers                  # ranking << 32 | size -> shape
    cdef shape_t* shapes
    cdef size_row_t* sizes
    cdef int64_t room, size_count, size_room

    cdef int32_t number_of(self, int32_t ranking, int32_t size) except -1
    cdef int check(self, int32_t shape) except -1
    cdef Ranking ready(self, int32_t shape)
    cdef void note(self, int32_t shape, Ranking ranking) noexcept
