/* How many rows of each host class a list of rules refuses, by rank of the stage, kept up to date change by change. A
 * request needs the counts of its list and a sum over the classes, instead of a visit of every node that rules divide.
 *
 * A list of rules is a range of values per pair of a tracked column and a rank, the position of the rule's stage among those of the list:
 * requests number their stages differently. Pairs that a list has no rule for have an infinite range. Each pair keeps the distinct ends of the ranges of all lists: a changed value concerns only the lists whose ends it crosses.
 */
#ifndef HOSTLER_CLASS_COUNTS_H
#define HOSTLER_CLASS_COUNTS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "debug.h"

#define HOSTLER_LISTS 1024     /* lists of rules kept at most */
#define HOSTLER_LIST_SLOTS 2048 /* of the hash table of lists: a power of two */
#define HOSTLER_ENDS 256       /* distinct least (greatest) values of the lists by pair at most */
#define HOSTLER_PAIRS 8        /* pairs of a column and a rank at most */
#define HOSTLER_RANKS 4        /* stages of a list at most */
#define HOSTLER_LIST_BYTES(rows) (64 * (rows) + (1 << 20)) /* of the counts of all lists at most */

typedef struct {
    double low, high; /* a value passes if low <= value <= high */
} hostler_limits;

typedef struct {
    double at;     /* where ranges end */
    int32_t first; /* a list that has such a range; the others follow in `next` */
} hostler_end;

typedef struct {
    int32_t slot, rank, low_count, high_count;
    hostler_end low[HOSTLER_ENDS], high[HOSTLER_ENDS];         /* distinct finite ends */
    int32_t next_low[HOSTLER_LISTS], next_high[HOSTLER_LISTS]; /* by list; -1: the last one */
} hostler_pair;

/* What a change looks at lies together: it concerns some dozens of lists, and what each costs is the lines of the cache. */
typedef struct {
    int64_t looked_at; /* number of the change that the list was last looked at for */
    int32_t *refused;  /* [class_room][HOSTLER_RANKS] rows by the rank of the first stage that refuses them */
    hostler_limits limits[HOSTLER_PAIRS];
} hostler_list;

typedef struct {
    int32_t pair_count, list_count, class_room;
    hostler_pair pair[HOSTLER_PAIRS];
    hostler_list list[HOSTLER_LISTS];
    int64_t change;                      /* number of the latest change */
    int32_t list_at[HOSTLER_LIST_SLOTS];      /* linear probing; 0: empty, else the list + 1 */
} hostler_class_counts;

/* Forget all lists. */
static void hostler_forget_lists(hostler_class_counts *c) {
    if (c == NULL) {
        return;
    }
    for (int32_t list = 0; list < c->list_count; list++) {
        free(c->list[list].refused);
    }
    memset(c->list_at, 0, sizeof c->list_at);
    c->pair_count = c->list_count = c->class_room = 0;
}

__attribute__((unused)) static int64_t hostler_bytes_of_lists(const hostler_class_counts *c) {
    return c == NULL ? 0 : (int64_t)sizeof *c + (int64_t)c->list_count * c->class_room * HOSTLER_RANKS * (int64_t)sizeof(int32_t);
}

/* Number of the pair, which is added if there is none; -1 if there is no room. */
static int32_t hostler_pair_of(hostler_class_counts *c, int32_t slot, int32_t rank) {
    for (int32_t p = 0; p < c->pair_count; p++) {
        if (c->pair[p].slot == slot && c->pair[p].rank == rank) {
            return p;
        }
    }
    if (c->pair_count == HOSTLER_PAIRS || rank >= HOSTLER_RANKS) {
        return -1;
    }
    hostler_pair *pair = &c->pair[c->pair_count];
    pair->slot = slot;
    pair->rank = rank;
    pair->low_count = pair->high_count = 0;
    for (int32_t list = 0; list < c->list_count; list++) {
        c->list[list].limits[c->pair_count].low = -INFINITY;
        c->list[list].limits[c->pair_count].high = INFINITY;
    }
    return c->pair_count++;
}

static uint64_t hostler_hash_limits(const hostler_limits *limits, int32_t pairs) {
    uint64_t hash = 0x9E3779B97F4A7C15u, words[2];
    for (int32_t p = 0; p < pairs; p++) {
        if (limits[p].low == -INFINITY && limits[p].high == INFINITY) {
            continue; /* equal to a list that was added before the pair was */
        }
        memcpy(words, &limits[p], sizeof words);
        hash = (hash ^ words[0] ^ (uint64_t)p) * 0xBF58476D1CE4E5B9u;
        hash = (hash ^ (hash >> 29) ^ words[1]) * 0x94D049BB133111EBu;
        hash ^= hash >> 32;
    }
    return hash;
}

static int hostler_same_limits(const hostler_limits *one, const hostler_limits *other, int32_t pairs) {
    for (int32_t p = 0; p < pairs; p++) {
        if (one[p].low != other[p].low || one[p].high != other[p].high) {
            return 0;
        }
    }
    return 1;
}

static int32_t hostler_find_list(const hostler_class_counts *c, const hostler_limits *limits, uint64_t hash) {
    uint64_t at = hash & (HOSTLER_LIST_SLOTS - 1);
    for (; c->list_at[at]; at = (at + 1) & (HOSTLER_LIST_SLOTS - 1)) {
        if (hostler_same_limits(c->list[c->list_at[at] - 1].limits, limits, c->pair_count)) {
            return c->list_at[at] - 1;
        }
    }
    return -1;
}

/* Whether an end at `at` is known, or can be added. */
static int hostler_has_room(const hostler_end *ends, int32_t count, double at) {
    for (int32_t i = 0; i < count; i++) {
        if (ends[i].at == at) {
            return 1;
        }
    }
    return isinf(at) || count < HOSTLER_ENDS;
}

static int32_t hostler_add_end(hostler_end *ends, int32_t count, int32_t *next, double at, int32_t list) {
    for (int32_t i = 0; i < count; i++) {
        if (ends[i].at == at) {
            next[list] = ends[i].first;
            ends[i].first = list;
            return count;
        }
    }
    next[list] = -1;
    ends[count].at = at;
    ends[count].first = list;
    return count + 1;
}

/* Keep a list, whose rows are still to be counted. Returns its number, or -1 if there is no room or no memory. */
static int32_t hostler_add_list(hostler_class_counts *c, const hostler_limits *limits, uint64_t hash, int32_t class_room) {
    int32_t list = c->list_count;
    if (list == HOSTLER_LISTS || (list && class_room != c->class_room)) {
        return -1;
    }
    for (int32_t p = 0; p < c->pair_count; p++) {
        const hostler_pair *pair = &c->pair[p];
        if (!hostler_has_room(pair->low, pair->low_count, limits[p].low) || !hostler_has_room(pair->high, pair->high_count, limits[p].high)) {
            return -1;
        }
    }
    c->list[list].refused = calloc((size_t)class_room * HOSTLER_RANKS + 1, sizeof(int32_t));
    if (c->list[list].refused == NULL) {
        return -1;
    }
    c->class_room = class_room;
    c->list[list].looked_at = 0;
    c->list_count++;
    for (int32_t p = 0; p < c->pair_count; p++) {
        hostler_pair *pair = &c->pair[p];
        c->list[list].limits[p] = limits[p];
        if (limits[p].low > -INFINITY) {
            pair->low_count = hostler_add_end(pair->low, pair->low_count, pair->next_low, limits[p].low, list);
        }
        if (limits[p].high < INFINITY) {
            pair->high_count = hostler_add_end(pair->high, pair->high_count, pair->next_high, limits[p].high, list);
        }
    }
    uint64_t at = hash & (HOSTLER_LIST_SLOTS - 1);
    while (c->list_at[at]) {
        at = (at + 1) & (HOSTLER_LIST_SLOTS - 1);
    }
    c->list_at[at] = list + 1;
    return list;
}

/* The rank of the first stage of a list that refuses a row of these values; HOSTLER_RANKS if none does. */
static inline int32_t hostler_refusing(const hostler_class_counts *c, int32_t list, const double *values) {
    int32_t rank = HOSTLER_RANKS;
    for (int32_t p = 0; p < c->pair_count; p++) {
        const hostler_pair *pair = &c->pair[p];
        double value = values[pair->slot];
        if (pair->rank < rank && !(c->list[list].limits[p].low <= value && value <= c->list[list].limits[p].high)) {
            rank = pair->rank;
        }
    }
    return rank;
}

/* Add `by` rows of a class and of these values to all lists, which are forgotten if they have no room for the class. */
static void hostler_count_row(hostler_class_counts *c, int32_t host_class, const double *values, int32_t by) {
    if (host_class >= c->class_room) {
        hostler_forget_lists(c);
    }
    for (int32_t list = 0; list < c->list_count; list++) {
        int32_t rank = hostler_refusing(c, list, values);
        if (rank < HOSTLER_RANKS) {
            HOSTLER_ASSERT_INDEX(host_class, c->class_room);
            c->list[list].refused[host_class * HOSTLER_RANKS + rank] += by;
        }
    }
}

static void hostler_look_again(hostler_class_counts *c, int32_t list, int32_t host_class, const double *was, const double *now) {
    if (c->list[list].looked_at == c->change) {
        return;
    }
    c->list[list].looked_at = c->change;
    int32_t before = hostler_refusing(c, list, was), after = hostler_refusing(c, list, now);
    int32_t *refused = c->list[list].refused + host_class * HOSTLER_RANKS;
    HOSTLER_ASSERT_INDEX(host_class, c->class_room);
    if (before < HOSTLER_RANKS) {
        refused[before]--;
    }
    if (after < HOSTLER_RANKS) {
        refused[after]++;
    }
}

/* Take in that the values of a row changed. O(distinct ends of ranges + lists whose ends are crossed). */
static void hostler_recount_row(hostler_class_counts *c, int32_t host_class, const double *was, const double *now) {
    c->change++;
    for (int32_t p = 0; p < c->pair_count; p++) {
        const hostler_pair *pair = &c->pair[p];
        double a = was[pair->slot], b = now[pair->slot], low = a < b ? a : b, high = a < b ? b : a;
        if (low == high) {
            continue;
        }
        for (int32_t i = 0; i < pair->low_count; i++) {
            if (pair->low[i].at > low && pair->low[i].at <= high) {
                for (int32_t list = pair->low[i].first; list >= 0; list = pair->next_low[list]) {
                    hostler_look_again(c, list, host_class, was, now);
                }
            }
        }
        for (int32_t i = 0; i < pair->high_count; i++) {
            if (pair->high[i].at >= low && pair->high[i].at < high) {
                for (int32_t list = pair->high[i].first; list >= 0; list = pair->next_high[list]) {
                    hostler_look_again(c, list, host_class, was, now);
                }
            }
        }
    }
}

#endif
