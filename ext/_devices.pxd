"""Contract of the device kernel: the rules by which nodes are scored."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

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

cdef double fragments(mix_t* mix, int64_t node, int64_t cpu, const int32_t* idle, int32_t width) noexcept nogil
cdef uint64_t pick(int32_t policy, shape_t* asked, const int32_t* idle, int32_t width, uint64_t key,
                   int64_t row) noexcept nogil
cdef int64_t score_node(rule_t* rule, shape_t* asked, int64_t node, int64_t row, int64_t cpu, const int32_t* idle,
                        const int32_t* tags, int32_t width, double before, uint64_t key, uint64_t* taken) noexcept nogil
cdef int set_rule(rule_t* rule, int policy, double largest_cpu, double largest_gpu, const int64_t[:, ::1] typical,
                  const double[::1] share, const uint8_t[:, ::1] allowed, Py_ssize_t nodes) except -1
cdef int check_shape(int64_t cpu, int64_t milli, int64_t count, Py_ssize_t width) except -1
