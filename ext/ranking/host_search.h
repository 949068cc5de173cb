/* Exact search of a host index for one request: rows by first refusing stage, the range of each weigher's raw value over the rows that
 * pass, and the best rows. host_search_body.h is compiled once per instruction set.
 *
 * Every bound on a score is computed by the operations of the score itself, each of which is monotone as rounded, so a bound is never
 * below a score that it bounds; equal scores go to the smaller row.
 */
#ifndef HOSTLER_HOST_SEARCH_H
#define HOSTLER_HOST_SEARCH_H

#include "host_index.h"

#define HOSTLER_RULES 32
#define HOSTLER_WEIGHERS 24
#define HOSTLER_NO_HOST 255

enum { HOSTLER_BY_COLUMN = 0, HOSTLER_BY_CLASS = 1, HOSTLER_CONSTANT = 2 };

/* A row passes if low <= value <= high; `units`: and if the resource's min_unit and step_size allow the amount `low`. */
typedef struct {
    int32_t slot, resource;
    uint8_t stage, units;
    int64_t amount;
    double low, high;
} hostler_rule;

typedef struct {
    int32_t kind, slot;
    int32_t has_minval, has_maxval;
    double minval, maxval;
    double constant;           /* raw value of all rows, of HOSTLER_CONSTANT */
    const double *values;      /* raw values by class, of HOSTLER_BY_CLASS */
    double multiplier, least_multiplier, greatest_multiplier;
    const double *multipliers; /* by class, or NULL */
    double low, high, range;   /* of the decision at hand */
    double value_low, value_high; /* range of `values` over the classes that pass */
    double slope, top, most;      /* multiplier / range; greatest raw value; most that it adds to any score */
    int32_t summed;               /* it is one of the slopes that bounds by the reference score sum */
} hostler_weigher;

typedef struct {
    hostler_index *index;
    const int64_t *min_unit, *step_size; /* [resource classes, capacity] */
    int64_t capacity;
    int32_t rule_count, weigher_count, class_count;
    hostler_rule rules[HOSTLER_RULES]; /* in the order of their stages */
    hostler_weigher weighers[HOSTLER_WEIGHERS];
    const uint8_t *class_stage;    /* [class_count] */
    const int32_t *passing;        /* [class_count + 1] classes below that no stage refuses */
    const int32_t *movable;        /* [class_count + 1] classes below whose rows a rule may count elsewhere */
    int32_t has_units, has_aside;
    /* what was found */
    double slack;                  /* more than what rounding changes in a score; < 0: not known, all bounds are exact */
    double share, offset;          /* a bound is offset + share * reference score + the rest by columns; share 0: by columns alone */
    int32_t rest_count, rest_slot[HOSTLER_TRACKED];
    double rest[HOSTLER_TRACKED], rest_floor[HOSTLER_TRACKED];
    int32_t wanted, found;
    int32_t *top_row;
    double *top_score;
    int64_t visited;               /* nodes and leaves looked at */
    int64_t *counts;
    int32_t *refused;              /* counts of a list that is new, of all classes; NULL: `counts` are asked for */
    const int32_t *rank;           /* of each rule, for `refused` */
} hostler_query;

static inline int hostler_any(const int32_t *below, int32_t low, int32_t high) { return high >= low && below[high + 1] > below[low]; }

/* Keep the `wanted` best rows in order: greater score first, then smaller row. */
static inline void hostler_offer(hostler_query *q, int32_t row, double score) {
    int32_t i = q->found;
    if (i == q->wanted) {
        if (score < q->top_score[i - 1] || (score == q->top_score[i - 1] && row > q->top_row[i - 1])) {
            return;
        }
        i--;
    } else {
        q->found++;
    }
    for (; i > 0 && (score > q->top_score[i - 1] || (score == q->top_score[i - 1] && row < q->top_row[i - 1])); i--) {
        q->top_score[i] = q->top_score[i - 1];
        q->top_row[i] = q->top_row[i - 1];
    }
    q->top_score[i] = score;
    q->top_row[i] = row;
}

static inline double hostler_clamped(const hostler_weigher *t, double raw) {
    if (t->has_minval && raw < t->minval) {
        return t->minval;
    }
    return t->has_maxval && raw > t->maxval ? t->maxval : raw;
}

/* Whether the units of a resource allow the amounts that the rules ask for. */
static inline int hostler_units_pass(const hostler_query *q, const hostler_rule *rule, int64_t row) {
    int64_t at = (int64_t)rule->resource * q->capacity + row;
    return rule->amount >= q->min_unit[at] && (q->step_size[at] <= 1 || rule->amount % q->step_size[at] == 0);
}

#define HOSTLER_VARIANT(name) name##_usual
#define HOSTLER_WITH_AVX 0
#include "host_search_body.h"
#undef HOSTLER_VARIANT
#undef HOSTLER_WITH_AVX

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2")
#define HOSTLER_VARIANT(name) name##_avx2
#define HOSTLER_WITH_AVX 1
#include "host_search_body.h"
#undef HOSTLER_VARIANT
#undef HOSTLER_WITH_AVX
#pragma GCC pop_options
#define HOSTLER_SEARCH(name, ...) (__builtin_cpu_supports("avx2") ? name##_avx2(__VA_ARGS__) : name##_usual(__VA_ARGS__))
#else
#define HOSTLER_SEARCH(name, ...) name##_usual(__VA_ARGS__)
#endif

/* Number of the list of the rules that the query asks for; a list that is new is counted. -1 if it cannot be kept. `rank`: position of the
 * stage of each rule among their stages. */
static int32_t hostler_list_of(hostler_query *q, const int32_t *rank) {
    hostler_index *x = q->index;
    hostler_limits limits[HOSTLER_PAIRS];
    if (q->has_units || x->rows < x->counted_from || (x->counts == NULL && (x->counts = calloc(1, sizeof(hostler_class_counts))) == NULL)) {
        return -1;
    }
    hostler_class_counts *c = x->counts;
    for (int32_t p = 0; p < HOSTLER_PAIRS; p++) {
        limits[p].low = -INFINITY;
        limits[p].high = INFINITY;
    }
    for (int32_t r = 0; r < q->rule_count; r++) {
        const hostler_rule *rule = &q->rules[r];
        int32_t p = hostler_pair_of(c, rule->slot, rank[r]);
        if (p < 0) {
            return -1;
        }
        limits[p].low = rule->low > limits[p].low ? rule->low : limits[p].low;
        limits[p].high = rule->high < limits[p].high ? rule->high : limits[p].high;
    }
    uint64_t hash = hostler_hash_limits(limits, c->pair_count);
    int32_t list = hostler_find_list(c, limits, hash);
    int32_t classes = c->class_room;
    if (list < 0 && c->list_count == 0) {
        for (classes = x->class_room; classes > 0 && x->class_rows[classes - 1] == 0; classes--) {
        }
    }
    int64_t bytes = (int64_t)(c->list_count + 1) * classes * HOSTLER_RANKS * (int64_t)sizeof(int32_t);
    if (list < 0 && bytes <= HOSTLER_LIST_BYTES(x->rows) && (list = hostler_add_list(c, limits, hash, classes)) >= 0) {
        q->refused = c->list[list].refused;
        q->rank = rank;
        HOSTLER_SEARCH(hostler_count_below, q, x->levels - 1, 0);
        q->refused = NULL;
    }
    return list;
}

/* Subtract from and add to q->counts, rows by the stage that refuses their class, what the rules refuse. */
__attribute__((unused)) static void hostler_count(hostler_query *q) {
    int32_t rank[HOSTLER_RULES], ranks = 0;
    for (int32_t r = 0; r < q->rule_count; r++) {
        ranks += r > 0 && q->rules[r].stage != q->rules[r - 1].stage;
        rank[r] = ranks;
    }
    q->refused = NULL;
    int32_t list = hostler_list_of(q, rank);
    if (list < 0) {
        HOSTLER_SEARCH(hostler_count_below, q, q->index->levels - 1, 0);
        return;
    }
    const hostler_class_counts *c = q->index->counts;
    for (int32_t r = 0; r < q->rule_count; r++) {
        if (r > 0 && rank[r] == rank[r - 1]) {
            continue;
        }
        const int32_t *refused = c->list[list].refused + rank[r];
        uint8_t stage = q->rules[r].stage;
        int32_t classes = q->class_count < c->class_room ? q->class_count : c->class_room;
        for (int32_t k = 0; k < classes; k++, refused += HOSTLER_RANKS) {
            uint8_t was = q->class_stage[k];
            if (*refused && was != HOSTLER_NO_HOST && (was == 0 || was > stage)) {
                q->counts[was] -= *refused;
                q->counts[stage] += *refused;
            }
        }
    }
}

/* The range of every weigher over the rows that pass; rows set aside count if `with_aside` is false. */
__attribute__((unused)) static void hostler_measure(hostler_query *q) { HOSTLER_SEARCH(hostler_measure_all, q); }

/* What the quick bounds need of every weigher. A score has at most HOSTLER_WEIGHERS terms, each rounded three times either way, and as
 * many additions: less than 2**-45 of the terms' sizes in all. */
static void hostler_slopes(hostler_query *q) {
    double size = 0.0;
    int usable = 1;
    for (int32_t j = 0; j < q->weigher_count; j++) {
        hostler_weigher *t = &q->weighers[j];
        if (t->range == 0.0) {
            continue;
        }
        double a = fabs(t->least_multiplier), b = fabs(t->greatest_multiplier), reach;
        t->top = t->low + t->range;
        t->top = t->top < t->high ? t->high : t->top;
        reach = (t->top - t->low) / t->range;
        size += (a > b ? a : b) * (reach > 1.0 ? reach : 1.0);
        t->slope = t->multiplier / t->range;
        usable = usable && isfinite(t->slope) && isfinite(reach);
        t->most = t->greatest_multiplier * reach;
        t->most = t->most > 0.0 ? t->most : 0.0;
        t->most = t->least_multiplier * reach > t->most ? t->least_multiplier * reach : t->most;
    }
    q->slack = usable && (size == 0.0 || size > 1e-200) ? size * 0x1p-45 : -1.0;
}

/* The request's slopes by tracked column, of weighers whose raw value is a column. */
static void hostler_sum_slopes(hostler_query *q, hostler_slopes_of *s) {
    memset(s, 0, sizeof *s);
    for (int32_t j = 0; j < q->weigher_count; j++) {
        hostler_weigher *t = &q->weighers[j];
        double floor = t->has_minval ? t->minval : -INFINITY;
        t->summed = t->range != 0.0 && t->kind == HOSTLER_BY_COLUMN && t->multipliers == NULL
                    && (!(s->weighed >> t->slot & 1) || s->floor[t->slot] == floor);
        if (t->summed) {
            s->weighed |= 1u << t->slot;
            s->floor[t->slot] = floor;
            s->slope[t->slot] += t->slope;
        }
    }
}

/* Write the bounds as a share of the reference score and a rest by columns. The share makes the rest least, over the ranges of the
 * columns. What rounding makes of the sum is added to q->slack: fewer than 2**8 operations, none greater than `size`. */
static void hostler_split_bounds(hostler_query *q) {
    hostler_index *x = q->index;
    hostler_reference *f = &x->reference;
    hostler_slopes_of s;
    double part[HOSTLER_TRACKED], size = 0.0, along = 0.0, length = 0.0;
    q->share = 0.0;
    if (q->slack < 0.0) {
        return;
    }
    hostler_sum_slopes(q, &s);
    hostler_learn(f, &s, x->width);
    if (f->count == 0 || f->asked == HOSTLER_USUAL || f->visits > 4 * x->rows + 1024) {
        hostler_set_reference(x);
    }
    memset(part, 0, sizeof part);
    for (int32_t k = 0; k < f->count; k++) {
        int32_t w = f->slot[k];
        double reach = f->slope[k] * (f->greatest[w] - f->least[w]);
        part[w] = f->slope[k];
        if (s.weighed >> w & 1 && s.floor[w] != f->floor[k]) {
            s.slope[w] = 0.0;
            s.weighed &= ~(1u << w);
        }
        s.floor[w] = f->floor[k];
        along += s.slope[w] * reach * (f->greatest[w] - f->least[w]);
        length += reach * reach;
    }
    double share = along / length;
    if (!(share > 0.0) || isinf(share)) {
        return;
    }
    q->offset = 0.0;
    q->rest_count = 0;
    for (int32_t j = 0; j < q->weigher_count; j++) {
        hostler_weigher *t = &q->weighers[j];
        t->summed = t->summed && s.weighed >> t->slot & 1;
        if (t->summed) {
            q->offset -= t->slope * t->low;
            size += fabs(t->slope * t->low) + fabs(t->slope) * hostler_magnitude(f, t->slot, s.floor[t->slot]);
        }
    }
    for (int32_t w = 0; w < x->width; w++) {
        double rest = s.slope[w] - share * part[w];
        size += (fabs(s.slope[w]) + fabs(share * part[w])) * hostler_magnitude(f, w, s.floor[w]);
        if (rest != 0.0) {
            q->rest_slot[q->rest_count] = w;
            q->rest_floor[q->rest_count] = s.floor[w];
            q->rest[q->rest_count++] = rest;
        }
    }
    if (isfinite(size) && (size == 0.0 || size > 1e-200)) {
        q->share = share;
        q->slack += size * 0x1p-44;
    }
}

/* Offer the best rows that pass and are not set aside, under the weighers' ranges. */
__attribute__((unused)) static void hostler_best(hostler_query *q) {
    int64_t before = q->visited;
    hostler_slopes(q);
    hostler_split_bounds(q);
    HOSTLER_SEARCH(hostler_best_below, q, q->index->levels - 1, 0);
    q->index->reference.visits += q->visited - before;
}

#endif
