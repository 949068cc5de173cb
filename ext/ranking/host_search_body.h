/* The search itself; see host_search.h, which includes this once per instruction set. */
#if HOSTLER_WITH_AVX
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Bit i: values[i] >= bound, of sixteen. */
static inline uint32_t HOSTLER_VARIANT(at_least)(const double *values, double bound) {
    uint32_t bits = 0;
#if HOSTLER_WITH_AVX
    __m256d b = _mm256_set1_pd(bound);
    for (int i = 0; i < 4; i++) {
        bits |= (uint32_t)_mm256_movemask_pd(_mm256_cmp_pd(_mm256_loadu_pd(values + 4 * i), b, _CMP_GE_OQ)) << (4 * i);
    }
#elif defined(__SSE2__)
    __m128d b = _mm_set1_pd(bound);
    for (int i = 0; i < 8; i++) {
        bits |= (uint32_t)_mm_movemask_pd(_mm_cmpge_pd(_mm_loadu_pd(values + 2 * i), b)) << (2 * i);
    }
#else
    for (int i = 0; i < 16; i++) {
        bits |= (uint32_t)(values[i] >= bound) << i;
    }
#endif
    return bits;
}

static inline uint32_t HOSTLER_VARIANT(at_most)(const double *values, double bound) {
    uint32_t bits = 0;
#if HOSTLER_WITH_AVX
    __m256d b = _mm256_set1_pd(bound);
    for (int i = 0; i < 4; i++) {
        bits |= (uint32_t)_mm256_movemask_pd(_mm256_cmp_pd(_mm256_loadu_pd(values + 4 * i), b, _CMP_LE_OQ)) << (4 * i);
    }
#elif defined(__SSE2__)
    __m128d b = _mm_set1_pd(bound);
    for (int i = 0; i < 8; i++) {
        bits |= (uint32_t)_mm_movemask_pd(_mm_cmple_pd(_mm_loadu_pd(values + 2 * i), b)) << (2 * i);
    }
#else
    for (int i = 0; i < 16; i++) {
        bits |= (uint32_t)(values[i] <= bound) << i;
    }
#endif
    return bits;
}

/* sums[i] += slope * (max(min(values[i], top), floor) - base), of sixteen. */
static inline void HOSTLER_VARIANT(add_sloped)(double *sums, const double *values, double top, double floor, double base, double slope) {
#if HOSTLER_WITH_AVX
    __m256d t = _mm256_set1_pd(top), f = _mm256_set1_pd(floor), b = _mm256_set1_pd(base), m = _mm256_set1_pd(slope);
    for (int i = 0; i < 16; i += 4) {
        __m256d value = _mm256_max_pd(f, _mm256_min_pd(t, _mm256_loadu_pd(values + i)));
        value = _mm256_mul_pd(m, _mm256_sub_pd(value, b));
        _mm256_storeu_pd(sums + i, _mm256_add_pd(_mm256_loadu_pd(sums + i), value));
    }
#else
    for (int i = 0; i < 16; i++) {
        double value = values[i] > top ? top : values[i];
        value = value < floor ? floor : value;
        sums[i] += slope * (value - base);
    }
#endif
}

/* sums[i] += multiplier * ((max(min(values[i], top), floor) - base) / span), of sixteen. */
static inline void HOSTLER_VARIANT(add_scored)(double *sums, const double *values, double top, double floor, double base, double span,
                                               double multiplier) {
#if HOSTLER_WITH_AVX
    __m256d t = _mm256_set1_pd(top), f = _mm256_set1_pd(floor), b = _mm256_set1_pd(base), s = _mm256_set1_pd(span);
    __m256d m = _mm256_set1_pd(multiplier);
    for (int i = 0; i < 16; i += 4) {
        __m256d value = _mm256_max_pd(f, _mm256_min_pd(t, _mm256_loadu_pd(values + i)));
        value = _mm256_mul_pd(m, _mm256_div_pd(_mm256_sub_pd(value, b), s));
        _mm256_storeu_pd(sums + i, _mm256_add_pd(_mm256_loadu_pd(sums + i), value));
    }
#else
    for (int i = 0; i < 16; i++) {
        double value = values[i] > top ? top : values[i];
        value = value < floor ? floor : value;
        sums[i] += multiplier * ((value - base) / span);
    }
#endif
}

static inline uint32_t HOSTLER_VARIANT(rule_passes)(const hostler_rule *rule, const double *values) {
    uint32_t bits = 0xffff;
    if (rule->low > -INFINITY) {
        bits = HOSTLER_VARIANT(at_least)(values, rule->low);
    }
    if (rule->high < INFINITY) {
        bits &= HOSTLER_VARIANT(at_most)(values, rule->high);
    }
    return bits;
}

/* Which of the rows `bits` of a leaf pass, set aside or not. */
static inline uint32_t HOSTLER_VARIANT(leaf_passes)(hostler_query *q, int64_t leaf, uint32_t bits) {
    const hostler_index *x = q->index;
    const hostler_level *level = &x->level[0];
    const double *values = x->values + leaf * x->width * 16;
    bits &= (1u << level->rows[leaf]) - 1;
    for (int32_t r = 0; r < q->rule_count && bits; r++) {
        bits &= HOSTLER_VARIANT(rule_passes)(&q->rules[r], values + 16 * q->rules[r].slot);
    }
    if (level->class_low[leaf] != level->class_high[leaf]) {
        for (uint32_t left = bits; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            if (q->class_stage[x->class_at[leaf * 16 + i]]) {
                bits &= ~(1u << i);
            }
        }
    } else if (q->class_stage[level->class_low[leaf]]) {
        return 0;
    }
    for (int32_t r = 0; r < q->rule_count && q->has_units; r++) {
        for (uint32_t left = q->rules[r].units ? bits : 0; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            if (!hostler_units_pass(q, &q->rules[r], x->row_at[leaf * 16 + i])) {
                bits &= ~(1u << i);
            }
        }
    }
    return bits;
}

static inline uint32_t HOSTLER_VARIANT(not_aside)(const hostler_query *q, int64_t leaf, uint32_t bits) {
    for (uint32_t left = q->has_aside ? bits : 0; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        if (q->index->aside[q->index->row_at[leaf * 16 + i]]) {
            bits &= ~(1u << i);
        }
    }
    return bits;
}

/* Which of sixteen siblings have a class that passes, and values that let a row pass. */
static inline uint32_t HOSTLER_VARIANT(can_pass)(const hostler_query *q, const hostler_level *level, int64_t parent) {
    const double *highs = level->high + parent * q->index->width * 16, *lows = level->low + parent * q->index->width * 16;
    uint32_t bits = 0xffff;
    if (level->known[parent] >> 16 == q->index->request) {
        return level->known[parent] & 0xffff;
    }
    for (int32_t r = 0; r < q->rule_count && bits; r++) {
        const hostler_rule *rule = &q->rules[r];
        if (rule->low > -INFINITY) {
            bits &= HOSTLER_VARIANT(at_least)(highs + 16 * rule->slot, rule->low);
        }
        if (rule->high < INFINITY) {
            bits &= HOSTLER_VARIANT(at_most)(lows + 16 * rule->slot, rule->high);
        }
    }
    const int32_t *low = level->class_low + parent * 16, *high = level->class_high + parent * 16;
    for (uint32_t left = bits; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        if (!hostler_any(q->passing, low[i], high[i])) {
            bits &= ~(1u << i);
        }
    }
    level->known[parent] = q->index->request << 16 | bits;
    return bits;
}

/* Whether a node has nothing but rows that pass. */
static inline int HOSTLER_VARIANT(all_pass)(const hostler_query *q, const hostler_level *level, int64_t node) {
    int64_t at = node / 16 * q->index->width * 16 + node % 16;
    int32_t low = level->class_low[node], high = level->class_high[node];
    if (q->has_units || q->passing[high + 1] - q->passing[low] != high + 1 - low) {
        return 0;
    }
    for (int32_t r = 0; r < q->rule_count; r++) {
        const hostler_rule *rule = &q->rules[r];
        if (level->low[at + 16 * rule->slot] < rule->low || level->high[at + 16 * rule->slot] > rule->high) {
            return 0;
        }
    }
    return 1;
}

/* Counts */

/* Count rows of a class that rule `r` is the first to refuse. */
static inline void HOSTLER_VARIANT(move)(hostler_query *q, int32_t host_class, int32_t r, int64_t rows) {
    uint8_t was = q->class_stage[host_class], stage = q->rules[r].stage;
    if (q->refused) {
        q->refused[host_class * HOSTLER_RANKS + q->rank[r]] += (int32_t)rows;
    } else if (was != HOSTLER_NO_HOST && (was == 0 || was > stage)) {
        q->counts[was] -= rows;
        q->counts[stage] += rows;
    }
}

/* Count a leaf; bit r of `undecided`: rule r does not let all its rows pass, as far as is known. */
static void HOSTLER_VARIANT(hostler_count_leaf)(hostler_query *q, int64_t leaf, uint32_t undecided) {
    const hostler_index *x = q->index;
    const hostler_level *level = &x->level[0];
    const double *values = x->values + leaf * x->width * 16;
    uint32_t open = (1u << level->rows[leaf]) - 1;
    for (; undecided && open; undecided &= undecided - 1) {
        int32_t r = __builtin_ctz(undecided);
        const hostler_rule *rule = &q->rules[r];
        uint32_t passes = HOSTLER_VARIANT(rule_passes)(rule, values + 16 * rule->slot);
        for (uint32_t left = rule->units ? open & passes : 0; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            if (!hostler_units_pass(q, rule, x->row_at[leaf * 16 + i])) {
                passes &= ~(1u << i);
            }
        }
        uint32_t fails = open & ~passes;
        open &= passes;
        if (fails == 0) {
            continue;
        }
        if (level->class_low[leaf] == level->class_high[leaf]) {
            HOSTLER_VARIANT(move)(q, level->class_low[leaf], r, __builtin_popcount(fails));
            continue;
        }
        for (; fails; fails &= fails - 1) {
            HOSTLER_VARIANT(move)(q, x->class_at[leaf * 16 + __builtin_ctz(fails)], r, 1);
        }
    }
}

/* Ask for what a visit of a node looks at first. */
static inline void HOSTLER_VARIANT(fetch_node)(const hostler_query *q, int32_t l, int64_t parent) {
    const hostler_level *level = &q->index->level[l];
    int64_t at = parent * q->index->width * 16;
    for (int32_t r = 0; r < q->rule_count; r++) {
        const double *high = level->high + at + 16 * q->rules[r].slot, *low = level->low + at + 16 * q->rules[r].slot;
        __builtin_prefetch(high);
        __builtin_prefetch(high + 8);
        __builtin_prefetch(low);
        __builtin_prefetch(low + 8);
    }
    __builtin_prefetch(level->class_low + parent * 16);
    __builtin_prefetch(level->class_high + parent * 16);
}

static void HOSTLER_VARIANT(hostler_count_below)(hostler_query *q, int32_t l, int64_t parent) {
    const hostler_index *x = q->index;
    const hostler_level *level = &x->level[l];
    const double *highs = level->high + parent * x->width * 16, *lows = level->low + parent * x->width * 16;
    const int32_t *low = level->class_low + parent * 16, *high = level->class_high + parent * 16;
    uint32_t open = 0, mixed = 0, unsure[HOSTLER_RULES];
    q->visited++;
    for (int i = 0; i < 16; i++) {
        open |= (uint32_t)(q->refused ? high[i] >= low[i] : hostler_any(q->movable, low[i], high[i])) << i;
    }
    for (int32_t r = 0; r < q->rule_count && (open | mixed); r++) {
        const hostler_rule *rule = &q->rules[r];
        const double *top = highs + 16 * rule->slot, *bottom = lows + 16 * rule->slot;
        uint32_t all = 0xffff, some = 0xffff;
        if (rule->low > -INFINITY) {
            all &= HOSTLER_VARIANT(at_least)(bottom, rule->low);
            some &= HOSTLER_VARIANT(at_least)(top, rule->low);
        }
        if (rule->high < INFINITY) {
            all &= HOSTLER_VARIANT(at_most)(top, rule->high);
            some &= HOSTLER_VARIANT(at_most)(bottom, rule->high);
        }
        if (rule->units) {
            all = 0;
        }
        unsure[r] = ~all;
        for (uint32_t left = open & ~some; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            if (low[i] == high[i]) {
                HOSTLER_VARIANT(move)(q, low[i], r, level->rows[parent * 16 + i]);
            } else {
                mixed |= 1u << i;
            }
        }
        mixed |= open & some & ~all;
        open &= all;
    }
    if (l > 0) {
        for (uint32_t left = mixed; left; left &= left - 1) {
            HOSTLER_VARIANT(fetch_node)(q, l - 1, parent * 16 + __builtin_ctz(left));
        }
        for (; mixed; mixed &= mixed - 1) {
            HOSTLER_VARIANT(hostler_count_below)(q, l - 1, parent * 16 + __builtin_ctz(mixed));
        }
        return;
    }
    uint32_t undecided[16];
    for (uint32_t left = mixed; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        undecided[i] = 0;
        for (int32_t r = 0; r < q->rule_count; r++) {
            undecided[i] |= (unsure[r] >> i & 1) << r;
        }
        const double *values = x->values + (parent * 16 + i) * x->width * 16;
        for (uint32_t rules = undecided[i]; rules; rules &= rules - 1) {
            const double *line = values + 16 * q->rules[__builtin_ctz(rules)].slot;
            __builtin_prefetch(line);
            __builtin_prefetch(line + 8);
        }
    }
    for (; mixed; mixed &= mixed - 1) {
        int i = __builtin_ctz(mixed);
        HOSTLER_VARIANT(hostler_count_leaf)(q, parent * 16 + i, undecided[i]);
    }
}

/* Ranges */

/* Widen every open range by the rows `bits` of a leaf. */
static inline void HOSTLER_VARIANT(widen)(hostler_query *q, int64_t leaf, uint32_t bits) {
    const hostler_index *x = q->index;
    for (int32_t j = 0; j < q->weigher_count; j++) {
        hostler_weigher *t = &q->weighers[j];
        if (t->kind == HOSTLER_CONSTANT) {
            continue;
        }
        const double *values = x->values + (leaf * x->width + t->slot) * 16;
        double low = t->low, high = t->high;
        for (uint32_t left = bits; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            double value = t->kind == HOSTLER_BY_COLUMN ? values[i] : t->values[x->class_at[leaf * 16 + i]];
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
        t->low = low;
        t->high = high;
    }
}

/* Greatest raw value of sixteen siblings, or minus the least. */
static inline void HOSTLER_VARIANT(side_bounds)(const hostler_query *q, const hostler_level *level, int64_t parent,
                                                const hostler_weigher *t, int upper, double *bounds) {
    if (t->kind == HOSTLER_BY_COLUMN) {
        const double *side = (upper ? level->high : level->low) + (parent * q->index->width + t->slot) * 16;
        for (int i = 0; i < 16; i++) {
            bounds[i] = upper ? side[i] : -side[i];
        }
        return;
    }
    for (int i = 0; i < 16; i++) {
        int32_t low = level->class_low[parent * 16 + i], high = level->class_high[parent * 16 + i];
        bounds[i] = upper ? t->value_high : -t->value_low;
        if (low == high) {
            bounds[i] = upper ? t->values[low] : -t->values[low];
        }
    }
}

static void HOSTLER_VARIANT(hostler_reach)(hostler_query *q, hostler_weigher *t, int upper, int32_t l, int64_t parent) {
    const hostler_level *level = &q->index->level[l];
    uint32_t live = HOSTLER_VARIANT(can_pass)(q, level, parent);
    double bounds[16];
    q->visited++;
    if (live == 0) {
        return;
    }
    HOSTLER_VARIANT(side_bounds)(q, level, parent, t, upper, bounds);
    while (live) {
        double known = upper ? t->high : -t->low, most = known;
        int best = -1;
        for (uint32_t left = live; left; left &= left - 1) {
            int i = __builtin_ctz(left);
            if (bounds[i] > most) {
                most = bounds[i];
                best = i;
            }
        }
        if (best < 0) {
            return;
        }
        live &= ~(1u << best);
        int64_t node = parent * 16 + best;
        if (!q->has_aside && t->kind == HOSTLER_BY_COLUMN && HOSTLER_VARIANT(all_pass)(q, level, node)) {
            if (upper) {
                t->high = most;
            } else {
                t->low = -most;
            }
        } else if (l > 0) {
            HOSTLER_VARIANT(hostler_reach)(q, t, upper, l - 1, node);
        } else {
            q->visited++;
            uint32_t bits = HOSTLER_VARIANT(not_aside)(q, node, HOSTLER_VARIANT(leaf_passes)(q, node, 0xffff));
            HOSTLER_VARIANT(widen)(q, node, bits);
        }
    }
}

static void HOSTLER_VARIANT(hostler_measure_all)(hostler_query *q) {
    for (int32_t j = 0; j < q->weigher_count; j++) {
        hostler_weigher *t = &q->weighers[j];
        t->low = INFINITY;
        t->high = -INFINITY;
    }
    for (int32_t j = 0; j < q->weigher_count; j++) {
        hostler_weigher *t = &q->weighers[j];
        if (t->kind == HOSTLER_CONSTANT) {
            continue;
        }
        if (!t->has_maxval) {
            HOSTLER_VARIANT(hostler_reach)(q, t, 1, q->index->levels - 1, 0);
        }
        if (!t->has_minval) {
            HOSTLER_VARIANT(hostler_reach)(q, t, 0, q->index->levels - 1, 0);
        }
    }
}

/* Best rows */

/* Most that a weigher adds to the score of a row whose raw value is within [low, high], sixteen at a time. */
static inline void HOSTLER_VARIANT(add_bounds)(const hostler_weigher *t, const double *low, const double *high, double *bounds) {
    double span = t->range, base = t->low, top = t->low + t->range;
    top = top < t->high ? t->high : top;
    if (t->least_multiplier == t->greatest_multiplier) {
        double m = t->least_multiplier;
        HOSTLER_VARIANT(add_scored)(bounds, m >= 0.0 ? high : low, top, base, base, span, m);
        return;
    }
    for (int i = 0; i < 16; i++) {
        double most = high[i] > top ? top : high[i], least = low[i] < base ? base : low[i];
        most = most < base ? base : most;
        least = least > top ? top : least;
        double n = (most - base) / span, o = (least - base) / span;
        double a = t->greatest_multiplier * n, b = t->least_multiplier * n;
        double c = t->greatest_multiplier * o, d = t->least_multiplier * o;
        a = a > b ? a : b;
        c = c > d ? c : d;
        bounds[i] += a > c ? a : c;
    }
}

/* The bounds by the reference score and what it leaves over of the summed slopes. */
static inline void HOSTLER_VARIANT(refer_bounds)(const hostler_query *q, const hostler_level *level, int64_t parent, double *bounds) {
    const double *best = level->best + parent * 16;
    double offset = q->offset + q->slack, share = q->share;
    for (int i = 0; i < 16; i++) {
        bounds[i] = offset;
    }
    HOSTLER_VARIANT(add_sloped)(bounds, best, INFINITY, -INFINITY, 0.0, share);
    for (int32_t k = 0; k < q->rest_count; k++) {
        double rest = q->rest[k];
        const double *side = (rest >= 0.0 ? level->high : level->low) + (parent * q->index->width + q->rest_slot[k]) * 16;
        HOSTLER_VARIANT(add_sloped)(bounds, side, INFINITY, q->rest_floor[k], 0.0, rest);
    }
}

/* No row below a node has a greater score than its bound; `exact`: bounds to which a score may be equal. */
static inline void HOSTLER_VARIANT(score_bounds)(const hostler_query *q, const hostler_level *level, int64_t parent, int exact, double *bounds) {
    int64_t at = parent * q->index->width * 16;
    int summed = !exact && q->share > 0.0;
    if (summed) {
        HOSTLER_VARIANT(refer_bounds)(q, level, parent, bounds);
    } else {
        for (int i = 0; i < 16; i++) {
            bounds[i] = exact ? 0.0 : q->slack;
        }
    }
    for (int32_t j = 0; j < q->weigher_count; j++) {
        const hostler_weigher *t = &q->weighers[j];
        if (t->range == 0.0 || (summed && t->summed)) {
            continue;
        }
        if (t->kind == HOSTLER_BY_COLUMN) {
            const double *lows = level->low + at + 16 * t->slot, *highs = level->high + at + 16 * t->slot;
            if (exact || t->multipliers) {
                HOSTLER_VARIANT(add_bounds)(t, lows, highs, bounds);
            } else {
                /* Without a division; q->slack is more than what rounding makes of the difference. */
                HOSTLER_VARIANT(add_sloped)(bounds, t->slope >= 0.0 ? highs : lows, t->top, t->low, t->low, t->slope);
            }
            continue;
        }
        double low[16], high[16];
        for (int i = 0; i < 16; i++) {
            int32_t first = level->class_low[parent * 16 + i], last = level->class_high[parent * 16 + i];
            low[i] = high[i] = t->constant;
            if (t->kind == HOSTLER_BY_CLASS) {
                low[i] = first == last ? t->values[first] : t->value_low;
                high[i] = first == last ? t->values[first] : t->value_high;
            }
        }
        HOSTLER_VARIANT(add_bounds)(t, low, high, bounds);
    }
}

/* Which of the rows of a leaf may be offered: those whose score may reach the least that was kept. */
static inline uint32_t HOSTLER_VARIANT(leaf_worth)(const hostler_query *q, int64_t leaf) {
    double scores[16];
    const hostler_index *x = q->index;
    if (q->found < q->wanted || q->slack < 0.0) {
        return 0xffff;
    }
    for (int i = 0; i < 16; i++) {
        scores[i] = q->slack;
    }
    for (int32_t j = 0; j < q->weigher_count; j++) {
        const hostler_weigher *t = &q->weighers[j];
        if (t->range == 0.0) {
            continue;
        }
        if (t->kind != HOSTLER_BY_COLUMN || t->multipliers) {
            for (int i = 0; i < 16; i++) {
                scores[i] += t->most;
            }
            continue;
        }
        double floor = t->has_minval ? t->minval : -INFINITY;
        HOSTLER_VARIANT(add_sloped)(scores, x->values + (leaf * x->width + t->slot) * 16, INFINITY, floor, t->low, t->slope);
    }
    return HOSTLER_VARIANT(at_least)(scores, q->top_score[q->wanted - 1]);
}

static inline void HOSTLER_VARIANT(leaf_scores)(const hostler_query *q, int64_t leaf, double *scores) {
    const hostler_index *x = q->index;
    memset(scores, 0, 16 * sizeof(double));
    for (int32_t j = 0; j < q->weigher_count; j++) {
        const hostler_weigher *t = &q->weighers[j];
        double floor = t->has_minval ? t->minval : -INFINITY, span = t->range, base = t->low;
        if (span == 0.0) {
            continue;
        }
        if (t->kind == HOSTLER_BY_COLUMN && t->multipliers == NULL) {
            HOSTLER_VARIANT(add_scored)(scores, x->values + (leaf * x->width + t->slot) * 16, INFINITY, floor, base, span, t->multiplier);
            continue;
        }
        for (int i = 0; i < 16 && x->row_at[leaf * 16 + i] >= 0; i++) {
            int32_t host_class = x->class_at[leaf * 16 + i];
            double value = t->constant;
            if (t->kind == HOSTLER_BY_COLUMN) {
                value = x->values[(leaf * x->width + t->slot) * 16 + i];
            } else if (t->kind == HOSTLER_BY_CLASS) {
                value = t->values[host_class];
            }
            value = value < floor ? floor : value;
            scores[i] += (t->multipliers ? t->multipliers[host_class] : t->multiplier) * ((value - base) / span);
        }
    }
}

static inline int HOSTLER_VARIANT(hopeless)(const hostler_query *q, double bound, int32_t first_row) {
    if (q->found < q->wanted) {
        return 0;
    }
    double least = q->top_score[q->wanted - 1];
    return bound < least || (bound == least && first_row > q->top_row[q->wanted - 1]);
}

static void HOSTLER_VARIANT(hostler_best_below)(hostler_query *q, int32_t l, int64_t parent) {
    const hostler_level *level = &q->index->level[l];
    uint32_t live = HOSTLER_VARIANT(can_pass)(q, level, parent);
    const int32_t *first = level->first_row + parent * 16;
    double bounds[16], exact[16];
    int known = 0;
    q->visited++;
    if (live == 0) {
        return;
    }
    HOSTLER_VARIANT(score_bounds)(q, level, parent, q->slack < 0.0, bounds);
    if (q->found == q->wanted) {
        live &= HOSTLER_VARIANT(at_least)(bounds, q->top_score[q->wanted - 1]);
    }
    while (live) {
        int best = __builtin_ctz(live);
        for (uint32_t left = live & (live - 1); left; left &= left - 1) {
            int i = __builtin_ctz(left);
            if (bounds[i] > bounds[best] || (bounds[i] == bounds[best] && first[i] < first[best])) {
                best = i;
            }
        }
        if (q->found == q->wanted) {
            double least = q->top_score[q->wanted - 1];
            if (bounds[best] < least) {
                return;
            }
            if (q->slack < 0.0 ? bounds[best] == least : bounds[best] - 2.0 * q->slack <= least) {
                /* So close that rounding decides, or which row comes first. */
                if (!known) {
                    HOSTLER_VARIANT(score_bounds)(q, level, parent, 1, exact);
                    known = 1;
                }
                if (HOSTLER_VARIANT(hopeless)(q, exact[best], first[best])) {
                    live &= ~(1u << best);
                    continue;
                }
            }
        }
        live &= ~(1u << best);
        int64_t node = parent * 16 + best;
        if (l > 0) {
            HOSTLER_VARIANT(hostler_best_below)(q, l - 1, node);
            continue;
        }
        q->visited++;
        uint32_t bits = HOSTLER_VARIANT(leaf_worth)(q, node);
        bits = bits ? HOSTLER_VARIANT(not_aside)(q, node, HOSTLER_VARIANT(leaf_passes)(q, node, bits)) : 0;
        if (bits == 0) {
            continue;
        }
        double scores[16];
        HOSTLER_VARIANT(leaf_scores)(q, node, scores);
        for (; bits; bits &= bits - 1) {
            int i = __builtin_ctz(bits);
            hostler_offer(q, q->index->row_at[node * 16 + i], scores[i]);
        }
    }
}
