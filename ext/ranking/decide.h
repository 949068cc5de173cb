/* One decision by the trees of a ranking: the list of best rows for one guest of a server group or of none. */
#ifndef HOSTLER_RANKING_DECIDE_H
#define HOSTLER_RANKING_DECIDE_H

#include "draws.h"
#include "ranking/sync.h"
#include "ranking/tree_search.h"

enum {
    RENEWAL_WORK =
        10, /* stored scores that a vectorised pass renews in the time that a search takes for the score of one row */
};

/* Draw which of the best is to be taken, and look for as many as that needs. */
static inline void ranking_aim(ranking_t *r, int64_t passing, int32_t wanted, uint64_t seed) {
    int64_t size = HOSTLER_LEAST(r->subset, passing);
    r->seed = seed;
    r->drawn = 0;
    r->pick = size > 1 ? ranking_drawn_below(r, size) : 0;
    r->wanted = HOSTLER_GREATEST(wanted, (int32_t)r->pick + 1);
}

/* Whether every passing row has the score 0.0, under the decision's normalisers. */
static inline int ranking_all_equal(ranking_t *r) {
    int32_t i;
    for (i = 0; i < r->term_count; i++) {
        if (r->terms[i].range != 0.0) {
            return 0;
        }
    }
    return 1;
}

/* Fill the list with rows drawn from all `passing` ones: those that pass and, if `skip_aside`, are not set aside. */
static inline void ranking_draw_any(ranking_t *r, int64_t passing, int skip_aside) {
    int64_t row;
    int32_t i;
    r->found = (int32_t)HOSTLER_LEAST((int64_t)r->wanted, passing);
    if (r->found == 1) {
        r->top_row[0] = (int32_t)hostler_nth_passing(r->stage, r->aside, skip_aside, r->fleet->rows,
                                                     ranking_drawn_below(r, passing));
        r->top_score[0] = 0.0;
        return;
    }
    r->tie_count = 0;
    for (row = 0; row < r->fleet->rows; row++) {
        if (r->stage[row] == 0 && !(skip_aside && r->aside[row])) {
            ranking_add_tie(r, row);
        }
    }
    HOSTLER_ASSERT(r->tie_count == passing);
    ranking_shuffle(r, r->ties, passing, r->found);
    for (i = 0; i < r->found; i++) {
        r->top_row[i] = r->ties[i];
        r->top_score[i] = 0.0;
    }
}

/* All rows of the best score, by number. */
static inline void ranking_find_ties(ranking_t *r, group_t *g) {
    double best = r->top_score[0], members;
    int32_t i;
    r->tie_count = 0;
    if (g == NULL || g->policy != AFFINITY) {
        ranking_search_ties(r, r->levels - 1, 0, best);
    }
    if (g == NULL) {
        return;
    }
    for (i = 0; i < g->count; i++) {
        if (g->policy == AFFINITY) {
            if (r->stage[g->rows[i]] == 0 && ranking_true_score(r, g->rows[i], 0.0) == best) {
                ranking_add_tie(r, g->rows[i]);
            }
        } else if (r->aside[g->rows[i]]) {
            members = g->policy == SOFT_AFFINITY ? g->members[i] : -g->members[i];
            if (ranking_true_score(r, g->rows[i], members) == best) {
                ranking_add_tie(r, g->rows[i]);
            }
        }
    }
    qsort(r->ties, r->tie_count, sizeof(int32_t), ranking_by_number);
}

/* Draw the order of the rows that share the best score. `g`: the group whose rows are offered by themselves, or NULL.
 */
static inline void ranking_shuffle_best(ranking_t *r, group_t *g, int64_t passing) {
    int32_t equal = 0;
    if (!r->shuffle) {
        return;
    }
    while (equal < r->found && r->top_score[equal] == r->top_score[0]) {
        equal += 1;
    }
    if (equal < r->found || r->found == passing) {
        ranking_shuffle(r, r->top_row, equal, equal);
        return;
    }
    ranking_find_ties(r, g);
    HOSTLER_ASSERT(r->tie_count >= r->found);
    ranking_shuffle(r, r->ties, r->tie_count, r->found);
    memcpy(r->top_row, r->ties, r->found * sizeof(int32_t));
}

/* Move the row that was drawn to the front, and leave off what was only looked for to find it. */
static inline void ranking_take_pick(ranking_t *r, int32_t wanted) {
    int32_t row, i = (int32_t)r->pick;
    double score;
    if (r->found == 0) {
        return;
    }
    HOSTLER_ASSERT_INDEX(i, r->found);
    row = r->top_row[i];
    score = r->top_score[i];
    while (i > 0) {
        r->top_row[i] = r->top_row[i - 1];
        r->top_score[i] = r->top_score[i - 1];
        i -= 1;
    }
    r->top_row[0] = row;
    r->top_score[0] = score;
    r->found = HOSTLER_LEAST(r->found, wanted);
}

/* Whether the signature's filters or weighers look at groups of this policy. */
static inline int ranking_looks_at(ranking_t *r, int32_t policy) {
    if (policy == AFFINITY) {
        return r->affinity_stage != 0;
    }
    if (policy == ANTI_AFFINITY) {
        return r->anti_affinity_stage != 0;
    }
    return policy != NO_POLICY;
}

/* Normalisers of the group terms: raw is factor * members, 0 on every passing row outside the group. */
static inline void ranking_set_group_range(ranking_t *r, group_t *g, int32_t members_passing) {
    term_t *t;
    int32_t i, j;
    double raw, low, high;
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        if (t->source != SOURCE_GROUP) {
            continue;
        }
        t->low = t->range = 0.0;
        if (g == NULL || (g->policy == SOFT_AFFINITY) != (t->group_factor > 0)) {
            continue;
        }
        low = INFINITY;
        high = -INFINITY;
        if (r->counts[0] > members_passing) {
            low = high = ranking_clamped(t, 0.0);
        }
        for (j = 0; j < g->count; j++) {
            if (r->aside[g->rows[j]]) {
                raw = ranking_clamped(t, t->group_factor * g->members[j]);
                low = HOSTLER_LEAST(low, raw);
                high = HOSTLER_GREATEST(high, raw);
            }
        }
        ranking_set_range(t, low, high);
    }
}

/* Search the best of the passing rows that are not set aside, and offer the group's own rows beside them. */
static inline void ranking_pick(ranking_t *r, group_t *g, int32_t members_passing) {
    term_t *t;
    int32_t i;
    double size = 0.0, outside;
    if (g != NULL) {
        for (i = 0; i < r->term_count; i++) {
            if (r->terms[i].source == SOURCE_GROUP && r->terms[i].range != 0.0) {
                r->drifted = 1;
            }
        }
    }
    if (r->drifted) {
        for (i = 0; i < r->term_count; i++) {
            t = &r->terms[i];
            if (t->source != SOURCE_GROUP) {
                r->slack += ranking_greatest_change(t, t->low, t->low + t->range, &size);
            } else if (t->range != 0.0) {
                /* The rows to be searched have no members. */
                outside = ranking_clamped(t, 0.0);
                r->slack += ranking_greatest_change(t, outside, outside, &size);
            }
        }
        /* Rounding of both sums and of the slack: a few ulps of the greatest contributions, taken a thousandfold. */
        r->slack += size * 1e-12;
    }
    if (!r->drifted && r->wanted == 1 && members_passing == 0 && !r->aside[ranking_leading_row(r, r->side_count)]) {
        ranking_offer(r, ranking_leading_row(r, r->side_count), ranking_root(r, r->side_count));
        return;
    }
    if (g != NULL) {
        for (i = 0; i < g->count; i++) {
            if (r->aside[g->rows[i]]) {
                ranking_offer(
                    r, g->rows[i],
                    ranking_true_score(r, g->rows[i], g->policy == SOFT_AFFINITY ? g->members[i] : -g->members[i]));
            }
        }
    }
    ranking_search(r, r->levels - 1, 0);
}

/* Make every term idle: fewer than two rows pass. */
static inline void ranking_add_nothing(ranking_t *r) {
    int32_t i;
    for (i = 0; i < r->term_count; i++) {
        r->terms[i].low = r->terms[i].range = 0.0;
    }
}

/* One passing row: no weigher runs and its weight is 0.0 (Nova 33). */
static inline void ranking_pick_only(ranking_t *r, group_t *g) {
    int32_t i;
    ranking_add_nothing(r);
    if (g != NULL) {
        for (i = 0; i < g->count; i++) {
            if (r->aside[g->rows[i]]) {
                ranking_offer(r, g->rows[i], 0.0);
                return;
            }
        }
    }
    r->drifted = 0;
    ranking_search(r, r->levels - 1, 0);
    if (r->found) {
        r->top_score[0] = 0.0;
    }
}

/* Normalise over those of `rows` alone that pass; their number. No group term counts their members. */
static inline int64_t ranking_measure_among(ranking_t *r, int32_t *rows, int32_t count) {
    term_t *t;
    int32_t i, j, passing = 0;
    double raw, low, high;
    for (i = 0; i < count; i++) {
        if (r->stage[rows[i]] == 0) {
            passing += 1;
        }
    }
    ranking_add_nothing(r);
    for (j = 0; j < (passing > 1 ? r->term_count : 0); j++) {
        t = &r->terms[j];
        if (t->source == SOURCE_GROUP) {
            continue;
        }
        low = INFINITY;
        high = -INFINITY;
        for (i = 0; i < count; i++) {
            if (r->stage[rows[i]] != 0) {
                continue;
            }
            raw = ranking_raw_of(r, t, rows[i]);
            low = HOSTLER_LEAST(low, raw);
            high = HOSTLER_GREATEST(high, raw);
        }
        ranking_set_range(t, low, high);
    }
    return passing;
}

/* Rank only `rows`, those that pass. */
static inline void ranking_offer_among(ranking_t *r, int32_t *rows, int32_t count) {
    int32_t i;
    for (i = 0; i < count; i++) {
        if (r->stage[rows[i]] == 0) {
            ranking_offer(r, rows[i], ranking_true_score(r, rows[i], 0.0));
        }
    }
}

/* Fill the list of best rows for one guest, of server group `group` (-1: none), drawing from `seed`; its length is
 * r.found. `sync` was called, and the list has room. */
static inline void ranking_decide(ranking_t *r, group_t *groups, int32_t group, int32_t wanted, uint64_t seed) {
    group_t *g = NULL;
    int32_t i, row, kept = 0;
    int64_t passing;
    int some_aside = 0, soft = 0;
    r->found = 0;
    r->slack = 0.0;
    if (r->work > r->fleet->rows / RENEWAL_WORK + 64) {
        ranking_store_scores(r);
    }
    if (group >= 0) {
        g = &groups[group];
        if (g->count == 0 || !ranking_looks_at(r, g->policy)) {
            g = NULL;
        }
    }
    if (g != NULL && g->policy == AFFINITY) {
        passing = ranking_measure_among(r, g->rows, g->count);
        ranking_aim(r, passing, wanted, seed);
        ranking_offer_among(r, g->rows, g->count);
        ranking_shuffle_best(r, g, passing);
        ranking_take_pick(r, wanted);
        return;
    }
    passing = r->counts[0];
    if (g != NULL) {
        soft = g->policy != ANTI_AFFINITY;
        for (i = 0; i < g->count; i++) {
            row = g->rows[i];
            if (r->stage[row] == 0 && (soft || g->members[i] >= g->at_most)) {
                r->aside[row] = 1;
                kept += 1;
            }
        }
        some_aside = kept > 0;
        if (!soft) {
            passing -= kept;
        }
    }
    ranking_aim(r, passing, wanted, seed);
    if (passing > 1) {
        ranking_normalise(r, some_aside && !soft);
        ranking_set_group_range(r, soft ? g : NULL, kept);
        if (r->shuffle && ranking_all_equal(r)) {
            ranking_draw_any(r, passing, !soft);
        } else {
            ranking_pick(r, soft ? g : NULL, kept);
            ranking_shuffle_best(r, soft ? g : NULL, passing);
        }
    } else if (passing == 1) {
        ranking_pick_only(r, soft ? g : NULL);
    } else {
        ranking_add_nothing(r);
    }
    ranking_take_pick(r, wanted);
    if (some_aside) {
        for (i = 0; i < g->count; i++) {
            r->aside[g->rows[i]] = 0;
        }
    }
}

/* Rows by first refusing stage for a guest of server group `group`, int64[STAGES]. */
static inline void ranking_tally(ranking_t *r, group_t *groups, int32_t group, int64_t *out) {
    group_t *g;
    int32_t i, k;
    uint8_t stage;
    memcpy(out, r->counts, STAGES * sizeof(int64_t));
    if (group < 0) {
        return;
    }
    g = &groups[group];
    if (g->count == 0 || !ranking_looks_at(r, g->policy)) {
        return;
    }
    if (g->policy == ANTI_AFFINITY) {
        for (i = 0; i < g->count; i++) {
            stage = r->stage[g->rows[i]];
            if (g->members[i] >= g->at_most && (stage == 0 || stage > r->anti_affinity_stage) && stage != NOT_A_HOST) {
                out[stage] -= 1;
                out[r->anti_affinity_stage] += 1;
            }
        }
    } else if (g->policy == AFFINITY) {
        /* Only the group's rows get past this stage. */
        for (k = r->affinity_stage + 1; k < NOT_A_HOST; k++) {
            out[r->affinity_stage] += out[k];
            out[k] = 0;
        }
        out[r->affinity_stage] += out[0];
        out[0] = 0;
        for (i = 0; i < g->count; i++) {
            stage = r->stage[g->rows[i]];
            if ((stage == 0 || stage > r->affinity_stage) && stage != NOT_A_HOST) {
                out[r->affinity_stage] -= 1;
                out[stage] += 1;
            }
        }
    }
}

#endif
