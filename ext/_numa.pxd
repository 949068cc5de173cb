"""Contract of the NUMA kernel: the NUMA state of many hosts in flat arrays, and requests compiled against it."""

from libc.stdint cimport int32_t, int64_t, uint32_t

from ._numa_rules cimport MOST_CELLS, shape_t, want_t

cdef class NumaProgram:
    cdef want_t wants[MOST_CELLS]
    cdef int32_t cells
    cdef int32_t packing       # fill used cells first
    cdef int32_t limited       # allocation ratios bind floating CPUs
    cdef int32_t needs_smt     # only hosts with SMT

cdef class NumaTable:
    cdef int32_t* shape_of     # [capacity] -1: no NUMA cells known
    cdef uint32_t* start       # [capacity] into arena
    cdef int64_t capacity
    cdef int64_t* arena        # states
    cdef int64_t arena_room, arena_fill
    cdef const shape_t** shapes
    cdef int32_t shape_room
    cdef list shape_blocks     # bytes or None; shapes[i] points into shape_blocks[i]
    cdef dict shape_ids        # bytes -> shape id
    cdef list shape_rows       # rows per shape
    cdef list free_shapes
    cdef dict free_states      # words -> [start]

    cdef bint fits(self, NumaProgram program, int32_t row) noexcept nogil
    cdef bint judged(self, NumaProgram program, int32_t row) noexcept nogil
    cdef int reserve_rows(self, int64_t rows) except -1
    cdef int64_t take_state(self, int64_t words) except -1
    cdef int32_t intern(self, bytes block) except -1
    cdef int forget(self, int32_t shape) except -1
    cdef int put(self, int64_t row, bytes block, const int64_t* state) except -1
    cdef int drop(self, int64_t row) except -1
