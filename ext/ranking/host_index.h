/* The host index: the rows of a fleet in leaves of sixteen, by host class and then by k-d splits over the tracked columns, under a
 * tree of fan-out sixteen whose nodes hold the least and the greatest value of each tracked column, the greatest reference score
 * (reference.h), the host classes and the least row below them. host_search.h searches it; any number of request shapes share one index.
 */
#ifndef HOSTLER_HOST_INDEX_H
#define HOSTLER_HOST_INDEX_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "debug.h"
#include "ranking/class_counts.h"
#include "ranking/reference.h"

#define HOSTLER_LEAF 16
#define HOSTLER_INDEX_LEVELS 8 /* 16**8 rows are more than int32 can name */

/* A node's values lie beside those of its fifteen siblings, column by column, so that a parent is judged in one go. */
typedef struct {
    double *high;        /* [parents][width][16] greatest value below a node; -inf where nothing is */
    double *low;         /* [parents][width][16] */
    double *best;        /* [nodes] greatest reference score below; -inf where nothing is */
    uint64_t *known;     /* [parents] children in which a row can pass, and above bit 16 the request that they are of */
    int32_t *class_low;  /* [nodes] least host class below; INT32_MAX where nothing is */
    int32_t *class_high; /* [nodes] greatest; -1 */
    int32_t *first_row;  /* [nodes] least row; INT32_MAX */
    int32_t *rows;       /* [nodes] rows below */
    int64_t nodes;       /* a multiple of 16 */
} hostler_level;

typedef struct {
    int32_t width;                   /* tracked columns */
    int32_t source[HOSTLER_TRACKED]; /* resource class index, or ~ host column */
    int64_t rows;                    /* rows in the index: all below */
    int64_t capacity;                /* of place_of and aside */
    int64_t leaves;                  /* in use; the last one may have room */
    int64_t leaf_room;
    int64_t seen;                    /* change-log version; -1: to be built */
    int64_t changes;                 /* rows refreshed since it was built */
    int64_t builds;
    int64_t population;              /* changes whenever class_rows does */
    uint64_t request;                /* number of the latest request */
    double *values;                  /* [leaf][width][16] copies of the tracked columns */
    double *scores;                  /* [leaf * 16] reference scores; -inf where empty */
    hostler_reference reference;
    int32_t *row_at;                 /* [leaf * 16], -1 where empty */
    int32_t *class_at;               /* [leaf * 16] */
    int32_t *place_of;               /* [capacity] leaf * 16 + position */
    int32_t *class_rows;             /* [class_room] rows of each host class */
    int32_t class_room;
    int32_t levels;
    hostler_level level[HOSTLER_INDEX_LEVELS];
    uint8_t *aside;                  /* [capacity] rows set aside in the decision at hand */
    hostler_class_counts *counts;    /* NULL: none are kept */
    int64_t counted_from;            /* rows from which on they are: on fewer, a search costs less than their upkeep */
    int64_t bytes;
} hostler_index;

/* Columns of the fleet, as the index reads them. */
typedef struct {
    int64_t capacity, rows;
    const int64_t *available; /* [resource classes, capacity] */
    const double *host;       /* [columns, capacity] */
    const int32_t *class_of;
    int32_t classes;          /* resource classes */
} hostler_fleet;

#define HOSTLER_UNKNOWN -INFINITY /* stands for NaN: all that is known is finite */
#define HOSTLER_KNOWN_FLOOR -DBL_MAX
#define HOSTLER_EXACT 9007199254740992.0 /* 2**53: amounts are below, and availability above it is as good as it */

static inline double hostler_tracked(const hostler_index *x, const hostler_fleet *f, int32_t slot, int64_t row) {
    int32_t source = x->source[slot];
    if (source < 0) {
        double value = f->host[(int64_t)~source * f->capacity + row];
        return value == value ? value : HOSTLER_UNKNOWN;
    }
    if (source >= f->classes) {
        return 0.0;
    }
    int64_t value = f->available[(int64_t)source * f->capacity + row];
    return value > (int64_t)HOSTLER_EXACT ? HOSTLER_EXACT : value < -(int64_t)HOSTLER_EXACT ? -HOSTLER_EXACT : (double)value;
}

/* Where the index keeps a column; -1 if it does not. */
static inline int32_t hostler_slot_of(const hostler_index *index, int32_t source) {
    int32_t i;
    for (i = 0; i < index->width; i++) {
        if (index->source[i] == source) {
            return i;
        }
    }
    return -1;
}

__attribute__((unused)) static void hostler_index_free(hostler_index *x) {
    for (int32_t l = 0; l < HOSTLER_INDEX_LEVELS; l++) {
        hostler_level *level = &x->level[l];
        free(level->high);
        free(level->low);
        free(level->best);
        free(level->known);
        free(level->class_low);
        free(level->class_high);
        free(level->first_row);
        free(level->rows);
    }
    memset(x->level, 0, sizeof x->level);
    free(x->values);
    free(x->scores);
    free(x->row_at);
    free(x->class_at);
    free(x->place_of);
    free(x->class_rows);
    free(x->aside);
    hostler_forget_lists(x->counts);
    free(x->counts);
    x->counts = NULL;
    x->values = x->scores = NULL;
    x->reference.count = 0;
    x->row_at = x->class_at = x->place_of = x->class_rows = NULL;
    x->aside = NULL;
    x->capacity = x->leaf_room = x->leaves = x->rows = x->bytes = 0;
    x->class_room = x->levels = 0;
    x->seen = -1;
}

/* Room for so many rows; what was there is forgotten. Returns -1 if memory is short. */
static int hostler_index_reserve(hostler_index *x, int64_t capacity, int64_t leaf_room) {
    int64_t nodes = (leaf_room + 15) / 16 * 16;
    hostler_index_free(x);
    x->capacity = capacity;
    x->leaf_room = nodes;
    x->values = aligned_alloc(64, (size_t)(nodes * x->width * 16 + 16) * sizeof(double) / 64 * 64 + 64);
    x->scores = aligned_alloc(64, (size_t)nodes * 16 * sizeof(double));
    x->row_at = malloc((size_t)nodes * 16 * sizeof(int32_t));
    x->class_at = malloc((size_t)nodes * 16 * sizeof(int32_t));
    x->place_of = malloc((size_t)capacity * sizeof(int32_t));
    x->aside = calloc((size_t)capacity, 1);
    x->bytes = nodes * 16 * (8 * (int64_t)x->width + 16) + capacity * 5;
    int ok = x->values && x->scores && x->row_at && x->class_at && x->place_of && x->aside;
    for (;;) {
        HOSTLER_ASSERT(x->levels < HOSTLER_INDEX_LEVELS);
        hostler_level *level = &x->level[x->levels++];
        size_t cells = (size_t)nodes * (size_t)(x->width ? x->width : 1) * sizeof(double);
        level->nodes = nodes;
        level->high = aligned_alloc(64, (cells + 63) / 64 * 64);
        level->low = aligned_alloc(64, (cells + 63) / 64 * 64);
        level->best = aligned_alloc(64, (size_t)nodes * sizeof(double));
        level->known = calloc((size_t)nodes / 16, sizeof(uint64_t));
        level->class_low = malloc((size_t)nodes * sizeof(int32_t));
        level->class_high = malloc((size_t)nodes * sizeof(int32_t));
        level->first_row = malloc((size_t)nodes * sizeof(int32_t));
        level->rows = malloc((size_t)nodes * sizeof(int32_t));
        ok = ok && level->high && level->low && level->best && level->known && level->class_low && level->class_high && level->first_row && level->rows;
        x->bytes += 2 * (int64_t)cells + 24 * nodes + nodes / 2;
        if (nodes == 16 || !ok) {
            break;
        }
        nodes = (nodes / 16 + 15) / 16 * 16;
    }
    if (!ok) {
        hostler_index_free(x);
        return -1;
    }
    return 0;
}

/* k-d order */

typedef struct {
    int32_t row, host_class;
    float key[8];
} hostler_item;

static void hostler_swap(hostler_item *a, hostler_item *b) {
    hostler_item t = *a;
    *a = *b;
    *b = t;
}

/* Quickselect: afterwards no item before `nth` has a greater key than it, and none after it a smaller one. */
static void hostler_select(hostler_item *items, int64_t n, int64_t nth, int32_t key) {
    int64_t low = 0, high = n - 1;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        float a = items[low].key[key], b = items[middle].key[key], c = items[high].key[key];
        float pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
        int64_t i = low, j = high;
        while (i <= j) {
            while (items[i].key[key] < pivot) {
                i++;
            }
            while (items[j].key[key] > pivot) {
                j--;
            }
            if (i <= j) {
                hostler_swap(&items[i++], &items[j--]);
            }
        }
        if (nth <= j) {
            high = j;
        } else if (nth >= i) {
            low = i;
        } else {
            return;
        }
    }
}

static void hostler_split(hostler_item *items, int64_t n, int32_t keys) {
    while (n > HOSTLER_LEAF) {
        int32_t widest = -1;
        float spread = 0.0f;
        for (int32_t k = 0; k < keys; k++) {
            float least = items[0].key[k], greatest = least;
            for (int64_t i = 1; i < n; i++) {
                float value = items[i].key[k];
                least = value < least ? value : least;
                greatest = value > greatest ? value : greatest;
            }
            if (greatest - least > spread) {
                spread = greatest - least;
                widest = k;
            }
        }
        if (widest < 0) {
            return;
        }
        /* The left part is a power of two of leaves, so that the parts are whole nodes. */
        int64_t left = HOSTLER_LEAF;
        while (2 * left < n) {
            left *= 2;
        }
        hostler_select(items, n, left, widest);
        hostler_split(items, left, keys);
        items += left;
        n -= left;
    }
}

static int hostler_by_class(const void *one, const void *other) {
    const hostler_item *a = one, *b = other;
    if (a->host_class != b->host_class) {
        return (a->host_class > b->host_class) - (a->host_class < b->host_class);
    }
    return (a->row > b->row) - (a->row < b->row);
}

/* Nodes */

static inline void hostler_clear_node(hostler_index *x, int32_t l, int64_t node) {
    hostler_level *level = &x->level[l];
    int64_t at = node / 16 * x->width * 16 + node % 16;
    for (int32_t w = 0; w < x->width; w++) {
        level->high[at + 16 * w] = -INFINITY;
        level->low[at + 16 * w] = INFINITY;
    }
    level->best[node] = -INFINITY;
    level->class_low[node] = INT32_MAX;
    level->class_high[node] = -1;
    level->first_row[node] = INT32_MAX;
    level->rows[node] = 0;
}

/* The greatest and the least of `n` values, 1 to 16; the sixteen of a full block without a branch. */
static inline void hostler_ends(const double *highs, const double *lows, int32_t n, double *high, double *low) {
    if (n < 16) {
        double most = highs[0], least = lows[0];
        for (int32_t i = 1; i < n; i++) {
            most = highs[i] > most ? highs[i] : most;
            least = lows[i] < least ? lows[i] : least;
        }
        *high = most;
        *low = least;
        return;
    }
    double h[8], s[8];
    for (int i = 0; i < 8; i++) {
        h[i] = highs[i] > highs[i + 8] ? highs[i] : highs[i + 8];
        s[i] = lows[i] < lows[i + 8] ? lows[i] : lows[i + 8];
    }
    for (int i = 0; i < 4; i++) {
        h[i] = h[i] > h[i + 4] ? h[i] : h[i + 4];
        s[i] = s[i] < s[i + 4] ? s[i] : s[i + 4];
    }
    for (int i = 0; i < 2; i++) {
        h[i] = h[i] > h[i + 2] ? h[i] : h[i + 2];
        s[i] = s[i] < s[i + 2] ? s[i] : s[i + 2];
    }
    *high = h[0] > h[1] ? h[0] : h[1];
    *low = s[0] < s[1] ? s[0] : s[1];
}

#define HOSTLER_ALL_COLUMNS ((1u << HOSTLER_TRACKED) - 1)
#define HOSTLER_SCORES (1u << HOSTLER_TRACKED) /* beside the bits of tracked columns: the reference scores */

static inline double hostler_greatest_of_sixteen(const double *values) {
    double h[8];
    for (int i = 0; i < 8; i++) {
        h[i] = values[i] > values[i + 8] ? values[i] : values[i + 8];
    }
    for (int i = 0; i < 4; i++) {
        h[i] = h[i] > h[i + 4] ? h[i] : h[i + 4];
    }
    for (int i = 0; i < 2; i++) {
        h[i] = h[i] > h[i + 2] ? h[i] : h[i + 2];
    }
    return h[0] > h[1] ? h[0] : h[1];
}

/* What a leaf that has rows holds in the columns of `which`; returns those in which it differs from what was known. */
static uint32_t hostler_refresh_leaf(hostler_index *x, int64_t leaf, uint32_t which) {
    hostler_level *level = &x->level[0];
    int64_t at = leaf / 16 * x->width * 16 + leaf % 16;
    const double *values = x->values + leaf * x->width * 16;
    uint32_t changed = 0;
    for (uint32_t left = which & HOSTLER_ALL_COLUMNS; left; left &= left - 1) {
        int32_t w = __builtin_ctz(left);
        double high, low;
        HOSTLER_ASSERT_INDEX(w, x->width);
        hostler_ends(values + 16 * w, values + 16 * w, level->rows[leaf], &high, &low);
        changed |= (uint32_t)(level->high[at + 16 * w] != high || level->low[at + 16 * w] != low) << w;
        level->high[at + 16 * w] = high;
        level->low[at + 16 * w] = low;
    }
    if (which & HOSTLER_SCORES) {
        double best = hostler_greatest_of_sixteen(x->scores + leaf * 16);
        changed |= level->best[leaf] != best ? HOSTLER_SCORES : 0;
        level->best[leaf] = best;
    }
    return changed;
}

/* The classes and the least row of a leaf, after rows came or changed their class. */
static void hostler_name_leaf(hostler_index *x, int64_t leaf) {
    hostler_level *level = &x->level[0];
    int32_t low = INT32_MAX, high = -1, first = INT32_MAX, count = 0;
    for (int64_t i = leaf * 16; i < leaf * 16 + 16 && x->row_at[i] >= 0; i++, count++) {
        low = x->class_at[i] < low ? x->class_at[i] : low;
        high = x->class_at[i] > high ? x->class_at[i] : high;
        first = x->row_at[i] < first ? x->row_at[i] : first;
    }
    level->class_low[leaf] = low;
    level->class_high[leaf] = high;
    level->first_row[leaf] = first;
    level->rows[leaf] = count;
}

/* A node's values in the columns of `which` from its children's; returns those in which they differ from what was known. */
static uint32_t hostler_refresh_node(hostler_index *x, int32_t l, int64_t node, uint32_t which) {
    hostler_level *level = &x->level[l];
    const double *highs = x->level[l - 1].high + node * x->width * 16, *lows = x->level[l - 1].low + node * x->width * 16;
    int64_t at = node / 16 * x->width * 16 + node % 16;
    uint32_t changed = 0;
    for (uint32_t left = which & HOSTLER_ALL_COLUMNS; left; left &= left - 1) {
        int32_t w = __builtin_ctz(left);
        double high, low;
        HOSTLER_ASSERT_INDEX(w, x->width);
        hostler_ends(highs + 16 * w, lows + 16 * w, 16, &high, &low);
        changed |= (uint32_t)(level->high[at + 16 * w] != high || level->low[at + 16 * w] != low) << w;
        level->high[at + 16 * w] = high;
        level->low[at + 16 * w] = low;
    }
    if (which & HOSTLER_SCORES) {
        double best = hostler_greatest_of_sixteen(x->level[l - 1].best + node * 16);
        changed |= level->best[node] != best ? HOSTLER_SCORES : 0;
        level->best[node] = best;
    }
    return changed;
}

static void hostler_name_node(hostler_index *x, int32_t l, int64_t node) {
    hostler_level *level = &x->level[l], *below = &x->level[l - 1];
    int32_t low = INT32_MAX, high = -1, first = INT32_MAX, count = 0;
    for (int64_t i = node * 16; i < node * 16 + 16; i++) {
        low = below->class_low[i] < low ? below->class_low[i] : low;
        high = below->class_high[i] > high ? below->class_high[i] : high;
        first = below->first_row[i] < first ? below->first_row[i] : first;
        count += below->rows[i];
    }
    level->class_low[node] = low;
    level->class_high[node] = high;
    level->first_row[node] = first;
    level->rows[node] = count;
}

/* Every column of the index, and the reference scores where there are any. */
static inline uint32_t hostler_everything(const hostler_index *x) {
    return ((1u << x->width) - 1) | (x->reference.count ? HOSTLER_SCORES : 0);
}

/* Bring the leaf and the nodes above it up to date in the columns of `which`; `names`: and in their classes and rows. */
static void hostler_refresh_path(hostler_index *x, int64_t leaf, uint32_t which, int names) {
    int64_t node = leaf;
    if (names) {
        hostler_name_leaf(x, leaf);
    }
    uint32_t changed = hostler_refresh_leaf(x, leaf, which);
    for (int32_t l = 1; l < x->levels && (changed || names); l++) {
        node /= 16;
        if (names) {
            hostler_name_node(x, l, node);
        }
        changed = changed ? hostler_refresh_node(x, l, node, changed) : 0;
    }
}

/* Make what requests usually weigh the reference, and compute the scores of all rows by it. O(rows). */
__attribute__((unused)) static void hostler_set_reference(hostler_index *x) {
    hostler_adopt(&x->reference, x->width);
    if (x->reference.count == 0) {
        return;
    }
    for (int64_t place = 0; place < x->rows; place++) {
        x->scores[place] = hostler_refer(&x->reference, x->values + place / 16 * x->width * 16 + place % 16);
    }
    for (int64_t place = x->rows; place < x->leaf_room * 16; place++) {
        x->scores[place] = -INFINITY;
    }
    for (int64_t leaf = 0; leaf < x->level[0].nodes; leaf++) {
        x->level[0].best[leaf] = hostler_greatest_of_sixteen(x->scores + leaf * 16);
    }
    for (int32_t l = 1; l < x->levels; l++) {
        for (int64_t node = 0; node < x->level[l - 1].nodes / 16; node++) {
            x->level[l].best[node] = hostler_greatest_of_sixteen(x->level[l - 1].best + node * 16);
        }
    }
}

static int hostler_count_class(hostler_index *x, int32_t host_class, int32_t by) {
    if (host_class >= x->class_room) {
        int32_t room = 2 * host_class + 64;
        int32_t *grown = realloc(x->class_rows, (size_t)room * sizeof(int32_t));
        if (grown == NULL) {
            return -1;
        }
        memset(grown + x->class_room, 0, (size_t)(room - x->class_room) * sizeof(int32_t));
        x->class_rows = grown;
        x->class_room = room;
    }
    x->class_rows[host_class] += by;
    x->population++;
    return 0;
}

/* Build the index of all rows again. O(rows log rows). Returns -1 if memory is short: the index is then empty, and must be built again. */
static int hostler_index_build(hostler_index *x, const hostler_fleet *f) {
    int64_t n = f->rows, leaves = (n + HOSTLER_LEAF - 1) / HOSTLER_LEAF, room = leaves + leaves / 8 + 16;
    int32_t keys = 0, slot_of_key[8];
    float base[8], scale[8];
    hostler_item *items = malloc((size_t)(n + 1) * sizeof(hostler_item));
    if (items == NULL || ((x->capacity != f->capacity || x->leaf_room < leaves + 1) && hostler_index_reserve(x, f->capacity, room) < 0)) {
        free(items);
        hostler_index_free(x);
        return -1;
    }
    for (int32_t w = 0; w < x->width; w++) {
        double least = INFINITY, greatest = -INFINITY;
        for (int64_t row = 0; row < n; row++) {
            double value = hostler_tracked(x, f, w, row);
            least = value < least ? value : least;
            greatest = value > greatest ? value : greatest;
        }
        if (greatest > least && keys < 8) {
            base[keys] = (float)least;
            scale[keys] = (float)(1.0 / (greatest - least));
            slot_of_key[keys++] = w;
        }
        x->reference.least[w] = least;
        x->reference.greatest[w] = greatest;
    }
    for (int64_t row = 0; row < n; row++) {
        items[row].row = (int32_t)row;
        items[row].host_class = f->class_of[row];
        for (int32_t k = 0; k < keys; k++) {
            items[row].key[k] = ((float)hostler_tracked(x, f, slot_of_key[k], row) - base[k]) * scale[k];
        }
    }
    qsort(items, (size_t)n, sizeof(hostler_item), hostler_by_class);
    int ok = 0;
    if (x->class_rows != NULL) {
        memset(x->class_rows, 0, (size_t)x->class_room * sizeof(int32_t));
    }
    for (int64_t first = 0, last; first < n; first = last) {
        last = first + 1;
        while (last < n && items[last].host_class == items[first].host_class) {
            last++;
        }
        ok |= hostler_count_class(x, items[first].host_class, (int32_t)(last - first));
        hostler_split(items + first, last - first, keys);
    }
    x->population++;
    x->rows = n;
    x->leaves = leaves;
    memset(x->row_at, 0xff, (size_t)x->leaf_room * 16 * sizeof(int32_t));
    for (int32_t l = 0; l < x->levels; l++) {
        for (int64_t node = 0; node < x->level[l].nodes; node++) {
            hostler_clear_node(x, l, node);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t row = items[i].row;
        x->row_at[i] = row;
        x->class_at[i] = items[i].host_class;
        x->place_of[row] = (int32_t)i;
        for (int32_t w = 0; w < x->width; w++) {
            x->values[(i / 16 * x->width + w) * 16 + i % 16] = hostler_tracked(x, f, w, row);
        }
    }
    free(items);
    for (int64_t leaf = 0; leaf < leaves; leaf++) {
        hostler_name_leaf(x, leaf);
        hostler_refresh_leaf(x, leaf, (1u << x->width) - 1);
    }
    for (int32_t l = 1; l < x->levels; l++) {
        for (int64_t node = 0; node < x->level[l - 1].nodes / 16; node++) {
            hostler_name_node(x, l, node);
            hostler_refresh_node(x, l, node, (1u << x->width) - 1);
        }
    }
    if (x->reference.asked) {
        hostler_set_reference(x);
    }
    x->changes = 0;
    x->builds++;
    if (ok != 0) {
        hostler_index_free(x);
        return -1;
    }
    return 0;
}

/* Take in what changed in a row that is in the index. */
static inline int hostler_index_update(hostler_index *x, const hostler_fleet *f, int32_t row) {
    int64_t place = x->place_of[row], leaf = place / 16;
    int names = x->class_at[place] != f->class_of[row];
    uint32_t changed = 0;
    double *v = x->values + leaf * x->width * 16 + place % 16;
    double was[HOSTLER_TRACKED], now[HOSTLER_TRACKED];
    for (int32_t w = 0; w < x->width; w++) {
        was[w] = v[16 * w];
        now[w] = hostler_tracked(x, f, w, row);
    }
    if (names) {
        if (x->counts != NULL) {
            hostler_count_row(x->counts, x->class_at[place], was, -1);
        }
        if (hostler_count_class(x, x->class_at[place], -1) < 0 || hostler_count_class(x, f->class_of[row], 1) < 0) {
            return -1;
        }
        x->class_at[place] = f->class_of[row];
        if (x->counts != NULL) {
            hostler_count_row(x->counts, f->class_of[row], now, 1);
        }
    }
    for (int32_t w = 0; w < x->width; w++) {
        if (was[w] != now[w]) {
            changed |= 1u << w;
            v[16 * w] = now[w];
            hostler_reach_to(&x->reference, w, now[w]);
        }
    }
    if (changed && x->reference.count) {
        double score = hostler_refer(&x->reference, v);
        changed |= x->scores[place] != score ? HOSTLER_SCORES : 0;
        x->scores[place] = score;
    }
    if (changed || names) {
        x->changes++;
        if (x->counts != NULL && !names) {
            hostler_recount_row(x->counts, f->class_of[row], was, now);
        }
        hostler_refresh_path(x, leaf, changed, names);
    }
    return 0;
}

/* Take in a row that is new: it goes to the last leaf. Returns 1 if there is no room, -1 if memory is short. */
static inline int hostler_index_append(hostler_index *x, const hostler_fleet *f, int32_t row) {
    int64_t place = x->rows, leaf = place / 16;
    if (leaf >= x->leaf_room) {
        return 1;
    }
    if (hostler_count_class(x, f->class_of[row], 1) < 0) {
        return -1;
    }
    x->row_at[place] = row;
    x->class_at[place] = f->class_of[row];
    x->place_of[row] = (int32_t)place;
    double now[HOSTLER_TRACKED];
    for (int32_t w = 0; w < x->width; w++) {
        x->values[(leaf * x->width + w) * 16 + place % 16] = now[w] = hostler_tracked(x, f, w, row);
        hostler_reach_to(&x->reference, w, now[w]);
    }
    if (x->reference.count) {
        x->scores[place] = hostler_refer(&x->reference, x->values + leaf * x->width * 16 + place % 16);
    }
    if (x->counts != NULL) {
        hostler_count_row(x->counts, f->class_of[row], now, 1);
    }
    x->rows++;
    x->leaves = leaf + 1;
    x->changes++;
    hostler_refresh_path(x, leaf, hostler_everything(x), 1);
    return 0;
}

/* A row whose reference score, or a node above it, is not up to date, for tests; -1 if there is none. O(rows levels). */
__attribute__((unused)) static int64_t hostler_wrong_score(const hostler_index *x) {
    for (int64_t row = 0; row < x->rows && x->reference.count; row++) {
        int64_t node = x->place_of[row];
        const double *below = x->scores;
        if (below[node] != hostler_refer(&x->reference, x->values + node / 16 * x->width * 16 + node % 16)) {
            return row;
        }
        for (int32_t l = 0; l < x->levels; l++) {
            node /= 16;
            if (x->level[l].best[node] != hostler_greatest_of_sixteen(below + node * 16)) {
                return row;
            }
            below = x->level[l].best;
        }
    }
    return -1;
}

/* A list whose counts are not those of the rows, for tests; -1 if there is none. O(lists rows). */
__attribute__((unused)) static int32_t hostler_wrong_list(const hostler_index *x) {
    const hostler_class_counts *c = x->counts;
    for (int32_t list = 0; c != NULL && list < c->list_count; list++) {
        int32_t *left = malloc((size_t)c->class_room * HOSTLER_RANKS * sizeof(int32_t) + 1);
        int wrong = left == NULL;
        for (int32_t i = 0; i < c->class_room * HOSTLER_RANKS && !wrong; i++) {
            left[i] = c->list[list].refused[i];
        }
        for (int64_t row = 0; row < x->rows && !wrong; row++) {
            int64_t place = x->place_of[row];
            double values[HOSTLER_TRACKED];
            for (int32_t w = 0; w < x->width; w++) {
                values[w] = x->values[(place / 16 * x->width + w) * 16 + place % 16];
            }
            int32_t rank = hostler_refusing(c, list, values);
            if (rank < HOSTLER_RANKS) {
                left[x->class_at[place] * HOSTLER_RANKS + rank]--;
            }
        }
        for (int32_t i = 0; i < c->class_room * HOSTLER_RANKS && !wrong; i++) {
            wrong = left[i] != 0;
        }
        free(left);
        if (wrong) {
            return list;
        }
    }
    return -1;
}

/* Bring the index up to date with the change log. Returns -1 if memory is short. O(changes log rows), or a build. */
__attribute__((unused)) static int hostler_index_sync(hostler_index *x, const hostler_fleet *f, const int32_t *log, int64_t log_base, int64_t log_length) {
    int64_t version = log_base + log_length;
    if (x->seen == version && x->rows == f->rows && x->capacity == f->capacity) {
        return 0;
    }
    if (x->seen < log_base || x->capacity != f->capacity || f->rows < x->rows || version - x->seen > f->rows / 2 + 1024
        || f->rows - x->rows > f->rows / 16 + 64) {
        x->seen = -1;
        hostler_forget_lists(x->counts);
        if (hostler_index_build(x, f) < 0) {
            return -1;
        }
        x->seen = version;
        return 0;
    }
    for (int64_t at = x->seen - log_base; at < log_length; at++) {
        int32_t row = log[at];
        if (row < x->rows && hostler_index_update(x, f, row) < 0) {
            x->seen = -1;
            return -1;
        }
    }
    while (x->rows < f->rows) {
        int status = hostler_index_append(x, f, (int32_t)x->rows);
        if (status == 0) {
            continue;
        }
        x->seen = -1;
        hostler_forget_lists(x->counts);
        if (status < 0 || hostler_index_build(x, f) < 0) {
            return -1;
        }
    }
    if (x->changes > f->rows + 4096) {
        /* The rows have left the order that the splits were made for. The counts of lists do not depend on it. */
        x->seen = -1;
        if (hostler_index_build(x, f) < 0) {
            return -1;
        }
    }
    x->seen = version;
    return 0;
}

#endif
