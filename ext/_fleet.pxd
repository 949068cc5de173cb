"""Contract of the fleet kernel: host columns, change log, claims, consumers and server groups as C arrays."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ._tables cimport UuidTable

cdef enum:
    # Rows of the float64 host column block; placement/fleet/columns.py names them in this order.
    FREE_RAM_MB = 0
    FREE_VCPUS = 1
    FREE_DISK_MB = 2
    NUM_IO_OPS = 3
    NUM_INSTANCES = 4
    FAILED_BUILDS = 5
    HYPERVISOR_VERSION = 6
    PCI_WEIGHT = 7
    VCPUS_USED = 8
    VCPUS_TOTAL = 9
    CPU_ALLOCATION_RATIO = 10
    SERVICE_UP = 11
    TOTAL_USABLE_RAM_MB = 12
    RAM_ALLOCATION_RATIO = 13

cdef enum:
    # Consumer flags.
    BUILDING = 1      # counted in num_io_ops
    REPORTED = 2      # known from a host report; holds no allocation
    SEEN = 4          # named by a host report since it was claimed
    UNCOUNTED = 8     # its host's figures do not include it
    NOT_INSTANCE = 16 # not counted in num_instances
    NAMED = 128       # internal: set while a batch that names the consumer is checked

cdef struct columns_t:
    int64_t capacity       # rows allocated; the stride of every 2-D block
    int64_t rows           # rows in use or freed: all row ids are below
    int32_t classes        # resource classes K
    int64_t* avail         # [K, capacity] min(limit - used, max_unit); 0 without inventory
    int64_t* used          # [K, capacity]
    int64_t* limit         # [K, capacity] floor((total - reserved) * allocation_ratio)
    int64_t* min_unit      # [K, capacity]
    int64_t* max_unit      # [K, capacity]
    int64_t* step_size     # [K, capacity]
    double* host           # [C, capacity] see the enum above
    int32_t* class_of      # [capacity] host class id: all static fields, interned
    int64_t* generation    # [capacity] provider generation
    int32_t* first         # [capacity] first consumer on the row, -1 none
    int32_t* log           # changed rows, oldest first
    int64_t log_length
    int64_t log_capacity
    int64_t log_base       # version of log[0]

cdef struct shape_t:
    # What one consumer takes of its host: resource amounts and Nova's own figures.
    int32_t start          # into shape_class / shape_amount
    int32_t count
    double vcpus
    double memory_mb
    double disk_mb

cdef struct group_t:
    int32_t policy         # POLICY_*
    int32_t at_most        # max_server_per_host
    int32_t count
    int32_t capacity       # a power of two
    int32_t coming         # while a batch is checked: how many guests name the group
    int32_t* rows
    int32_t* members       # members on rows[i]
    int32_t* slots         # [2 * capacity] positions in rows by row, -1: empty; NULL while the group is small

cdef enum:
    NO_POLICY = 0
    AFFINITY = 1
    ANTI_AFFINITY = 2
    SOFT_AFFINITY = 3
    SOFT_ANTI_AFFINITY = 4

cdef class Columns:
    cdef columns_t c
    cdef object arrays                 # keeps the numpy arrays alive
    # shapes
    cdef shape_t* shapes
    cdef int32_t shape_count, shape_capacity
    cdef int32_t* shape_class
    cdef int64_t* shape_amount
    cdef int32_t shape_fill, shape_room
    # consumers, by dense id
    cdef readonly UuidTable consumers
    cdef uint64_t* uuid_hi
    cdef uint64_t* uuid_lo
    cdef int32_t* consumer_row         # -1: id is free
    cdef int32_t* consumer_shape       # -1: reported only
    cdef int32_t* consumer_project
    cdef int32_t* consumer_user
    cdef int32_t* consumer_group       # -1: none
    cdef int32_t* consumer_next
    cdef int32_t* consumer_previous
    cdef int32_t* consumer_generation
    cdef int32_t* project_first        # by project modulo capacity: the newest consumer of a list; -1: none
    cdef int32_t* project_next
    cdef int32_t* project_previous
    cdef uint8_t* consumer_flags
    cdef int32_t consumer_fill, consumer_capacity, free_consumer
    cdef readonly int32_t consumer_count
    # server groups
    cdef group_t* groups
    cdef int32_t group_fill, group_capacity

    cdef void touch(self, int32_t row) noexcept nogil
    cdef void take(self, int32_t row, int32_t shape, int sign, uint8_t flags) noexcept nogil
    cdef bint fits(self, int32_t row, int32_t shape) noexcept nogil
    cdef int reserve_log(self, int64_t extra) except -1
    cdef int reserve_consumers(self, int64_t extra) except -1
    cdef int32_t add(self, uint64_t hi, uint64_t lo, int32_t row, int32_t shape, int32_t project, int32_t user,
                     int32_t group, uint8_t flags) noexcept nogil
    cdef void drop(self, int32_t consumer) noexcept nogil
    cdef void link_project(self, int32_t consumer) noexcept nogil
    cdef void link_projects(self) noexcept nogil
    cdef int reserve_group(self, int32_t group, int64_t extra) except -1
    cdef int32_t place_in_group(self, group_t* g, int32_t row) noexcept nogil
    cdef void leave_group_slot(self, group_t* g, int32_t row) noexcept nogil
    cdef void join_group(self, int32_t group, int32_t row, int32_t members) noexcept nogil
