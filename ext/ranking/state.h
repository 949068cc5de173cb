/* What a ranking consists of: one compiled request signature, its result for every row, and the tournament trees over
 * them. */
#ifndef HOSTLER_RANKING_STATE_H
#define HOSTLER_RANKING_STATE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "debug.h"
#include "fleet.h"
#include "ranking/host_search.h"
#include "vector_fit.h"

#define HOSTLER_LEAST(a, b) ((b) < (a) ? (b) : (a))
#define HOSTLER_GREATEST(a, b) ((b) > (a) ? (b) : (a))

enum {
    FANOUT = 16, /* rows of a block, and children of a tree node */
    LEVELS = 8,  /* 16**8 rows are more than int32 can name */
    TERMS = 24,  /* weighers of a policy */
    STAGES = 256,
    NOT_A_HOST = 255, /* stage of rows that are never candidates */
};

enum {
    SOURCE_COLUMN = 0,  /* raw value: a host column */
    SOURCE_CLASS = 1,   /* raw value: by host class */
    SOURCE_ROW = 2,     /* raw value: an array of the ranking's own, one per row */
    SOURCE_GROUP = 3,   /* raw value: factor * members of the request's server group on the row */
    SOURCE_PACKING = 4, /* raw value: a formula of vector packing */
};

enum {
    DOT_PRODUCT = 0,
    L2_NORM = 1,
    COSINE = 2,
    DELTA_PERP = 3,
};

typedef struct shared {
    /* What all rankings of a fleet search together. */
    hostler_index index;
    hostler_query query; /* of the decision at hand */
    int64_t counts[256]; /* rows by stage, of the decision at hand */
    const void *counted; /* the ranking that `counts` is of */
    int64_t held_bytes;  /* of the rankings that keep rows of their own */
    int64_t held_room;   /* that these may take */
    int failed;          /* memory was short */
} shared_t;

typedef struct need {
    int32_t resource;
    uint8_t stage;
    int units; /* min_unit / step_size must be looked at */
    int64_t amount;
} need_t;

typedef struct bound {
    int32_t column;
    uint8_t stage;
    double low, high;
} bound_t;

typedef struct mask {
    uint8_t *passes; /* [capacity] */
    uint8_t stage;
} mask_t;

typedef struct term {
    int32_t source;
    int32_t column;
    double *raw;    /* where the raw values of rows lie now; NULL: by class or group */
    double floor;   /* minval, or -inf */
    double *values; /* [classes] or [capacity], by source; of a formula, kept up to date with the stages */
    int has_minval, has_maxval;
    int steady;            /* raw values never change while the ranking lives */
    double minval, maxval; /* of values by class or row, none is above maxval */
    double multiplier;
    double *multipliers; /* [classes], or NULL: by host class */
    double least_multiplier, greatest_multiplier;
    int32_t high_side; /* tree that holds the greatest raw value; -1 for group terms, and if maxval is the high end */
    int32_t low_side;  /* tree that holds minus the least; -1 if minval is the low end */
    double group_factor;
    int32_t formula; /* of SOURCE_PACKING */
    int by_load;     /* the mean load of all hosts weighs the resources: every row's value changes with any row */
    hostler_wish wish;
    /* normalisers of the decision at hand, and of the stored scores */
    double low, range;
    double stored_low, stored_range;
    double value_low, value_high; /* of SOURCE_CLASS: range over the classes that pass */
} term_t;

typedef struct way {
    /* What tells whether rows of its own are worth their upkeep to a shape of requests. */
    int64_t asked;   /* change-log version of the latest decision */
    int64_t asks;    /* decisions so far */
    int64_t gap;     /* changes between two decisions, on average, times 16 */
    int64_t visited; /* nodes that the latest search visited */
    int64_t spent;   /* nodes visited by searches that rows of its own would have saved */
} way_t;

typedef struct ranking {
    columns_t *fleet;
    shared_t *shared; /* NULL: the ranking keeps rows of its own, always */
    int held;         /* it keeps rows of its own: stages, stored scores and trees */
    int32_t
        *below; /* [2 * (class_count + 1)] classes below that pass, and those whose rows a rule may count elsewhere */
    int64_t *base; /* [STAGES] rows by the stage of their class, and the population of the index that it stands for */
    struct ranking
        *lender;     /* the ranking whose stages and values by host class this one shares; NULL: its own */
    int64_t edition; /* how often these were replaced */
    way_t way;
    int64_t counts_at; /* change-log version of `counts`, where the ranking has no rows of its own */
    int64_t capacity;
    uint8_t affinity_stage, anti_affinity_stage;
    int64_t counted;      /* rows in `counts` */
    int64_t seen;         /* change-log version of the stages; -1: never built */
    uint8_t *class_stage; /* [classes] 0, or the stage that refuses the class */
    int32_t class_count;
    need_t *needs;
    bound_t *bounds;
    mask_t *masks;
    term_t *terms;
    int32_t need_count, bound_count, mask_count, term_count, side_count;
    int32_t side_term[48]; /* which term a tree stands for */
    int packing, by_load;  /* some term is a formula; and one of these looks at the mean load */
    hostler_figures figures;
    uint8_t *stage;  /* [capacity] first refusing stage, 0 passes */
    double *score;   /* [capacity] exact score under the stored normalisers, -inf where refused; see HOSTLER_SUNK */
    int64_t *counts; /* [STAGES] rows by stage; the shared ones where the ranking has no rows of its own */
    /* trees: node i of the raw value trees at i * side_count + side, of the score's at side_count * nodes + i */
    int64_t nodes;
    int32_t levels;
    int64_t level_start[8];
    int64_t level_size[8];
    double *best;
    uint8_t *leader; /* which child (or row) holds `best`, the first of equals */
    /* marks of rows set aside in the decision at hand */
    uint8_t *aside; /* [capacity] */
    /* search */
    int32_t wanted, found;
    int32_t *top_row;
    double *top_score;
    double slack;
    int64_t work; /* rows scored since the stored scores were made */
    int64_t rescores, rebuilds;
    int drifted;
    /* random choice */
    int shuffle;    /* among the best of equal score */
    int64_t subset; /* one of so many best is taken */
    uint64_t seed;  /* of the decision at hand */
    uint64_t drawn; /* words of it */
    int64_t pick;   /* position of the one that is taken */
    int32_t *ties;  /* [capacity] if shuffle: rows of the best score */
    int32_t tie_count;
} ranking_t;

#endif
