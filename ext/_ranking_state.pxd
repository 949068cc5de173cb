"""What a ranking is made of: one compiled request signature, its verdict on every row, and the tournament trees over it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from ._fleet cimport columns_t

cdef extern from "debug.h" nogil:
    void HOSTLER_ASSERT(bint condition)
    void HOSTLER_ASSERT_INDEX(int64_t index, int64_t count)

cdef enum:
    FANOUT = 16            # rows of a block, and children of a tree node
    LEVELS = 8             # 16**8 rows are more than int32 can name
    TERMS = 24             # weighers of a policy
    STAGES = 256
    NOT_A_HOST = 255       # stage of rows that are never candidates

cdef enum:
    SOURCE_COLUMN = 0      # raw value: a host column
    SOURCE_CLASS = 1       # raw value: by host class
    SOURCE_ROW = 2         # raw value: an array of the ranking's own, one per row
    SOURCE_GROUP = 3       # raw value: factor * members of the request's server group on the row
    SOURCE_PACKING = 4     # raw value: a formula of vector packing

cdef enum:
    DOT_PRODUCT = 0
    L2_NORM = 1
    COSINE = 2
    DELTA_PERP = 3

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

cdef struct need_t:
    int32_t resource
    uint8_t stage
    bint units             # min_unit / step_size must be looked at
    int64_t amount

cdef struct bound_t:
    int32_t column
    uint8_t stage
    double low, high

cdef struct mask_t:
    uint8_t* passes        # [capacity]
    uint8_t stage

cdef struct term_t:
    int32_t source
    int32_t column
    double* raw            # where the raw values of rows lie now; NULL: by class or group
    double floor           # minval, or -inf
    double* values         # [classes] or [capacity], by source; of a formula, kept up to date with the verdicts
    bint has_minval, has_maxval
    bint steady            # raw values never change while the ranking lives
    double minval, maxval  # of values by class or row, none is above maxval
    double multiplier
    double* multipliers    # [classes], or NULL: by host class
    double least_multiplier, greatest_multiplier
    int32_t high_side      # tree that holds the greatest raw value; -1 for group terms, and if maxval is the high end
    int32_t low_side       # tree that holds minus the least; -1 if minval is the low end
    double group_factor
    int32_t formula        # of SOURCE_PACKING
    bint by_load           # the mean load of all hosts weighs the resources: every row's value changes with any row
    hostler_wish wish
    # normalisers of the decision at hand, and of the stored scores
    double low, range
    double stored_low, stored_range

cdef struct ranking_t:
    columns_t* fleet
    int64_t capacity
    uint8_t affinity_stage, anti_affinity_stage
    int64_t counted        # rows in `counts`
    int64_t seen           # change-log version the verdicts stand for; -1: never built
    uint8_t* class_stage   # [classes] 0, or the stage that refuses the class
    int32_t class_count
    need_t* needs
    bound_t* bounds
    mask_t* masks
    term_t* terms
    int32_t need_count, bound_count, mask_count, term_count, side_count
    int32_t side_term[48]  # which term a tree stands for
    bint packing, by_load  # some term is a formula; and one of these looks at the mean load
    hostler_figures figures
    uint8_t* stage         # [capacity] first refusing stage, 0 passes
    double* score          # [capacity] exact score under the stored normalisers, -inf where refused
    int64_t* counts        # [STAGES] rows by stage
    # trees: node i of the raw value trees at i * side_count + side, of the score's at side_count * nodes + i
    int64_t nodes
    int32_t levels
    int64_t level_start[8]
    int64_t level_size[8]
    double* best
    uint8_t* leader        # which child (or row) holds `best`, the first of equals
    # marks of rows set aside in the decision at hand
    uint8_t* aside         # [capacity]
    # search
    int32_t wanted, found
    int32_t* top_row
    double* top_score
    double slack
    int64_t work           # rows scored since the stored scores were made
    int64_t rescores, rebuilds
    bint drifted
    # choice by chance
    bint shuffle           # among the best of equal score
    int64_t subset         # one of so many best is taken
    uint64_t seed          # of the decision at hand
    uint64_t drawn         # words of it
    int64_t pick           # position of the one that is taken
    int32_t* ties          # [capacity] if shuffle: rows of the best score
    int32_t tie_count
