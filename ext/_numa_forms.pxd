"""Contract of the encodings of NUMA cells and guests; ``_numa.NumaTable`` documents them."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from ._numa_rules cimport cell_t, shape_t, want_t

cdef tuple parsed(const int64_t[::1] words, double cpu_ratio, double ram_ratio)
cdef list written(const shape_t* shape, const int64_t* state)
cdef list changing(const shape_t* shape, const int64_t* state)
cdef list cpu_list(const uint64_t* mask, const cell_t* cell)
cdef int check_state(const shape_t* shape, const int64_t* state) except -1
cdef int32_t read_wants(const int64_t[::1] words, want_t* wants) except -1
cdef int walk(const int64_t[::1] words, const shape_t* shape, int64_t* state, int32_t sign, bint apply) except -1
