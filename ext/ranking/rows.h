/* What a ranking determines of one row: the first stage that refuses it, the raw values of its weighers, and its score.
 */
#ifndef HOSTLER_RANKING_ROWS_H
#define HOSTLER_RANKING_ROWS_H

#include "scores.h"
#include "ranking/state.h"

/* Copy the lender's stages and values by host class: their arrays move when host classes are added. */
static inline void ranking_borrow(ranking_t *r) {
    int32_t i;
    if (r->lender == NULL || r->edition == r->lender->edition) {
        return;
    }
    r->below = r->lender->below;
    r->base = r->lender->base;
    r->class_stage = r->lender->class_stage;
    r->class_count = r->lender->class_count;
    for (i = 0; i < r->term_count; i++) {
        r->terms[i].values = r->lender->terms[i].values;
        r->terms[i].value_low = r->lender->terms[i].value_low;
        r->terms[i].value_high = r->lender->terms[i].value_high;
        r->terms[i].multipliers = r->lender->terms[i].multipliers;
        r->terms[i].least_multiplier = r->lender->terms[i].least_multiplier;
        r->terms[i].greatest_multiplier = r->lender->terms[i].greatest_multiplier;
    }
    r->counts_at = -1;
    r->edition = r->lender->edition;
}

/* Look up where the terms' raw values lie now: the fleet's blocks move when a resource class is added. */
static inline void ranking_find_columns(ranking_t *r) {
    int32_t i;
    term_t *t;
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        t->floor = t->has_minval ? t->minval : -INFINITY;
        if (t->source == SOURCE_COLUMN) {
            t->raw = r->fleet->host + t->column * r->capacity;
        } else if (t->source == SOURCE_ROW || t->source == SOURCE_PACKING) {
            t->raw = t->values;
        } else {
            t->raw = NULL;
        }
    }
    if (r->packing) {
        r->figures.vcpus_total = r->fleet->host + VCPUS_TOTAL * r->capacity;
        r->figures.cpu_ratio = r->fleet->host + CPU_ALLOCATION_RATIO * r->capacity;
        r->figures.vcpus_used = r->fleet->host + VCPUS_USED * r->capacity;
        r->figures.ram_total_mb = r->fleet->host + TOTAL_USABLE_RAM_MB * r->capacity;
        r->figures.ram_ratio = r->fleet->host + RAM_ALLOCATION_RATIO * r->capacity;
        r->figures.free_ram_mb = r->fleet->host + FREE_RAM_MB * r->capacity;
    }
}

static inline double ranking_raw_of(ranking_t *r, term_t *t, int64_t row) {
    double value;
    if (t->raw != NULL) {
        value = t->raw[row];
    } else if (t->source == SOURCE_CLASS) {
        HOSTLER_ASSERT_INDEX(r->fleet->class_of[row], r->class_count);
        value = t->values[r->fleet->class_of[row]];
    } else {
        value = 0.0;
    }
    return value < t->floor ? t->floor : value;
}

static inline double ranking_multiplier_of(ranking_t *r, term_t *t, int64_t row) {
    return t->multipliers == NULL ? t->multiplier : t->multipliers[r->fleet->class_of[row]];
}

static inline double ranking_clamped(term_t *t, double raw) {
    if (t->has_minval && raw < t->minval) {
        return t->minval;
    }
    if (t->has_maxval && raw > t->maxval) {
        return t->maxval;
    }
    return raw;
}

/* A group term's raw value: `members` is signed, positive for soft-affinity and negative for soft-anti-affinity, and
 * speaks only to the term of its own sign. */
static inline double ranking_group_raw(term_t *t, double members) {
    return ranking_clamped(t, t->group_factor * members > 0.0 ? t->group_factor * fabs(members) : 0.0);
}

static inline double ranking_formula_value(ranking_t *r, term_t *t, int64_t row) {
    double value = hostler_fit(t->formula, &r->figures, row, &t->wish);
    return t->has_maxval && value > t->maxval ? t->maxval : value;
}

/* Bring the formulas' values of one row up to date, where they depend on no other. */
static inline void ranking_value_row(ranking_t *r, int64_t row) {
    int32_t i;
    for (i = 0; i < r->term_count; i++) {
        if (r->terms[i].source == SOURCE_PACKING) {
            r->terms[i].values[row] = ranking_formula_value(r, &r->terms[i], row);
        }
    }
}

/* The formulas' values of all rows, whose stages are up to date. */
static inline void ranking_value_all(ranking_t *r) {
    double load[2];
    int32_t i;
    term_t *t;
    if (r->by_load) {
        hostler_mean_load(&r->figures, r->stage, r->fleet->rows, load);
    }
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        if (t->source == SOURCE_PACKING) {
            if (t->by_load) {
                t->wish.weight[0] = load[0];
                t->wish.weight[1] = load[1];
            }
            hostler_fit_all(t->formula, &r->figures, &t->wish, r->fleet->rows, t->has_maxval ? t->maxval : INFINITY,
                            t->values);
        }
    }
}

/* The ends of the term's range: minval and maxval where the weigher sets them, else the least and greatest raw value.
 */
static inline void ranking_set_range(term_t *t, double low, double high) {
    if (t->has_minval) {
        low = t->minval;
    }
    if (t->has_maxval) {
        high = t->maxval;
    }
    t->low = low;
    t->range = high > low ? high - low : 0.0;
}

static inline double ranking_norm(double value, double low, double span) {
    return span == 0.0 ? 0.0 : (value - low) / span;
}

/* Nova's sum for the row under the decision's normalisers: from 0.0, in order, multiplier * norm. */
static inline double ranking_true_score(ranking_t *r, int64_t row, double members) {
    double total = 0.0, raw;
    term_t *t;
    int32_t i;
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        if (t->range == 0.0) {
            continue;
        }
        if (t->source == SOURCE_GROUP) {
            raw = ranking_group_raw(t, members);
        } else {
            raw = ranking_raw_of(r, t, row);
        }
        total += ranking_multiplier_of(r, t, row) * ((raw - t->low) / t->range);
    }
    return total;
}

static inline double ranking_stored_score(ranking_t *r, int64_t row) {
    double total = 0.0;
    term_t *t;
    int32_t i;
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        if (t->stored_range == 0.0) {
            continue;
        }
        total += ranking_multiplier_of(r, t, row) * ((ranking_raw_of(r, t, row) - t->stored_low) / t->stored_range);
    }
    return total;
}

/* Every row's score under the stored normalisers, -inf where refused, at least HOSTLER_SUNK elsewhere; as stored_score gives
 * it, term by term. */
static inline void ranking_score_all(ranking_t *r) {
    int64_t n = r->fleet->rows, row;
    int32_t i;
    term_t *t;
    memset(r->score, 0, n * sizeof(double));
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        if (t->stored_range == 0.0) {
            continue;
        }
        if (t->multipliers == NULL && t->raw != NULL) {
            hostler_add_term(r->score, t->raw, n, t->floor, t->stored_low, t->stored_range, t->multiplier);
        } else {
            for (row = 0; row < n; row++) {
                r->score[row] +=
                    ranking_multiplier_of(r, t, row) * ((ranking_raw_of(r, t, row) - t->stored_low) / t->stored_range);
            }
        }
    }
    hostler_refuse(r->score, r->stage, n);
}

/* Most that a term's contribution can exceed the stored one by, for raw values in [low, high]: linear, so at a corner.
 * Adds the greatest magnitude of the contributions to `size`. */
static inline double ranking_greatest_change(term_t *t, double low, double high, double *size) {
    double result = -INFINITY, m, at, now, stored, greatest = 0.0;
    int32_t i, j;
    for (i = 0; i < 2; i++) {
        at = i == 0 ? low : high;
        for (j = 0; j < 2; j++) {
            m = j == 0 ? t->least_multiplier : t->greatest_multiplier;
            now = m * ranking_norm(at, t->low, t->range);
            stored = m * ranking_norm(at, t->stored_low, t->stored_range);
            result = HOSTLER_GREATEST(result, now - stored);
            greatest = HOSTLER_GREATEST(greatest, HOSTLER_GREATEST(fabs(now), fabs(stored)));
        }
    }
    size[0] += greatest;
    return result;
}

/* The first stage that refuses the row, 0 if none does. */
static inline uint8_t ranking_stage_of(ranking_t *r, int64_t row) {
    columns_t *c = r->fleet;
    HOSTLER_ASSERT_INDEX(row, c->rows);
    HOSTLER_ASSERT_INDEX(c->class_of[row], r->class_count);
    uint8_t stage = r->class_stage[c->class_of[row]];
    int32_t i;
    int64_t at;
    double value;
    if (stage == NOT_A_HOST) {
        return stage;
    }
    if (stage == 0) {
        stage = NOT_A_HOST;
    }
    for (i = 0; i < r->need_count; i++) {
        if (r->needs[i].stage < stage) {
            HOSTLER_ASSERT_INDEX(r->needs[i].resource, c->classes);
            at = r->needs[i].resource * r->capacity + row;
            if (c->avail[at] < r->needs[i].amount ||
                (r->needs[i].units && (r->needs[i].amount < c->min_unit[at] ||
                                       (c->step_size[at] > 1 && r->needs[i].amount % c->step_size[at])))) {
                stage = r->needs[i].stage;
            }
        }
    }
    for (i = 0; i < r->bound_count; i++) {
        if (r->bounds[i].stage < stage) {
            value = c->host[r->bounds[i].column * r->capacity + row];
            if (!(r->bounds[i].low <= value && value <= r->bounds[i].high)) {
                stage = r->bounds[i].stage;
            }
        }
    }
    for (i = 0; i < r->mask_count; i++) {
        if (r->masks[i].stage < stage && !r->masks[i].passes[row]) {
            stage = r->masks[i].stage;
        }
    }
    return stage == NOT_A_HOST ? 0 : stage;
}

#endif
