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

cdef extern from "host_search.h" nogil:
    int RULES "HOSTLER_RULES"
    int TRACKED "HOSTLER_TRACKED"
    int BY_COLUMN "HOSTLER_BY_COLUMN"
    int BY_CLASS "HOSTLER_BY_CLASS"
    int CONSTANT "HOSTLER_CONSTANT"
    ctypedef struct hostler_index:
        int32_t width
        int32_t* source
        int64_t rows, capacity, seen, changes, builds, population, bytes
        double* values
        int32_t* row_at
        int32_t* class_at
        int32_t* place_of
        int32_t* class_rows
        int32_t class_room
        uint8_t* aside
    ctypedef struct hostler_fleet:
        int64_t capacity, rows
        const int64_t* available
        const double* host
        const int32_t* class_of
        int32_t classes
    ctypedef struct hostler_rule:
        int32_t slot, resource
        uint8_t stage, units
        int64_t amount
        double low, high
    ctypedef struct hostler_weigher:
        int32_t kind, slot
        int32_t has_minval, has_maxval
        double minval, maxval, constant
        const double* values
        double multiplier, least_multiplier, greatest_multiplier
        const double* multipliers
        double low, high, range, value_low, value_high
    ctypedef struct hostler_query:
        hostler_index* index
        const int64_t* min_unit
        const int64_t* step_size
        int64_t capacity
        int32_t rule_count, weigher_count, class_count
        hostler_rule* rules
        hostler_weigher* weighers
        const uint8_t* class_stage
        const int32_t* passing
        const int32_t* movable
        int32_t has_units, has_aside, wanted, found
        int32_t* top_row
        double* top_score
        int64_t visited
        int64_t* counts
    int hostler_index_sync(hostler_index* index, const hostler_fleet* fleet, const int32_t* log, int64_t log_base, int64_t log_length)
    void hostler_index_free(hostler_index* index)
    void hostler_count(hostler_query* query)
    void hostler_measure(hostler_query* query)
    void hostler_best(hostler_query* query)

cdef struct shared_t:
    # What all rankings of a fleet search together.
    hostler_index index
    hostler_query query    # of the decision at hand
    int64_t counts[256]    # rows by stage, of the decision at hand
    void* counted          # the ranking that `counts` is of
    int64_t held_bytes     # of the rankings that keep rows of their own
    int64_t held_room      # that these may take
    bint failed            # memory was short

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
    double value_low, value_high       # of SOURCE_CLASS: range over the classes that pass

cdef struct way_t:
    # What tells whether rows of its own are worth their upkeep to a shape of requests.
    int64_t asked          # change-log version of the latest decision
    int64_t asks           # decisions so far
    int64_t gap            # changes between two decisions, on average, times 16
    int64_t visited        # nodes that the latest search visited
    int64_t spent          # nodes visited by searches that rows of its own would have saved

cdef struct ranking_t:
    columns_t* fleet
    shared_t* shared       # NULL: the ranking keeps rows of its own, always
    bint held              # it keeps rows of its own: verdicts, stored scores and trees
    int32_t* below         # [2 * (class_count + 1)] classes below that pass, and those whose rows a rule may count elsewhere
    int64_t* base          # [STAGES] rows by the verdict on their class, and the population of the index that it stands for
    ranking_t* lender      # the ranking whose verdicts on classes, and values by class, this one shares; NULL: its own
    int64_t edition        # how often these were replaced
    way_t way
    int64_t counts_at      # change-log version of `counts`, where the ranking has no rows of its own
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
    int64_t* counts        # [STAGES] rows by stage; the shared ones where the ranking has no rows of its own
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
