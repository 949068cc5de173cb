"""Declarations of the C of the ranking kernel (``state.h``, ``host_search.h``): what the Cython modules read of it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from .._fleet cimport columns_t

cdef extern from "debug.h" nogil:
    void HOSTLER_ASSERT(bint condition)

cdef extern from "vector_fit.h":
    ctypedef struct hostler_figures:
        const double* vcpus_total
        const double* cpu_ratio
        const double* vcpus_used
        const double* ram_total_mb
        const double* ram_ratio
        const double* free_ram_mb
    ctypedef struct hostler_wish:
        double asked[2]
        double weight[2]

cdef extern from "ranking/host_search.h" nogil:
    int RULES "HOSTLER_RULES"
    int TRACKED "HOSTLER_TRACKED"
    ctypedef struct hostler_class_counts:
        pass
    ctypedef struct hostler_index:
        hostler_class_counts* counts
        int32_t width
        int32_t* source
        int64_t rows, capacity, seen, changes, builds, population, bytes, counted_from
        double* values
        int32_t* row_at
        int32_t* class_at
        int32_t* place_of
        int32_t* class_rows
        int32_t class_room
        uint8_t* aside
    ctypedef struct hostler_query:
        int64_t visited
    int64_t hostler_bytes_of_lists(const hostler_class_counts* counts)
    int32_t hostler_wrong_list(const hostler_index* index)
    int64_t hostler_wrong_score(const hostler_index* index)
    int32_t hostler_slot_of(const hostler_index* index, int32_t source)
    void hostler_index_free(hostler_index* index)

cdef extern from "ranking/state.h":
    enum:
        FANOUT
        LEVELS
        TERMS
        STAGES
        NOT_A_HOST
        SOURCE_COLUMN
        SOURCE_CLASS
        SOURCE_ROW
        SOURCE_GROUP
        SOURCE_PACKING
        DOT_PRODUCT
        L2_NORM
        COSINE
        DELTA_PERP
    ctypedef struct shared_t:
        hostler_index index
        hostler_query query
        int64_t counts[256]
        void* counted
        int64_t held_bytes
        int64_t held_room
        bint failed
    ctypedef struct need_t:
        int32_t resource
        uint8_t stage
        bint units
        int64_t amount
    ctypedef struct bound_t:
        int32_t column
        uint8_t stage
        double low, high
    ctypedef struct mask_t:
        uint8_t* passes
        uint8_t stage
    ctypedef struct term_t:
        int32_t source
        int32_t column
        double* raw
        double floor
        double* values
        bint has_minval, has_maxval
        bint steady
        double minval, maxval
        double multiplier
        double* multipliers
        double least_multiplier, greatest_multiplier
        int32_t high_side
        int32_t low_side
        double group_factor
        int32_t formula
        bint by_load
        hostler_wish wish
        double low, range
        double stored_low, stored_range
        double value_low, value_high
    ctypedef struct way_t:
        int64_t asked
        int64_t asks
        int64_t gap
        int64_t visited
        int64_t spent
    ctypedef struct ranking_t:
        columns_t* fleet
        shared_t* shared
        bint held
        int32_t* below
        int64_t* base
        ranking_t* lender
        int64_t edition
        way_t way
        int64_t counts_at
        int64_t capacity
        uint8_t affinity_stage, anti_affinity_stage
        int64_t counted
        int64_t seen
        uint8_t* class_stage
        int32_t class_count
        need_t* needs
        bound_t* bounds
        mask_t* masks
        term_t* terms
        int32_t need_count, bound_count, mask_count, term_count, side_count
        int32_t side_term[48]
        bint packing, by_load
        hostler_figures figures
        uint8_t* stage
        double* score
        int64_t* counts
        int64_t nodes
        int32_t levels
        int64_t level_start[8]
        int64_t level_size[8]
        double* best
        uint8_t* leader
        uint8_t* aside
        int32_t wanted, found
        int32_t* top_row
        double* top_score
        double slack
        int64_t work
        int64_t rescores, rebuilds
        bint drifted
        bint shuffle
        int64_t subset
        uint64_t seed
        uint64_t drawn
        int64_t pick
        int32_t* ties
        int32_t tie_count
