/* Checks that cost too much for a release: ranges of what indexes a raw pointer. */
#ifndef HOSTLER_DEBUG_H
#define HOSTLER_DEBUG_H

#ifdef HOSTLER_DEBUG
#include <stdio.h>
#include <stdlib.h>
#define HOSTLER_ASSERT(condition)                                                                          \
    do {                                                                                                   \
        if (!(condition)) {                                                                                \
            fprintf(stderr, "%s:%d: %s: %s does not hold\n", __FILE__, __LINE__, __func__, #condition);    \
            abort();                                                                                       \
        }                                                                                                  \
    } while (0)
#else
#define HOSTLER_ASSERT(condition) ((void)sizeof(condition))
#endif

#endif
