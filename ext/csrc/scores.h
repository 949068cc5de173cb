/* Passes over whole columns: scores of all rows under given normalisers, and the lowest level of a tournament tree.
 *
 * Compiled once per instruction set and chosen when the module is loaded. Every operation is rounded as written: the
 * results are those of the scalar code to the bit (no contraction, no reassociation), whatever the vector width.
 */
#ifndef HOSTLER_SCORES_H
#define HOSTLER_SCORES_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "clones.h"

/* score[i] += multiplier * ((max(raw[i], minval) - low) / range) */
HOSTLER_CLONES
static void hostler_add_term(double *restrict score, const double *restrict raw, int64_t n, double minval, double low, double range,
                             double multiplier) {
    for (int64_t i = 0; i < n; i++) {
        double value = raw[i] < minval ? minval : raw[i];
        score[i] += multiplier * ((value - low) / range);
    }
}

#define HOSTLER_SUNK (-DBL_MAX) /* stands for scores of rows that pass and whose sum overflowed to -inf, or that is no number */

/* score[i] = -inf where stage[i] refuses the row, and nowhere else */
HOSTLER_CLONES
static void hostler_refuse(double *restrict score, const uint8_t *restrict stage, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double kept = score[i] > HOSTLER_SUNK ? score[i] : HOSTLER_SUNK;
        score[i] = stage[i] ? -INFINITY : kept;
    }
}

/* out[i] = sign * max(raw[i], minval), -inf where stage[i] refuses the row */
HOSTLER_CLONES
static void hostler_passing(double *restrict out, const double *restrict raw, const uint8_t *restrict stage, int64_t n, double minval,
                            double sign) {
    for (int64_t i = 0; i < n; i++) {
        double value = raw[i] < minval ? minval : raw[i];
        out[i] = stage[i] ? -INFINITY : sign * value;
    }
}

/* best[b * stride] = greatest of the 16 values of block b, leader[b * stride] = its first position; blocks are whole. */
HOSTLER_CLONES
static void hostler_block_maxima(const double *restrict values, int64_t blocks, int64_t stride, double *restrict best,
                                 uint8_t *restrict leader) {
    for (int64_t b = 0; b < blocks; b++) {
        const double *v = values + 16 * b;
        double half[8];
        for (int i = 0; i < 8; i++) {
            half[i] = v[i] > v[i + 8] ? v[i] : v[i + 8];
        }
        for (int i = 0; i < 4; i++) {
            half[i] = half[i] > half[i + 4] ? half[i] : half[i + 4];
        }
        for (int i = 0; i < 2; i++) {
            half[i] = half[i] > half[i + 2] ? half[i] : half[i + 2];
        }
        double greatest = half[0] > half[1] ? half[0] : half[1];
        uint32_t equal = 0;
        for (int i = 0; i < 16; i++) {
            equal |= (uint32_t)(v[i] == greatest) << i;
        }
        best[b * stride] = greatest;
        leader[b * stride] = (uint8_t)__builtin_ctz(equal | 0x10000u) & 15;
    }
}

/* Greatest of sign * max(raw[i], minval) over the 16 rows that no stage refuses, -inf if there is none; *leader its first position. */
HOSTLER_CLONES
static double hostler_block_greatest(const double *restrict raw, const uint8_t *restrict stage, double minval, double sign,
                                     uint8_t *restrict leader) {
    double v[16], half[8];
    for (int i = 0; i < 16; i++) {
        double value = raw[i] < minval ? minval : raw[i];
        v[i] = stage[i] ? -INFINITY : sign * value;
    }
    for (int i = 0; i < 8; i++) {
        half[i] = v[i] > v[i + 8] ? v[i] : v[i + 8];
    }
    for (int i = 0; i < 4; i++) {
        half[i] = half[i] > half[i + 4] ? half[i] : half[i + 4];
    }
    for (int i = 0; i < 2; i++) {
        half[i] = half[i] > half[i + 2] ? half[i] : half[i + 2];
    }
    double greatest = half[0] > half[1] ? half[0] : half[1];
    uint32_t equal = 0;
    for (int i = 0; i < 16; i++) {
        equal |= (uint32_t)(v[i] == greatest) << i;
    }
    *leader = (uint8_t)(__builtin_ctz(equal | 0x10000u) & 15);
    return greatest;
}

#endif
