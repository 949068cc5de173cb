/* The best rows where some are left out, and others take part whatever the ranking's result for them is. */
#ifndef HOSTLER_RANKING_BESIDE_H
#define HOSTLER_RANKING_BESIDE_H

#include "ranking/by_index.h"

typedef struct {
    const int32_t *without;
    const int32_t *rows;   /* that take part */
    const double *members; /* of the request's soft group on each of `rows`, signed; NULL: of none */
    int64_t without_count, count;
} ranking_beside_t;

enum { RANKING_NAMED = 2 };

/* Mark rows as named. Returns 1 if one is named twice. */
static inline int ranking_name_rows(uint8_t *aside, const int32_t *rows, int64_t count) {
    int twice = 0;
    for (int64_t i = 0; i < count; i++) {
        twice |= aside[rows[i]] & RANKING_NAMED;
        aside[rows[i]] |= RANKING_NAMED;
    }
    return twice;
}

/* Set aside those of the named rows that pass; returns their number. */
static inline int64_t ranking_set_aside(ranking_t *r, uint8_t *aside, const int32_t *rows, int64_t count) {
    int64_t passing = 0;
    for (int64_t i = 0; i < count; i++) {
        aside[rows[i]] = ranking_stage_of(r, rows[i]) == 0;
        passing += aside[rows[i]];
    }
    return passing;
}

static inline void ranking_put_back(uint8_t *aside, const int32_t *rows, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        aside[rows[i]] = 0;
    }
}

/* Set the terms' normalisers to the exact range of `others` rows that pass and are not set aside, and of the rows
 * beside them. */
static inline void ranking_measure_beside(ranking_t *r, const ranking_beside_t *b, int64_t others, int some_aside) {
    hostler_query *q = r->held ? NULL : &r->shared->query;
    r->drifted = 0;
    if (q != NULL && others > 0) {
        q->has_aside = some_aside;
        hostler_measure(q);
    }
    for (int32_t j = 0; j < r->term_count; j++) {
        term_t *t = &r->terms[j];
        double low = INFINITY, high = -INFINITY, raw;
        t->low = t->range = 0.0;
        if (t->source == SOURCE_GROUP && b->members == NULL) {
            continue;
        }
        if (others > 0 && t->source == SOURCE_GROUP) {
            low = high = ranking_group_raw(t, 0.0);
        } else if (others > 0 && q != NULL) {
            low = q->weighers[j].low;
            high = q->weighers[j].high;
        } else if (others > 0) {
            low = t->has_minval ? t->minval : -ranking_side_end(r, t->low_side, some_aside);
            high = t->has_maxval ? t->maxval : ranking_side_end(r, t->high_side, some_aside);
        }
        for (int64_t i = 0; i < b->count; i++) {
            raw = t->source == SOURCE_GROUP ? ranking_group_raw(t, b->members[i]) : ranking_raw_of(r, t, b->rows[i]);
            low = HOSTLER_LEAST(low, raw);
            high = HOSTLER_GREATEST(high, raw);
        }
        ranking_set_range(t, low, high);
        if (t->source == SOURCE_GROUP) {
            r->drifted |= t->range != 0.0;
        } else {
            r->drifted |= t->range != t->stored_range || (t->low != t->stored_low && t->range != 0.0);
        }
    }
}

/* By how much a true score may exceed the stored one, where the normalisers have drifted. */
static inline void ranking_find_slack(ranking_t *r) {
    double size = 0.0;
    for (int32_t j = 0; j < r->term_count && r->drifted; j++) {
        term_t *t = &r->terms[j];
        if (t->source != SOURCE_GROUP) {
            r->slack += ranking_greatest_change(t, t->low, t->low + t->range, &size);
        } else if (t->range != 0.0) {
            /* The rows to be searched have no members. */
            double outside = ranking_group_raw(t, 0.0);
            r->slack += ranking_greatest_change(t, outside, outside, &size);
        }
    }
    r->slack += size * 1e-12;
}

/* Fill the list of best rows, drawing from `seed`; its length is r->found. The ranking has caught up with the change
 * log, does not shuffle, and the list has room. Returns -1 if a row is named twice. */
static inline int ranking_decide_beside(ranking_t *r, const ranking_beside_t *b, int32_t wanted, uint64_t seed) {
    uint8_t *aside = r->held ? r->aside : r->shared->index.aside;
    int64_t others, passing, left_out;
    r->found = 0;
    r->slack = 0.0;
    if (ranking_name_rows(aside, b->without, b->without_count) | ranking_name_rows(aside, b->rows, b->count)) {
        ranking_put_back(aside, b->without, b->without_count);
        ranking_put_back(aside, b->rows, b->count);
        return -1;
    }
    if (!r->held) {
        ranking_ask(r);
        ranking_count(r);
    } else if (r->work > r->fleet->rows / RENEWAL_WORK + 64) {
        ranking_put_back(aside, b->without, b->without_count);
        ranking_put_back(aside, b->rows, b->count);
        ranking_store_scores(r);
    }
    left_out = ranking_set_aside(r, aside, b->without, b->without_count);
    left_out += ranking_set_aside(r, aside, b->rows, b->count);
    others = r->counts[0] - left_out;
    passing = others + b->count;
    ranking_aim(r, passing, wanted, seed);
    if (passing > 1) {
        ranking_measure_beside(r, b, others, left_out > 0);
    } else {
        ranking_add_nothing(r);
        r->drifted = 0;
    }
    if (r->held) {
        ranking_find_slack(r);
    }
    for (int64_t i = 0; i < b->count; i++) {
        ranking_offer(r, b->rows[i], ranking_true_score(r, b->rows[i], b->members == NULL ? 0.0 : b->members[i]));
    }
    if (others > 0 && r->held) {
        ranking_search(r, r->levels - 1, 0);
    } else if (others > 0) {
        ranking_search_index(r, left_out > 0);
    }
    if (passing == 1 && r->found > 0) {
        /* No weigher runs (Nova 33). */
        r->top_score[0] = 0.0;
    }
    ranking_put_back(aside, b->without, b->without_count);
    ranking_put_back(aside, b->rows, b->count);
    if (!r->held) {
        r->way.visited = r->shared->query.visited;
    }
    ranking_take_pick(r, wanted);
    return 0;
}

#endif
