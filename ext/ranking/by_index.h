/* One decision by the host index, of a ranking that keeps no rows of its own. */
#ifndef HOSTLER_RANKING_BY_INDEX_H
#define HOSTLER_RANKING_BY_INDEX_H

#include "ranking/decide.h"

/* Bring the index up to date. Returns -1, and notes it, if memory is short. */
static inline int ranking_sync_index(ranking_t *r) {
    columns_t *c = r->fleet;
    hostler_fleet fleet;
    fleet.capacity = c->capacity;
    fleet.rows = c->rows;
    fleet.available = c->avail;
    fleet.host = c->host;
    fleet.class_of = c->class_of;
    fleet.classes = c->classes;
    if (hostler_index_sync(&r->shared->index, &fleet, c->log, c->log_base, c->log_length) < 0) {
        r->shared->failed = 1;
        return -1;
    }
    return 0;
}

/* Keep the rules in the order of their stages. */
static inline void ranking_add_rule(hostler_query *q, hostler_rule rule) {
    int32_t i = q->rule_count;
    while (i > 0 && q->rules[i - 1].stage > rule.stage) {
        q->rules[i] = q->rules[i - 1];
        i -= 1;
    }
    q->rules[i] = rule;
    q->rule_count += 1;
}

/* Make the ranking's filters and weighers the query of the shared index. */
static inline void ranking_ask(ranking_t *r) {
    hostler_query *q = &r->shared->query;
    hostler_index *index = &r->shared->index;
    hostler_rule rule;
    hostler_weigher *w;
    term_t *t;
    int32_t i;
    q->index = index;
    index->request += 1;
    q->min_unit = r->fleet->min_unit;
    q->step_size = r->fleet->step_size;
    q->capacity = r->capacity;
    q->class_count = r->class_count;
    q->class_stage = r->class_stage;
    q->passing = r->below;
    q->movable = r->below + r->class_count + 1;
    q->rule_count = 0;
    q->has_units = 0;
    q->has_aside = 0;
    q->visited = 0;
    q->found = 0;
    q->counts = r->counts;
    for (i = 0; i < r->need_count; i++) {
        rule.slot = hostler_slot_of(index, r->needs[i].resource);
        rule.resource = r->needs[i].resource;
        rule.stage = r->needs[i].stage;
        rule.units = r->needs[i].units;
        rule.amount = r->needs[i].amount;
        rule.low = (double)r->needs[i].amount;
        rule.high = INFINITY;
        q->has_units = q->has_units || rule.units;
        ranking_add_rule(q, rule);
    }
    for (i = 0; i < r->bound_count; i++) {
        rule.slot = hostler_slot_of(index, ~r->bounds[i].column);
        rule.resource = 0;
        rule.stage = r->bounds[i].stage;
        rule.units = 0;
        rule.amount = 0;
        rule.low = r->bounds[i].low;
        rule.high = r->bounds[i].high;
        if (r->bounds[i].column == LAST_SEEN_UP && rule.low < HOSTLER_KNOWN_FLOOR) {
            rule.low = HOSTLER_KNOWN_FLOOR; /* NaN is within no bounds */
        }
        ranking_add_rule(q, rule);
    }
    q->weigher_count = r->term_count;
    for (i = 0; i < r->term_count; i++) {
        t = &r->terms[i];
        w = &q->weighers[i];
        w->kind = t->source == SOURCE_COLUMN ? HOSTLER_BY_COLUMN : t->source == SOURCE_CLASS ? HOSTLER_BY_CLASS : HOSTLER_CONSTANT;
        w->slot = t->source == SOURCE_COLUMN ? hostler_slot_of(index, ~t->column) : 0;
        w->has_minval = t->has_minval;
        w->minval = t->minval;
        w->has_maxval = t->has_maxval;
        w->maxval = t->maxval;
        w->constant = ranking_clamped(t, 0.0);
        w->values = t->values;
        w->multiplier = t->multiplier;
        w->multipliers = t->multipliers;
        w->least_multiplier = t->least_multiplier;
        w->greatest_multiplier = t->greatest_multiplier;
        w->value_low = t->value_low;
        w->value_high = t->value_high;
    }
}

/* Rows by first refusing stage, into r.counts. */
static inline void ranking_count(ranking_t *r) {
    hostler_index *index = &r->shared->index;
    int32_t k;
    if (r->base[STAGES] != index->population) {
        memset(r->base, 0, STAGES * sizeof(int64_t));
        for (k = 0; k < HOSTLER_LEAST(index->class_room, r->class_count); k++) {
            r->base[r->class_stage[k]] += index->class_rows[k];
        }
        r->base[STAGES] = index->population;
    }
    memcpy(r->counts, r->base, STAGES * sizeof(int64_t));
    hostler_count(&r->shared->query);
    r->counts_at = index->seen;
    r->shared->counted = r;
}

/* Rows by first refusing stage, where the latest decision did not leave them. The index is up to date. */
static inline void ranking_count_again(ranking_t *r) {
    if (r->counts_at != r->shared->index.seen || r->shared->counted != (void *)r) {
        ranking_ask(r);
        ranking_count(r);
    }
}

/* Set the terms' normalisers to the exact range of the rows that pass, without those set aside if `skip_aside`. */
static inline void ranking_measure(ranking_t *r, int skip_aside) {
    hostler_query *q = &r->shared->query;
    int32_t i;
    q->has_aside = skip_aside;
    hostler_measure(q);
    for (i = 0; i < r->term_count; i++) {
        if (r->terms[i].source == SOURCE_GROUP) {
            continue;
        }
        ranking_set_range(&r->terms[i], q->weighers[i].low, q->weighers[i].high);
    }
}

/* Give the query the terms' normalisers. */
static inline void ranking_pass_ranges(ranking_t *r) {
    hostler_weigher *w;
    int32_t i;
    for (i = 0; i < r->term_count; i++) {
        w = &r->shared->query.weighers[i];
        if (r->terms[i].has_minval && w->high < r->terms[i].minval) {
            w->high = r->terms[i].minval;
        }
        if (r->terms[i].has_maxval) {
            w->high = r->terms[i].maxval;
        }
        w->low = r->terms[i].low;
        w->range = r->terms[i].range;
        if (r->terms[i].source == SOURCE_GROUP) {
            w->high = w->low + w->range > w->constant ? w->low + w->range : w->constant;
        }
    }
}

/* Add the best rows that pass to the list, without those set aside if `skip_aside`. */
static inline void ranking_search_index(ranking_t *r, int skip_aside) {
    hostler_query *q = &r->shared->query;
    ranking_pass_ranges(r);
    q->has_aside = skip_aside;
    q->wanted = r->wanted;
    q->found = r->found;
    q->top_row = r->top_row;
    q->top_score = r->top_score;
    hostler_best(q);
    r->found = q->found;
}

static inline double ranking_signed_members(group_t *g, int32_t i) {
    return g->policy == SOFT_AFFINITY ? g->members[i] : -g->members[i];
}

/* Normalise over those rows of an affinity group alone that pass; their number. No group term counts their members. */
static inline int64_t ranking_measure_rows(ranking_t *r, group_t *g) {
    term_t *t;
    int32_t i, j, passing = 0;
    double raw, low, high;
    for (i = 0; i < g->count; i++) {
        if (ranking_stage_of(r, g->rows[i]) == 0) {
            passing += 1;
        }
    }
    for (j = 0; j < r->term_count; j++) {
        t = &r->terms[j];
        t->low = t->range = 0.0;
        if (t->source == SOURCE_GROUP || passing < 2) {
            continue;
        }
        low = INFINITY;
        high = -INFINITY;
        for (i = 0; i < g->count; i++) {
            if (ranking_stage_of(r, g->rows[i]) == 0) {
                raw = ranking_raw_of(r, t, g->rows[i]);
                low = HOSTLER_LEAST(low, raw);
                high = HOSTLER_GREATEST(high, raw);
            }
        }
        ranking_set_range(t, low, high);
    }
    return passing;
}

/* Normalisers of the group terms: raw is factor * members, 0 on every passing row outside the group. */
static inline void ranking_measure_group(ranking_t *r, group_t *g, int32_t members_passing) {
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
            if (r->shared->index.aside[g->rows[j]]) {
                raw = ranking_clamped(t, t->group_factor * g->members[j]);
                low = HOSTLER_LEAST(low, raw);
                high = HOSTLER_GREATEST(high, raw);
            }
        }
        ranking_set_range(t, low, high);
    }
}

/* Fill the list of best rows for one guest, of server group `group` (-1: none); the index is up to date. */
static inline void ranking_decide_by_index(ranking_t *r, group_t *groups, int32_t group, int32_t wanted,
                                           uint64_t seed) {
    group_t *g = NULL;
    uint8_t *aside = r->shared->index.aside;
    int32_t i, row, kept = 0;
    int64_t passing, size;
    int soft = 0;
    r->found = 0;
    ranking_ask(r);
    ranking_count(r);
    if (group >= 0) {
        g = &groups[group];
        if (g->count == 0 || !ranking_looks_at(r, g->policy)) {
            g = NULL;
        }
    }
    passing = r->counts[0];
    if (g != NULL && g->policy == AFFINITY) {
        passing = ranking_measure_rows(r, g);
    } else if (g != NULL) {
        soft = g->policy != ANTI_AFFINITY;
        for (i = 0; i < g->count; i++) {
            row = g->rows[i];
            if ((soft || g->members[i] >= g->at_most) && ranking_stage_of(r, row) == 0) {
                aside[row] = 1;
                kept += 1;
            }
        }
        if (!soft) {
            passing -= kept;
        }
    }
    size = HOSTLER_LEAST(r->subset, passing);
    r->seed = seed;
    r->drawn = 0;
    r->pick = size > 1 ? ranking_drawn_below(r, size) : 0;
    r->wanted = HOSTLER_GREATEST(wanted, (int32_t)r->pick + 1);
    if (g != NULL && g->policy == AFFINITY) {
        for (i = 0; i < g->count; i++) {
            if (ranking_stage_of(r, g->rows[i]) == 0) {
                ranking_offer(r, g->rows[i], ranking_true_score(r, g->rows[i], 0.0));
            }
        }
        ranking_take_pick(r, wanted);
        return;
    }
    if (passing > 1) {
        ranking_measure(r, kept > 0 && !soft);
        ranking_measure_group(r, soft ? g : NULL, kept);
    } else {
        /* One passing row: no weigher runs and its weight is 0.0 (Nova 33). */
        for (i = 0; i < r->term_count; i++) {
            r->terms[i].low = r->terms[i].range = 0.0;
        }
    }
    if (soft) {
        for (i = 0; i < g->count; i++) {
            if (aside[g->rows[i]]) {
                ranking_offer(r, g->rows[i], ranking_true_score(r, g->rows[i], ranking_signed_members(g, i)));
            }
        }
    }
    if (passing > 0) {
        ranking_search_index(r, kept > 0);
    }
    if (kept > 0) {
        for (i = 0; i < g->count; i++) {
            aside[g->rows[i]] = 0;
        }
    }
    r->way.visited = r->shared->query.visited;
    ranking_take_pick(r, wanted);
}

/* Rows by first refusing stage for a guest of server group `group`; the index was asked by this ranking last. */
static inline void ranking_tally_by_index(ranking_t *r, group_t *groups, int32_t group, int64_t *out) {
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
            if (g->members[i] >= g->at_most) {
                stage = ranking_stage_of(r, g->rows[i]);
                if ((stage == 0 || stage > r->anti_affinity_stage) && stage != NOT_A_HOST) {
                    out[stage] -= 1;
                    out[r->anti_affinity_stage] += 1;
                }
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
            stage = ranking_stage_of(r, g->rows[i]);
            if ((stage == 0 || stage > r->affinity_stage) && stage != NOT_A_HOST) {
                out[r->affinity_stage] -= 1;
                out[stage] += 1;
            }
        }
    }
}

#endif
