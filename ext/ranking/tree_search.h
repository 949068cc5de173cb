/* The search of the trees of a ranking for the best rows, and the random choice among them. */
#ifndef HOSTLER_RANKING_TREE_SEARCH_H
#define HOSTLER_RANKING_TREE_SEARCH_H

#include "draws.h"
#include "ranking/trees.h"

/* Keep the `wanted` best rows in order: greater score first, then smaller row. */
static inline void ranking_offer(ranking_t *r, int64_t row, double score) {
    int32_t i = r->found;
    HOSTLER_ASSERT_INDEX(row, r->fleet->rows);
    HOSTLER_ASSERT_INDEX(i, r->wanted + 1);
    if (i == r->wanted) {
        if (score < r->top_score[i - 1] || (score == r->top_score[i - 1] && row > r->top_row[i - 1])) {
            return;
        }
        i -= 1;
    } else {
        r->found += 1;
    }
    while (i > 0 && (score > r->top_score[i - 1] || (score == r->top_score[i - 1] && row < r->top_row[i - 1]))) {
        r->top_score[i] = r->top_score[i - 1];
        r->top_row[i] = r->top_row[i - 1];
        i -= 1;
    }
    r->top_score[i] = score;
    r->top_row[i] = (int32_t)row;
}

/* No row from `first_row` on whose score is at most `bound` can enter the list. */
static inline int ranking_hopeless(ranking_t *r, double bound, int64_t first_row) {
    double least;
    if (r->found < r->wanted) {
        return bound == -INFINITY;
    }
    least = r->top_score[r->wanted - 1];
    return bound < least || (bound == least && first_row > r->top_row[r->wanted - 1]);
}

/* The score of a row that passes under the decision's normalisers. */
static inline double ranking_score_now(ranking_t *r, int64_t row) {
    return r->drifted || r->score[row] == HOSTLER_SUNK ? ranking_true_score(r, row, 0.0) : r->score[row];
}

static inline void ranking_search_block(ranking_t *r, int64_t block) {
    int64_t row = block * FANOUT, n = HOSTLER_LEAST(row + FANOUT, r->fleet->rows), i;
    double least = r->found == r->wanted ? r->top_score[r->wanted - 1] : -INFINITY;
    for (i = row; i < n; i++) {
        if (r->score[i] + r->slack < least || ranking_hopeless(r, r->score[i] + r->slack, i) || r->aside[i] ||
            r->score[i] == -INFINITY) {
            continue;
        }
        r->work += 1;
        ranking_offer(r, i, ranking_score_now(r, i));
    }
}

/* Offer the rows below a node that can still enter the list; the child with the best stored score first. */
static void ranking_search(ranking_t *r, int32_t level, int64_t node) {
    double *best;
    int64_t first = node * FANOUT, i, n, leader;
    int64_t span = (int64_t)1 << (4 * level);
    if (level == 0) {
        ranking_search_block(r, node);
        return;
    }
    best = r->best + ranking_slot(r, r->side_count, r->level_start[level - 1]);
    n = HOSTLER_LEAST(first + FANOUT, r->level_size[level - 1]);
    leader = first + r->leader[ranking_slot(r, r->side_count, r->level_start[level] + node)];
    if (!ranking_hopeless(r, best[leader] + r->slack, leader * span)) {
        ranking_search(r, level - 1, leader);
    }
    for (i = first; i < n; i++) {
        if (i != leader && !ranking_hopeless(r, best[i] + r->slack, i * span)) {
            ranking_search(r, level - 1, i);
        }
    }
}

static inline void ranking_add_tie(ranking_t *r, int64_t row) {
    HOSTLER_ASSERT_INDEX(r->tie_count, r->fleet->rows);
    r->ties[r->tie_count] = (int32_t)row;
    r->tie_count += 1;
}

/* Add the rows below a node that are not set aside and have the score `best`, the greatest there is, to the ties. */
static void ranking_search_ties(ranking_t *r, int32_t level, int64_t node, double best) {
    int64_t first = node * FANOUT, i;
    if (r->best[ranking_slot(r, r->side_count, r->level_start[level] + node)] + r->slack < best) {
        return;
    }
    if (level > 0) {
        for (i = first; i < HOSTLER_LEAST(first + FANOUT, r->level_size[level - 1]); i++) {
            ranking_search_ties(r, level - 1, i, best);
        }
        return;
    }
    for (i = first; i < HOSTLER_LEAST(first + FANOUT, r->fleet->rows); i++) {
        if (r->score[i] + r->slack < best || r->aside[i] || r->score[i] == -INFINITY) {
            continue;
        }
        r->work += 1;
        if (ranking_score_now(r, i) == best) {
            ranking_add_tie(r, i);
        }
    }
}

static inline int ranking_by_number(const void *one, const void *other) {
    int32_t left = ((int32_t *)one)[0], right = ((int32_t *)other)[0];
    return (left > right) - (left < right);
}

static inline int64_t ranking_drawn_below(ranking_t *r, int64_t count) {
    r->drawn += 1;
    return hostler_below(hostler_word(r->seed, r->drawn), count);
}

/* Draw which of `count` rows stand on the `first` positions. */
static inline void ranking_shuffle(ranking_t *r, int32_t *rows, int64_t count, int64_t first) {
    int64_t i, other;
    int32_t row;
    for (i = 0; i < HOSTLER_LEAST(first, count - 1); i++) {
        other = i + ranking_drawn_below(r, count - i);
        HOSTLER_ASSERT_INDEX(other, count);
        row = rows[i];
        rows[i] = rows[other];
        rows[other] = row;
    }
}

#endif
