/* Which rules alone keep rows out, and by how much: what a block of rows says. near_blocks.h puts blocks together.
 *
 * A row's result is one word: the number of rules that refuse it above, the sum of their stages below. Of a row that one
 * rule refuses the sum is that rule's stage.
 */
#ifndef HOSTLER_NEAR_MISSES_H
#define HOSTLER_NEAR_MISSES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "clones.h"
#include "debug.h"
#include "fleet.h"

enum {
    NEAR_BLOCK = 256,
    NEAR_STAGES = 512,
};

#define NEAR_ONE ((int64_t)1 << 32)
#define NEAR_HIDDEN ((int64_t)1 << 48) /* rows that are not considered: more than all rules together */

typedef struct {
    int32_t stage, resource;
    int units; /* min_unit and step_size refuse, too */
    int64_t amount;
} near_need_t;

typedef struct {
    int32_t stage, column;
    double low, high;
} near_bound_t;

typedef struct {
    int32_t stage;
    const uint8_t *passes; /* [capacity] */
} near_mask_t;

typedef struct {
    const int64_t *class_word; /* [classes] number and sum of stages that refuse the class, or NEAR_HIDDEN */
    int64_t class_count;
    const uint8_t *considered; /* [capacity]; NULL: all */
    const near_need_t *needs;
    const near_bound_t *bounds; /* those of one stage follow each other */
    const near_mask_t *masks;
    int32_t need_count, bound_count, mask_count;
    /* Rows of the classes that are not 0 in `split` and that `split_stage` alone refuses count for the stage `split_to`.
     * One more rule refuses those of `split_stage` that are 2 there, or whose value of `split_column` is farther than
     * `within` from `now`; NaN is near, and everything if `now` is NaN. */
    int32_t split_stage, split_to, split_column;
    double now, within;
    int64_t beats; /* changes whenever values of `split_column` may have, of rows that are not in the change log */
    const uint8_t *split; /* [classes] */
} near_rules_t;

typedef struct {
    int64_t count, nearest;
    int32_t row;
} near_short_t;

static inline int near_suits(const columns_t *c, const near_need_t *need, int64_t at) {
    return c->min_unit[at] <= need->amount && need->amount <= c->max_unit[at] &&
           (c->step_size[at] <= 1 || need->amount % c->step_size[at] == 0);
}

HOSTLER_CLONES
static void near_add_classes(int64_t *restrict word, const int32_t *restrict class_of, const int64_t *restrict of_class, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        word[i] = of_class[class_of[i]];
    }
}

HOSTLER_CLONES
static void near_add_need(int64_t *restrict word, const int64_t *restrict avail, int64_t amount, int64_t n, int64_t add) {
    for (int64_t i = 0; i < n; i++) {
        word[i] += avail[i] < amount ? add : 0;
    }
}

HOSTLER_CLONES
static void near_judge_bound(int64_t *restrict fails, const double *restrict values, double low, double high, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        fails[i] |= (values[i] >= low) & (values[i] <= high) ? 0 : -1;
    }
}

HOSTLER_CLONES
static void near_add_failing(int64_t *restrict word, const int64_t *restrict fails, int64_t n, int64_t add) {
    for (int64_t i = 0; i < n; i++) {
        word[i] += fails[i] & add;
    }
}

HOSTLER_CLONES
static void near_add_mask(int64_t *restrict word, const uint8_t *restrict passes, int64_t n, int64_t add) {
    for (int64_t i = 0; i < n; i++) {
        word[i] += passes[i] ? 0 : add;
    }
}

HOSTLER_CLONES
static int64_t near_least(const int64_t *restrict word, int64_t n) {
    int64_t least = word[0];
    for (int64_t i = 1; i < n; i++) {
        least = word[i] < least ? word[i] : least;
    }
    return least;
}

/* Whether a bound or a mask of a stage refuses a row. */
static inline int near_refuses(const columns_t *c, const near_rules_t *r, int32_t stage, int64_t row) {
    for (int32_t k = 0; k < r->bound_count; k++) {
        double value = c->host[r->bounds[k].column * c->capacity + row];
        if (r->bounds[k].stage == stage && !(r->bounds[k].low <= value && value <= r->bounds[k].high)) {
            return 1;
        }
    }
    for (int32_t k = 0; k < r->mask_count; k++) {
        if (r->masks[k].stage == stage && !r->masks[k].passes[row]) {
            return 1;
        }
    }
    return 0;
}

/* The words of `n` rows from `row` on, without the split. */
static inline void near_judge(const columns_t *c, const near_rules_t *r, int64_t row, int64_t n, int64_t *word) {
    int64_t fails[NEAR_BLOCK];
#ifdef HOSTLER_DEBUG
    for (int64_t i = 0; i < n; i++) {
        HOSTLER_ASSERT_INDEX(c->class_of[row + i], r->class_count);
    }
#endif
    near_add_classes(word, c->class_of + row, r->class_word, n);
    for (int32_t k = 0; k < r->need_count; k++) {
        const near_need_t *need = &r->needs[k];
        int64_t at = need->resource * c->capacity + row;
        if (!need->units) {
            near_add_need(word, c->avail + at, need->amount, n, NEAR_ONE + need->stage);
            continue;
        }
        for (int64_t i = 0; i < n; i++) {
            word[i] += c->avail[at + i] < need->amount || !near_suits(c, need, at + i) ? NEAR_ONE + need->stage : 0;
        }
    }
    for (int32_t k = 0; k < r->bound_count;) {
        int32_t stage = r->bounds[k].stage;
        memset(fails, 0, n * sizeof(int64_t));
        for (; k < r->bound_count && r->bounds[k].stage == stage; k++) {
            const near_bound_t *bound = &r->bounds[k];
            near_judge_bound(fails, c->host + bound->column * c->capacity + row, bound->low, bound->high, n);
        }
        near_add_failing(word, fails, n, NEAR_ONE + stage);
    }
    for (int32_t k = 0; k < r->mask_count; k++) {
        near_add_mask(word, r->masks[k].passes + row, n, NEAR_ONE + r->masks[k].stage);
    }
    if (r->considered != NULL) {
        near_add_mask(word, r->considered + row, n, NEAR_HIDDEN);
    }
}

/* How long what was said of a block holds while nothing but the time passes. */
typedef struct {
    double now;    /* the time that the split was asked at */
    double oldest; /* least value that was near; INFINITY: none */
    int asked;     /* whether the answer depends on the time at all */
    int64_t beats; /* as the rules had it */
    int ahead;     /* whether a value was far from it on the other side: it may come near */
} near_clock_t;

static inline int near_holds(const near_clock_t *clock, const near_rules_t *r) {
    double now = r->now;
    if (!clock->asked) {
        return 1;
    }
    if (clock->beats != r->beats || now == clock->now) {
        return clock->beats == r->beats;
    }
    if (isnan(now) || isnan(clock->now)) {
        return isnan(now) && isnan(clock->now);
    }
    /* Distances grow with the time: what was far behind is, and what is as near as the oldest that was near is. */
    return now > clock->now && !clock->ahead && (clock->oldest == INFINITY || fabs(now - clock->oldest) <= r->within);
}

/* Add the one more rule of the split to the words below `most`: it cannot matter to the others. */
static inline void near_add_split(const columns_t *c, const near_rules_t *r, int64_t row, int64_t n, int64_t *word, int64_t most,
                                  near_clock_t *clock) {
    for (int64_t i = 0; i < n; i++) {
        uint8_t kind = word[i] < most ? r->split[c->class_of[row + i]] : 0;
        if (!kind || !near_refuses(c, r, r->split_stage, row + i)) {
            continue;
        }
        if (kind == 2) {
            word[i] += NEAR_ONE;
            continue;
        }
        double value = c->host[r->split_column * c->capacity + row + i];
        int far = fabs(r->now - value) > r->within;
        word[i] += far ? NEAR_ONE : 0;
        clock->asked = 1;
        clock->ahead |= far && value > r->now;
        clock->oldest = !far && value < clock->oldest ? value : clock->oldest;
    }
}

/* The greatest amount up to the one asked for that the unit rules allow; the least one where there is none. */
static inline int64_t near_allowed(const columns_t *c, const near_need_t *need, int64_t at) {
    int64_t step = c->step_size[at] > 1 ? c->step_size[at] : 1, least = c->min_unit[at];
    int64_t most = (need->amount < c->max_unit[at] ? need->amount : c->max_unit[at]) / step * step;
    return most >= least ? most : (least + step - 1) / step * step;
}

/* How many of a block's rows are short in each of the three ways, and the greatest amount of each. */
HOSTLER_CLONES
static void near_measure(const int64_t *restrict word, int64_t tag, const int64_t *restrict limit, const int64_t *restrict used,
                         const int64_t *restrict suits, const int64_t *restrict allowed, const int64_t *restrict max_unit,
                         int64_t amount, int64_t n, int64_t *restrict counts, int64_t *restrict greatest) {
    int64_t room = 0, units = 0, size = 0, left_most = INT64_MIN, allowed_most = INT64_MIN, unit_most = INT64_MIN;
    for (int64_t i = 0; i < n; i++) {
        int64_t mine = -(int64_t)(word[i] == tag), left = limit[i] - used[i], enough = -(int64_t)(left >= amount);
        int64_t of_room = mine & suits[i], of_units = mine & ~suits[i] & enough, of_size = mine & ~suits[i] & ~enough;
        room -= of_room;
        units -= of_units;
        size -= of_size;
        int64_t a = of_room ? left : INT64_MIN, b = of_units ? allowed[i] : INT64_MIN, d = of_size ? max_unit[i] : INT64_MIN;
        left_most = a > left_most ? a : left_most;
        allowed_most = b > allowed_most ? b : allowed_most;
        unit_most = d > unit_most ? d : unit_most;
    }
    counts[0] = room;
    counts[1] = units;
    counts[2] = size;
    greatest[0] = left_most;
    greatest[1] = allowed_most;
    greatest[2] = unit_most;
}

/* suits[i] = -1 where the unit rules allow the amount, with steps of 1, else 0; returns whether some step is greater. */
HOSTLER_CLONES
static int64_t near_judge_units(int64_t *restrict suits, const int64_t *restrict min_unit, const int64_t *restrict max_unit,
                                const int64_t *restrict step, int64_t amount, int64_t n) {
    int64_t stepped = 0;
    for (int64_t i = 0; i < n; i++) {
        suits[i] = -(int64_t)((min_unit[i] <= amount) & (amount <= max_unit[i]));
        stepped |= step[i] > 1;
    }
    return stepped;
}

/* What is lacking to the rows of a block that one need alone refuses. */
static inline void near_take_shorts(const columns_t *c, const near_need_t *need, const int64_t *word, int64_t row, int64_t n,
                                    near_short_t *found) {
    int64_t suits[NEAR_BLOCK], allowed[NEAR_BLOCK], counts[3], greatest[3];
    int64_t first = need->resource * c->capacity + row, tag = NEAR_ONE + need->stage;
    int64_t stepped = near_judge_units(suits, c->min_unit + first, c->max_unit + first, c->step_size + first, need->amount, n);
    for (int64_t i = 0; stepped && i < n; i++) {
        suits[i] = -(int64_t)near_suits(c, need, first + i);
    }
    memset(allowed, 0, n * sizeof(int64_t));
    near_measure(word, tag, c->limit + first, c->used + first, suits, allowed, c->max_unit + first, need->amount, n, counts,
                 greatest);
    if (counts[1]) {
        for (int64_t i = 0; i < n; i++) {
            int64_t left = c->limit[first + i] - c->used[first + i];
            allowed[i] = word[i] == tag && !suits[i] && left >= need->amount ? near_allowed(c, need, first + i) : 0;
        }
        near_measure(word, tag, c->limit + first, c->used + first, suits, allowed, c->max_unit + first, need->amount, n,
                     counts, greatest);
    }
    for (int32_t kind = 0; kind < 3; kind++) {
        if (counts[kind]) {
            int64_t i = 0;
            for (;; i++) {
                int64_t left = c->limit[first + i] - c->used[first + i];
                int64_t value = kind == 0 ? left : kind == 1 ? allowed[i] : c->max_unit[first + i];
                int mine = suits[i] ? 0 : left >= need->amount ? 1 : 2;
                if (word[i] == tag && mine == kind && value == greatest[kind]) {
                    break;
                }
            }
            found[kind].nearest = greatest[kind];
            found[kind].row = (int32_t)(row + i);
        }
        found[kind].count = counts[kind];
    }
}

HOSTLER_CLONES
static int64_t near_count(const int64_t *restrict word, int64_t from, int64_t to, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        count += (word[i] >= from) & (word[i] < to);
    }
    return count;
}

/* The first row of a block whose word is within [from, to); there is one. */
static inline int32_t near_first(const int64_t *word, int64_t from, int64_t to, int64_t row) {
    int64_t i = 0;
    while (word[i] < from || word[i] >= to) {
        i++;
    }
    return (int32_t)(row + i);
}

#endif
