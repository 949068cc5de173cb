/* The reference score of a row: a weighted sum of tracked columns like those that requests ask for. Where a request weighs its rows
 * nearly as the reference does, a node's greatest reference score bounds their scores far closer than the ends of its columns do: no
 * row is best in every column at once. Which sum it is decides only what a search costs, never its answer.
 */
#ifndef HOSTLER_REFERENCE_H
#define HOSTLER_REFERENCE_H

#include <math.h>
#include <stdint.h>

#include "debug.h"

#define HOSTLER_TRACKED 24      /* most tracked columns */
#define HOSTLER_USUAL 32        /* requests that the usual slopes are a mean of */

typedef struct {
    int32_t count;                                    /* columns that it sums; 0: no reference is set */
    int32_t slot[HOSTLER_TRACKED];                    /* of them */
    double slope[HOSTLER_TRACKED];                    /* slope * max(value, floor) */
    double floor[HOSTLER_TRACKED];
    double usual[HOSTLER_TRACKED];                    /* by tracked column: running mean of the requests' slopes */
    double usual_floor[HOSTLER_TRACKED];
    int64_t asked;                                    /* requests so far */
    int64_t visits;                                   /* nodes visited since it was set */
    double least[HOSTLER_TRACKED], greatest[HOSTLER_TRACKED]; /* no value of a tracked column is outside */
} hostler_reference;

/* What a request adds to the sum: its slope by tracked column, and the floor of those whose slope is not 0. */
typedef struct {
    double slope[HOSTLER_TRACKED], floor[HOSTLER_TRACKED];
    uint32_t weighed; /* bit w: the request weighs column w */
} hostler_slopes_of;

/* The reference score of values that lie 16 apart. */
static inline double hostler_refer(const hostler_reference *f, const double *values) {
    double sum = 0.0;
    for (int32_t k = 0; k < f->count; k++) {
        double value = values[16 * f->slot[k]];
        sum += f->slope[k] * (value < f->floor[k] ? f->floor[k] : value);
    }
    return sum;
}

/* Widen the range of a column by a value. */
static inline void hostler_reach_to(hostler_reference *f, int32_t slot, double value) {
    f->least[slot] = value < f->least[slot] ? value : f->least[slot];
    f->greatest[slot] = value > f->greatest[slot] ? value : f->greatest[slot];
}

/* Take the slopes of a request into the usual ones. */
static void hostler_learn(hostler_reference *f, const hostler_slopes_of *s, int32_t width) {
    f->asked++;
    double share = 1.0 / (double)(f->asked < HOSTLER_USUAL ? f->asked : HOSTLER_USUAL);
    for (int32_t w = 0; w < width; w++) {
        int weighed = s->weighed >> w & 1;
        f->usual[w] += ((weighed ? s->slope[w] : 0.0) - f->usual[w]) * share;
        if (weighed) {
            f->usual_floor[w] = s->floor[w];
        }
    }
}

/* Make the usual slopes the reference; the scores of rows are still to be computed. */
static void hostler_adopt(hostler_reference *f, int32_t width) {
    f->count = 0;
    f->visits = 0;
    for (int32_t w = 0; w < width; w++) {
        if (f->usual[w] != 0.0) {
            f->slot[f->count] = w;
            f->slope[f->count] = f->usual[w];
            f->floor[f->count++] = f->usual_floor[w];
        }
    }
}

/* Greatest magnitude of a column's values and of its floor. */
static inline double hostler_magnitude(const hostler_reference *f, int32_t slot, double floor) {
    double most = fabs(f->least[slot]);
    most = fabs(f->greatest[slot]) > most ? fabs(f->greatest[slot]) : most;
    return floor > -INFINITY && fabs(floor) > most ? fabs(floor) : most;
}

#endif
