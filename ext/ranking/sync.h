/* How a ranking catches up with the change log of its fleet, and when it renews its stored scores. */
#ifndef HOSTLER_RANKING_SYNC_H
#define HOSTLER_RANKING_SYNC_H

#include "ranking/trees.h"

enum {
    LOOK_AHEAD = 6,         /* changed rows whose memory is fetched ahead of their turn */
    OUTGROWS_CACHE = 20000, /* rows from which on the columns of a fleet do not fit the second-level cache */
};

/* Set the terms' normalisers to the exact range of the passing rows that are not set aside. */
static inline void ranking_normalise(ranking_t *r, int some_aside) {
    term_t *t;
    int32_t i;
    double high;
    r->drifted = 0;
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        if (t->source == SOURCE_GROUP) {
            continue;
        }
        high = t->has_maxval ? t->maxval : ranking_side_end(r, t->high_side, some_aside);
        t->low = t->has_minval ? t->minval : -ranking_side_end(r, t->low_side, some_aside);
        t->range = high - t->low;
        if (high == -INFINITY || t->range < 0.0) {
            t->range = 0.0;
        }
        if (t->range != t->stored_range || (t->low != t->stored_low && t->range != 0.0)) {
            r->drifted = 1;
        }
    }
}

/* Store the exact ranges of the passing rows as normalisers, and compute every stored score with them. */
static inline void ranking_store_scores(ranking_t *r) {
    int32_t i;
    ranking_normalise(r, 0);
    for (i = 0; i < r->term_count; i++) {
        r->terms[i].stored_low = r->terms[i].source != SOURCE_GROUP ? r->terms[i].low : 0.0;
        r->terms[i].stored_range = r->terms[i].source != SOURCE_GROUP ? r->terms[i].range : 0.0;
    }
    ranking_score_all(r);
    ranking_build_score_tree(r);
    r->drifted = 0;
    r->work = 0;
    r->rescores += 1;
}

static inline void ranking_build(ranking_t *r) {
    int64_t row;
    memset(r->counts, 0, STAGES * sizeof(int64_t));
    r->counted = r->fleet->rows;
    for (row = 0; row < r->fleet->rows; row++) {
        r->stage[row] = ranking_stage_of(r, row);
        r->counts[r->stage[row]] += 1;
    }
    if (r->packing) {
        ranking_value_all(r);
    }
    ranking_build_trees(r);
    ranking_store_scores(r);
    r->seen = r->fleet->log_base + r->fleet->log_length;
    r->rebuilds += 1;
}

/* Catch up with the change log. `check_capacity` was called. */
static inline int ranking_sync(ranking_t *r) {
    columns_t *c = r->fleet;
    int64_t version = c->log_base + c->log_length, at, row;
    uint8_t old, new;
    int32_t i;
    int renew = 0;
    double score, raw;
    term_t *t;
    HOSTLER_ASSERT(r->capacity == c->capacity);
    ranking_find_columns(r);
    if (r->seen == version && r->counted == c->rows) {
        return 0;
    }
    if (r->seen < c->log_base || version - r->seen > c->rows / 8 + 64) {
        ranking_build(r);
        return 0;
    }
    if (c->rows < r->counted) {
        ranking_build(r);
        return 0;
    }
    for (row = r->counted; row < c->rows; row++) {
        r->stage[row] = NOT_A_HOST;
        r->score[row] = -INFINITY;
    }
    r->counts[NOT_A_HOST] += c->rows - r->counted;
    r->counted = c->rows;
    for (at = r->seen - c->log_base; at < c->log_length; at++) {
        if (c->rows > OUTGROWS_CACHE && at + LOOK_AHEAD < c->log_length) {
            row = c->log[at + LOOK_AHEAD];
            if (row < c->rows) {
                ranking_ask_for(r, row);
            }
        }
        row = c->log[at];
        if (row >= c->rows) {
            /* The row was added and taken back since. */
            continue;
        }
        old = r->stage[row];
        new = ranking_stage_of(r, row);
        if (old != new) {
            r->stage[row] = new;
            r->counts[old] -= 1;
            r->counts[new] += 1;
        }
        if (r->by_load) {
            continue;
        }
        if (r->packing) {
            ranking_value_row(r, row);
        }
        if (old != 0 && old == new) {
            continue;
        }
        if (old == 0 || new == 0) {
            score = new == 0 ? 0.0 : -INFINITY;
            for (i = 0; i < r->term_count; i++) {
                t = &r->terms[i];
                if (t->source == SOURCE_GROUP) {
                    continue;
                }
                raw = -INFINITY;
                if (new == 0) {
                    raw = ranking_raw_of(r, t, row);
                    if (t->stored_range != 0.0) {
                        score += ranking_multiplier_of(r, t, row) * ((raw - t->stored_low) / t->stored_range);
                    }
                }
                if (t->steady && old == new) {
                    continue;
                }
                if (t->high_side >= 0) {
                    ranking_update_side(r, t->high_side, row, raw);
                }
                if (t->low_side >= 0) {
                    ranking_update_side(r, t->low_side, row, new == 0 ? -raw : -INFINITY);
                }
            }
            if (new == 0 && !isfinite(score)) {
                /* The stored range is so small that the quotient overflows, or the sum does; -inf would say that the row is
                 * refused. */
                renew = 1;
                score = 0.0;
            }
            r->score[row] = score;
            ranking_update_side(r, r->side_count, row, score);
        }
    }
    if (r->by_load) {
        /* Every row's value has changed. */
        ranking_value_all(r);
        ranking_build_trees(r);
        renew = 1;
    }
    if (renew) {
        ranking_store_scores(r);
    }
    r->seen = version;
    return 0;
}

/* Bring the formulas' values up to date; the normalisers of the latest decision stay. `check_capacity` was called. */
static inline void ranking_value_rows(ranking_t *r) {
    double low[TERMS];
    double span[TERMS];
    int32_t i;
    if (!r->packing) {
        return;
    }
    for (i = 0; i < r->term_count; i++) {
        low[i] = r->terms[i].low;
        span[i] = r->terms[i].range;
    }
    ranking_sync(r);
    for (i = 0; i < r->term_count; i++) {
        r->terms[i].low = low[i];
        r->terms[i].range = span[i];
    }
}

#endif
