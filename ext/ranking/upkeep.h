/* When a ranking keeps rows of its own beside the host index, and the memory that they take. */
#ifndef HOSTLER_RANKING_UPKEEP_H
#define HOSTLER_RANKING_UPKEEP_H

#include "ranking/state.h"

/* Lay out the trees over all rows that there is room for. */
static inline void ranking_lay_levels(ranking_t *r) {
    int64_t size = r->capacity;
    for (;;) {
        size = (size + FANOUT - 1) / FANOUT;
        r->level_start[r->levels] = r->nodes;
        r->level_size[r->levels] = size;
        r->nodes += size;
        r->levels += 1;
        if (size == 1) {
            return;
        }
    }
}

/* Bytes of rows of the ranking's own. */
static inline int64_t ranking_held_bytes(ranking_t *r) {
    int64_t by_row = 10 + 4 * r->shuffle;
    int32_t i;
    for (i = 0; i < r->term_count; i++) {
        by_row += 8 * (r->terms[i].source == SOURCE_PACKING);
    }
    return r->capacity * by_row + (r->side_count + 1) * r->nodes * 9;
}

/* Give up rows of the ranking's own. */
static inline void ranking_let_go(ranking_t *r) {
    if (r->shared != NULL && r->held) {
        r->shared->held_bytes -= ranking_held_bytes(r);
    }
    if (r->shared == NULL || r->counts != r->shared->counts) {
        free(r->counts);
    }
    r->counts = r->shared == NULL ? NULL : r->shared->counts;
    free(r->stage);
    free(r->score);
    free(r->aside);
    free(r->ties);
    free(r->best);
    free(r->leader);
    r->stage = r->aside = r->leader = NULL;
    r->score = r->best = NULL;
    r->ties = NULL;
    r->held = 0;
}

/* Let the ranking have rows of its own, to be filled. False if there is no memory for them. */
static inline int ranking_hold(ranking_t *r) {
    r->stage = (uint8_t *)malloc(r->capacity);
    r->score = (double *)malloc(r->capacity * sizeof(double));
    r->aside = (uint8_t *)calloc(r->capacity, 1);
    r->ties = (int32_t *)malloc(r->shuffle ? r->capacity * sizeof(int32_t) : 1);
    r->best = (double *)malloc((r->side_count + 1) * r->nodes * sizeof(double));
    r->leader = (uint8_t *)malloc((r->side_count + 1) * r->nodes);
    r->counts = (int64_t *)calloc(STAGES, sizeof(int64_t));
    if ((r->stage == NULL || r->score == NULL || r->aside == NULL || r->ties == NULL || r->best == NULL ||
         r->leader == NULL || r->counts == NULL)) {
        ranking_let_go(r);
        return 0;
    }
    memset(r->stage, NOT_A_HOST, r->capacity);
    r->seen = -1;
    r->held = 1;
    if (r->shared != NULL) {
        r->shared->held_bytes += ranking_held_bytes(r);
    }
    return 1;
}

/* Count a decision, and compare what either way of deciding costs: to catch up with all changes since the latest
 * decision, some two visits of a node each, or to search. 1: rows of its own are worth their upkeep, -1: those that are
 * held are not, 0: neither. */
static inline int ranking_weigh_ways(way_t *way, ranking_t *r, int held) {
    int64_t version = r->fleet->log_base + r->fleet->log_length, gap = version - way->asked;
    way->asked = version;
    way->asks += 1;
    if (way->asks <= 2) {
        way->gap = 16 * gap;
        return 0;
    }
    way->gap += (16 * gap - way->gap) / 8;
    if (held) {
        if (way->gap > 4 * 8 * way->visited + 64) {
            way->spent = 0;
            return -1;
        }
        return 0;
    }
    if (way->gap > 8 * way->visited) {
        way->spent = 0;
        return 0;
    }
    way->spent += way->visited;
    if (way->spent > r->fleet->rows / 4 + 64 && r->shared->held_bytes + ranking_held_bytes(r) <= r->shared->held_room) {
        way->spent = 0;
        return 1;
    }
    return 0;
}

/* Keep rows of its own or not. */
static inline void ranking_choose_way(ranking_t *r) {
    int chosen = ranking_weigh_ways(&r->way, r, r->held);
    if (chosen < 0) {
        ranking_let_go(r);
    } else if (chosen > 0) {
        ranking_hold(r);
    }
}

#endif
