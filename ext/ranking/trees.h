/* The tournament trees of a ranking: one per end of each range of a weigher, and one over the stored scores. */
#ifndef HOSTLER_RANKING_TREES_H
#define HOSTLER_RANKING_TREES_H

#include "ranking/rows.h"

#define HOSTLER_PREFETCH(address) __builtin_prefetch((const void *)(address))

/* What tree `side` holds of a row: the score, the raw value, or minus the raw value; -inf where the row is refused. */
static inline double ranking_side_value(ranking_t *r, int32_t side, int64_t row) {
    term_t *t;
    if (side == r->side_count) {
        return r->score[row];
    }
    if (r->stage[row] != 0) {
        return -INFINITY;
    }
    t = &r->terms[r->side_term[side]];
    return t->high_side == side ? ranking_raw_of(r, t, row) : -ranking_raw_of(r, t, row);
}

/* Where tree `side` keeps a node. The raw values' trees lie node by node, so that a changed row touches one line of
 * each; the score's tree lies by itself, so that a search reads a node's children in one go. */
static inline int64_t ranking_slot(ranking_t *r, int32_t side, int64_t node) {
    return side == r->side_count ? r->side_count * r->nodes + node : node * r->side_count + side;
}

static inline void ranking_refresh_block(ranking_t *r, int32_t side, int64_t block) {
    int64_t row = block * FANOUT;
    double value, greatest = -INFINITY, sign;
    int32_t i, leader = 0, n = FANOUT;
    int64_t at = ranking_slot(r, side, block);
    term_t *t;
    if (row + n > r->fleet->rows) {
        n = (int32_t)(r->fleet->rows - row);
    } else if (side == r->side_count) {
        hostler_block_maxima(r->score + row, 1, 1, r->best + at, r->leader + at);
        return;
    } else {
        t = &r->terms[r->side_term[side]];
        if (t->raw != NULL) {
            sign = t->high_side == side ? 1.0 : -1.0;
            r->best[at] = hostler_block_greatest(t->raw + row, r->stage + row, t->floor, sign, r->leader + at);
            return;
        }
    }
    if (side == r->side_count) {
        for (i = 0; i < n; i++) {
            if (r->score[row + i] > greatest) {
                greatest = r->score[row + i];
                leader = i;
            }
        }
    } else {
        t = &r->terms[r->side_term[side]];
        sign = t->high_side == side ? 1.0 : -1.0;
        for (i = 0; i < n; i++) {
            if (r->stage[row + i] == 0) {
                value = sign * ranking_raw_of(r, t, row + i);
                if (value > greatest) {
                    greatest = value;
                    leader = i;
                }
            }
        }
    }
    r->best[at] = greatest;
    r->leader[at] = (uint8_t)leader;
}

static inline void ranking_refresh_node(ranking_t *r, int32_t side, int32_t level, int64_t node) {
    int64_t child = node * FANOUT;
    int64_t below = r->level_start[level - 1] + child;
    double value, greatest = -INFINITY;
    int32_t i, leader = 0, n = FANOUT;
    if (child + n > r->level_size[level - 1]) {
        n = (int32_t)(r->level_size[level - 1] - child);
    }
    for (i = 0; i < n; i++) {
        value = r->best[ranking_slot(r, side, below + i)];
        if (value > greatest) {
            greatest = value;
            leader = i;
        }
    }
    r->best[ranking_slot(r, side, r->level_start[level] + node)] = greatest;
    r->leader[ranking_slot(r, side, r->level_start[level] + node)] = (uint8_t)leader;
}

/* Bring one row's new value into tree `side`; stops at the first node that does not change. */
static inline void ranking_update_side(ranking_t *r, int32_t side, int64_t row, double value) {
    double *best = r->best;
    uint8_t *leader = r->leader;
    int64_t node = row, parent, at;
    int32_t level, child;
    double was;
    HOSTLER_ASSERT_INDEX(row, r->fleet->rows);
    HOSTLER_ASSERT_INDEX(side, r->side_count + 1);
    for (level = 0; level < r->levels; level++) {
        parent = node / FANOUT;
        child = (int32_t)(node % FANOUT);
        at = ranking_slot(r, side, r->level_start[level] + parent);
        was = best[at];
        if (value > was) {
            best[at] = value;
            leader[at] = (uint8_t)child;
        } else if (value == was) {
            if (child < leader[at]) {
                leader[at] = (uint8_t)child;
            }
            return;
        } else if (leader[at] == child) {
            if (level == 0) {
                ranking_refresh_block(r, side, parent);
            } else {
                ranking_refresh_node(r, side, level, parent);
            }
            if (best[at] == was) {
                return;
            }
        } else {
            return;
        }
        value = best[at];
        node = parent;
    }
}

static inline void ranking_build_score_tree(ranking_t *r) {
    int64_t whole = r->fleet->rows / FANOUT, at = ranking_slot(r, r->side_count, 0), i;
    int32_t level;
    hostler_block_maxima(r->score, whole, 1, r->best + at, r->leader + at);
    for (i = whole; i < r->level_size[0]; i++) {
        ranking_refresh_block(r, r->side_count, i);
    }
    for (level = 1; level < r->levels; level++) {
        for (i = 0; i < r->level_size[level]; i++) {
            ranking_refresh_node(r, r->side_count, level, i);
        }
    }
}

/* The raw values' trees, from the bottom up. The scores are overwritten and must be computed again. */
static inline void ranking_build_trees(ranking_t *r) {
    int32_t side, level;
    int64_t i, whole, at;
    term_t *t;
    for (side = 0; side < r->side_count; side++) {
        t = &r->terms[r->side_term[side]];
        whole = 0;
        if (t->raw != NULL) {
            whole = r->fleet->rows / FANOUT;
            at = ranking_slot(r, side, 0);
            hostler_passing(r->score, t->raw, r->stage, whole * FANOUT, t->floor, t->high_side == side ? 1.0 : -1.0);
            hostler_block_maxima(r->score, whole, r->side_count, r->best + at, r->leader + at);
        }
        for (i = whole; i < r->level_size[0]; i++) {
            ranking_refresh_block(r, side, i);
        }
        for (level = 1; level < r->levels; level++) {
            for (i = 0; i < r->level_size[level]; i++) {
                ranking_refresh_node(r, side, level, i);
            }
        }
    }
}

static inline double ranking_root(ranking_t *r, int32_t side) {
    return r->best[ranking_slot(r, side, r->level_start[r->levels - 1])];
}

static inline int64_t ranking_leading_row(ranking_t *r, int32_t side) {
    int64_t node = 0;
    int32_t level;
    for (level = r->levels - 1; level > -1; level--) {
        node = node * FANOUT + r->leader[ranking_slot(r, side, r->level_start[level] + node)];
    }
    return node;
}

/* Greatest value of tree `side` below a node over rows that are not set aside, if it is above `floor`; else `floor`. */
static double ranking_greatest_kept(ranking_t *r, int32_t side, int32_t level, int64_t node, double floor) {
    double value;
    int64_t first = node * FANOUT, i, n;
    if (r->best[ranking_slot(r, side, r->level_start[level] + node)] <= floor) {
        return floor;
    }
    if (level == 0) {
        n = HOSTLER_LEAST(first + FANOUT, r->fleet->rows);
        for (i = first; i < n; i++) {
            if (!r->aside[i]) {
                value = ranking_side_value(r, side, i);
                if (value > floor) {
                    floor = value;
                }
            }
        }
        return floor;
    }
    n = HOSTLER_LEAST(first + FANOUT, r->level_size[level - 1]);
    for (i = first; i < n; i++) {
        floor = ranking_greatest_kept(r, side, level - 1, i, floor);
    }
    return floor;
}

static inline double ranking_side_end(ranking_t *r, int32_t side, int some_aside) {
    if (some_aside && r->aside[ranking_leading_row(r, side)]) {
        return ranking_greatest_kept(r, side, r->levels - 1, 0, -INFINITY);
    }
    return ranking_root(r, side);
}

/* Have the memory that a changed row's turn will read brought near. */
static inline void ranking_ask_for(ranking_t *r, int64_t row) {
    columns_t *c = r->fleet;
    int64_t block = row / FANOUT;
    int32_t i;
    HOSTLER_PREFETCH(c->class_of + row);
    HOSTLER_PREFETCH(r->stage + row);
    HOSTLER_PREFETCH(r->score + row);
    for (i = 0; i < r->need_count; i++) {
        HOSTLER_PREFETCH(c->avail + r->needs[i].resource * r->capacity + row);
    }
    for (i = 0; i < r->bound_count; i++) {
        HOSTLER_PREFETCH(c->host + r->bounds[i].column * r->capacity + row);
    }
    for (i = 0; i < r->term_count; i++) {
        if (r->terms[i].source == SOURCE_COLUMN) {
            HOSTLER_PREFETCH(c->host + r->terms[i].column * r->capacity + row);
        }
    }
    if (r->packing) {
        HOSTLER_PREFETCH(r->figures.vcpus_total + row);
        HOSTLER_PREFETCH(r->figures.cpu_ratio + row);
        HOSTLER_PREFETCH(r->figures.vcpus_used + row);
        HOSTLER_PREFETCH(r->figures.ram_total_mb + row);
        HOSTLER_PREFETCH(r->figures.ram_ratio + row);
        HOSTLER_PREFETCH(r->figures.free_ram_mb + row);
    }
    HOSTLER_PREFETCH(r->best + ranking_slot(r, 0, block));
    HOSTLER_PREFETCH(r->best + ranking_slot(r, r->side_count, block));
    HOSTLER_PREFETCH(r->leader + ranking_slot(r, 0, block));
    HOSTLER_PREFETCH(r->leader + ranking_slot(r, r->side_count, block));
}

#endif
