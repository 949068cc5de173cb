"""Contract of the fleet kernel: host columns, change log, claims, consumers and server groups as C arrays."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from ._uuids cimport UuidTable

cdef extern from "fleet.h":
    enum:
        FREE_RAM_MB
        FREE_VCPUS
        FREE_DISK_MB
        NUM_IO_OPS
        NUM_INSTANCES
        FAILED_BUILDS
        HYPERVISOR_VERSION
        PCI_WEIGHT
        VCPUS_USED
        VCPUS_TOTAL
        CPU_ALLOCATION_RATIO
        SERVICE_UP
        TOTAL_USABLE_RAM_MB
        RAM_ALLOCATION_RATIO
        NO_POLICY
        AFFINITY
        ANTI_AFFINITY
        SOFT_AFFINITY
        SOFT_ANTI_AFFINITY
    ctypedef struct columns_t:
        int64_t capacity
        int64_t rows
        int32_t classes
        int64_t* avail
        int64_t* used
        int64_t* limit
        int64_t* min_unit
        int64_t* max_unit
        int64_t* step_size
        double* host
        int32_t* class_of
        int64_t* generation
        int32_t* first
        int32_t* log
        int64_t log_length
        int64_t log_capacity
        int64_t log_base
    ctypedef struct group_t:
        int32_t policy
        int32_t at_most
        int32_t count
        int32_t capacity
        int32_t coming
        int32_t* rows
        int32_t* members
        int32_t* slots

cdef enum:
    # Consumer flags.
    BUILDING = 1      # counted in num_io_ops
    REPORTED = 2      # known from a host report; holds no allocation
    SEEN = 4          # named by a host report since it was claimed
    UNCOUNTED = 8     # its host's figures do not include it
    NOT_INSTANCE = 16 # not counted in num_instances
    NAMED = 128       # internal: set while a batch that names the consumer is checked

cdef struct shape_t:
    # What one consumer takes of its host: resource amounts and Nova's own figures.
    int32_t start          # into shape_class / shape_amount
    int32_t count
    double vcpus
    double memory_mb
    double disk_mb

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
