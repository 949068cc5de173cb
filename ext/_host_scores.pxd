"""Contract of the scores of hosts by their devices, read from the columns."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from ._devices cimport mix_t, rule_t, shape_t
from ._fleet cimport Columns

cdef enum:
    NOT_KEPT = -1              # class of a row of which nothing is kept

cdef class KeptFragments:  # by row, the fragmentation of a host as it was seen last; all scores by one mix share it
    cdef double* lost
    cdef int64_t* cpu          # of what it is: thousandths of CPUs,
    cdef int32_t* host_class   # its class,
    cdef int32_t* idle         # [capacity][width] and of each device
    cdef int64_t capacity
    cdef int32_t width

    cdef double of(self, mix_t* mix, int32_t row, int32_t host_class, int64_t cpu, const int32_t* idle) noexcept nogil

cdef class HostScores:
    cdef Columns columns
    cdef const int32_t[:, ::1] below
    cdef const uint8_t[:, ::1] allowed
    cdef rule_t rule
    cdef shape_t asked
    cdef uint64_t key
    cdef int64_t capacity, cpu_milli
    cdef int32_t cpu, device, width
    cdef tuple kept
    cdef KeptFragments fragments

    cdef bint alike(self, HostScores other, Columns columns) noexcept
    cdef int check(self) except -1
    cdef double score(self, int32_t row, const int32_t* tags, uint64_t* taken) noexcept nogil
