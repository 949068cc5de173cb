/* Checks that a debug build makes of what indexes a raw pointer; nothing in a release. */
#ifndef HOSTLER_DEBUG_H
#define HOSTLER_DEBUG_H

#ifdef HOSTLER_DEBUG
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline void hostler_assert_index(int64_t index, int64_t count, const char *text, const char *where) {
    if (index < 0 || index >= count) {
        fprintf(stderr, "%s: %s is %lld, not within [0, %lld)\n", where, text, (long long)index, (long long)count);
        abort();
    }
}

static inline void hostler_assert(int holds, const char *text, const char *where) {
    if (!holds) {
        fprintf(stderr, "%s: %s does not hold\n", where, text);
        abort();
    }
}

#define HOSTLER_ASSERT(condition) hostler_assert((condition), #condition, __func__)
#define HOSTLER_ASSERT_INDEX(index, count) hostler_assert_index((index), (count), #index, __func__)
#else
#define HOSTLER_ASSERT(condition) ((void)sizeof(condition))
#define HOSTLER_ASSERT_INDEX(index, count) ((void)sizeof((index) + (count)))
#endif

#endif
