/* Random choices, from a seed; draws.py says how. */
#ifndef HOSTLER_DRAWS_H
#define HOSTLER_DRAWS_H

#include <stdint.h>

#include "clones.h"

/* Word `number` of a seed's sequence: splitmix64. */
static inline uint64_t hostler_word(uint64_t seed, uint64_t number) {
    uint64_t word = seed + number * 0x9E3779B97F4A7C15u;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9u;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EBu;
    return word ^ (word >> 31);
}

/* The whole part of word * count / 2**64. */
static inline int64_t hostler_below(uint64_t word, int64_t count) {
    uint64_t n = (uint64_t)count, low = (word & 0xFFFFFFFFu) * n, high = (word >> 32) * n;
    return (int64_t)((high + (low >> 32)) >> 32);
}

/* The row that is number `nth` (from 0) of those with stage 0 and, where `skip_aside` is 1, not set aside. There is one. */
HOSTLER_CLONES
static int64_t hostler_nth_passing(const uint8_t *restrict stage, const uint8_t *restrict aside, uint8_t skip_aside, int64_t n,
                                   int64_t nth) {
    int64_t row = 0;
    for (; row + 128 <= n; row += 128) {
        uint8_t count = 0;
        for (int i = 0; i < 128; i++) {
            count += (uint8_t)((stage[row + i] | (aside[row + i] & skip_aside)) == 0);
        }
        if (nth < count) {
            break;
        }
        nth -= count;
    }
    for (; row < n; row++) {
        nth -= (stage[row] | (aside[row] & skip_aside)) == 0;
        if (nth < 0) {
            break;
        }
    }
    return row;
}

#endif
