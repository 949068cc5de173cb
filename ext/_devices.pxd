"""Contract of the device kernel: a request's scores of hosts, read from the columns."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from ._fleet cimport Columns

cdef enum:
    BEST_FIT = 0
    DOT_PRODUCT = 1
    PACKING = 2
    CLUSTERING = 3
    FRAGMENTATION = 4
    RANDOM = 5
    MOST = 64              # devices of a node: they fit the bits of a mask
    WHOLE = 1000           # thousandths of a device
    NO_ROOM = -2147483648  # score of a node that the request does not fit
    NOT_KEPT = -1          # class of a row of which nothing is kept

cdef struct shape_t:
    int64_t cpu            # thousandths
    int64_t milli          # of each device
    int64_t count          # devices

cdef struct mix_t:         # the typical requests
    int64_t* shapes        # [size][3] cpu, milli, count
    double* share          # [size]
    uint8_t* allowed       # [size][nodes] whether a node's devices are of a kind that it takes
    int64_t size, nodes

cdef struct rule_t:
    int32_t policy
    double largest_cpu, largest_gpu
    mix_t mix

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
