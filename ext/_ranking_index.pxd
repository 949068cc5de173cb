"""How a ranking without rows of its own decides: by a search of the host index that all rankings of a fleet share."""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from ._fleet cimport AFFINITY, ANTI_AFFINITY, NO_POLICY, SOFT_AFFINITY, columns_t, group_t
from ._ranking_decide cimport take_pick
from ._ranking_scores cimport clamped, raw_of, set_range, stage_of, true_score
from ._ranking_search cimport drawn_below, offer
from ._ranking_state cimport (
    BY_CLASS, BY_COLUMN, CONSTANT, HOSTLER_ASSERT, NOT_A_HOST, SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, STAGES, hostler_best,
    hostler_count, hostler_fleet, hostler_index, hostler_index_sync, hostler_measure, hostler_query, hostler_rule, hostler_weigher,
    ranking_t, shared_t, term_t,
)


cdef inline int32_t slot_of(hostler_index* index, int32_t source) noexcept nogil:
    """Where the index keeps a column; -1 if it does not."""
    cdef int32_t i
    for i in range(index.width):
        if index.source[i] == source:
            return i
    return -1


cdef inline int sync_index(ranking_t* r) noexcept nogil:
    """Bring the index up to date. Returns -1, and notes it, if memory is short."""
    cdef columns_t* c = r.fleet
    cdef hostler_fleet fleet
    fleet.capacity = c.capacity
    fleet.rows = c.rows
    fleet.available = c.avail
    fleet.host = c.host
    fleet.class_of = c.class_of
    fleet.classes = c.classes
    if hostler_index_sync(&r.shared.index, &fleet, c.log, c.log_base, c.log_length) < 0:
        r.shared.failed = True
        return -1
    return 0


cdef inline void add_rule(hostler_query* q, hostler_rule rule) noexcept nogil:
    """Keep the rules in the order of their stages."""
    cdef int32_t i = q.rule_count
    while i > 0 and q.rules[i - 1].stage > rule.stage:
        q.rules[i] = q.rules[i - 1]
        i -= 1
    q.rules[i] = rule
    q.rule_count += 1


cdef inline void ask(ranking_t* r) noexcept nogil:
    """Make the ranking's filters and weighers the query of the shared index."""
    cdef hostler_query* q = &r.shared.query
    cdef hostler_index* index = &r.shared.index
    cdef hostler_rule rule
    cdef hostler_weigher* w
    cdef term_t* t
    cdef int32_t i
    q.index = index
    q.min_unit = r.fleet.min_unit
    q.step_size = r.fleet.step_size
    q.capacity = r.capacity
    q.class_count = r.class_count
    q.class_stage = r.class_stage
    q.passing = r.below
    q.movable = r.below + r.class_count + 1
    q.rule_count = 0
    q.has_units = 0
    q.has_aside = 0
    q.visited = 0
    q.found = 0
    q.counts = r.counts
    for i in range(r.need_count):
        rule.slot = slot_of(index, r.needs[i].resource)
        rule.resource = r.needs[i].resource
        rule.stage = r.needs[i].stage
        rule.units = r.needs[i].units
        rule.amount = r.needs[i].amount
        rule.low = <double>r.needs[i].amount
        rule.high = INFINITY
        q.has_units = q.has_units or rule.units
        add_rule(q, rule)
    for i in range(r.bound_count):
        rule.slot = slot_of(index, ~r.bounds[i].column)
        rule.resource = 0
        rule.stage = r.bounds[i].stage
        rule.units = 0
        rule.amount = 0
        rule.low = r.bounds[i].low
        rule.high = r.bounds[i].high
        add_rule(q, rule)
    q.weigher_count = r.term_count
    for i in range(r.term_count):
        t = &r.terms[i]
        w = &q.weighers[i]
        w.kind = BY_COLUMN if t.source == SOURCE_COLUMN else BY_CLASS if t.source == SOURCE_CLASS else CONSTANT
        w.slot = slot_of(index, ~t.column) if t.source == SOURCE_COLUMN else 0
        w.has_minval = t.has_minval
        w.minval = t.minval
        w.has_maxval = t.has_maxval
        w.maxval = t.maxval
        w.constant = clamped(t, 0.0)
        w.values = t.values
        w.multiplier = t.multiplier
        w.multipliers = t.multipliers
        w.least_multiplier = t.least_multiplier
        w.greatest_multiplier = t.greatest_multiplier
        w.value_low = t.value_low
        w.value_high = t.value_high


cdef inline void count(ranking_t* r) noexcept nogil:
    """Rows by first refusing stage, into r.counts."""
    cdef hostler_index* index = &r.shared.index
    cdef int32_t k
    if r.base[STAGES] != index.population:
        memset(r.base, 0, STAGES * sizeof(int64_t))
        for k in range(min(index.class_room, r.class_count)):
            r.base[r.class_stage[k]] += index.class_rows[k]
        r.base[STAGES] = index.population
    memcpy(r.counts, r.base, STAGES * sizeof(int64_t))
    hostler_count(&r.shared.query)
    r.counts_at = index.seen
    r.shared.counted = r


cdef inline void count_again(ranking_t* r) noexcept nogil:
    """Rows by first refusing stage, where the latest decision did not leave them. The index is up to date."""
    if r.counts_at != r.shared.index.seen or r.shared.counted != <void*>r:
        ask(r)
        count(r)


cdef inline void measure(ranking_t* r, bint heed_aside) noexcept nogil:
    """Set the terms' normalisers to the exact range of the rows that pass, without those set aside if these are heeded."""
    cdef hostler_query* q = &r.shared.query
    cdef int32_t i
    q.has_aside = heed_aside
    hostler_measure(q)
    for i in range(r.term_count):
        if r.terms[i].source == SOURCE_GROUP:
            continue
        set_range(&r.terms[i], q.weighers[i].low, q.weighers[i].high)


cdef inline void pass_ranges(ranking_t* r) noexcept nogil:
    """Give the query the terms' normalisers."""
    cdef hostler_weigher* w
    cdef int32_t i
    for i in range(r.term_count):
        w = &r.shared.query.weighers[i]
        if r.terms[i].has_minval and w.high < r.terms[i].minval:
            w.high = r.terms[i].minval
        if r.terms[i].has_maxval:
            w.high = r.terms[i].maxval
        w.low = r.terms[i].low
        w.range = r.terms[i].range
        if r.terms[i].source == SOURCE_GROUP:
            w.high = w.low + w.range if w.low + w.range > w.constant else w.constant


cdef inline void search_index(ranking_t* r, bint heed_aside) noexcept nogil:
    """Add the best rows that pass to the list, without those set aside if these are heeded."""
    cdef hostler_query* q = &r.shared.query
    pass_ranges(r)
    q.has_aside = heed_aside
    q.wanted = r.wanted
    q.found = r.found
    q.top_row = r.top_row
    q.top_score = r.top_score
    hostler_best(q)
    r.found = q.found


cdef inline bint looks_at(ranking_t* r, int32_t policy) noexcept nogil:
    """Whether the signature's filters or weighers look at groups of this policy."""
    if policy == AFFINITY:
        return r.affinity_stage != 0
    if policy == ANTI_AFFINITY:
        return r.anti_affinity_stage != 0
    return policy != NO_POLICY


cdef inline double signed_members(group_t* g, int32_t i) noexcept nogil:
    return g.members[i] if g.policy == SOFT_AFFINITY else -g.members[i]


cdef inline int64_t measure_rows(ranking_t* r, group_t* g) noexcept nogil:
    """Normalise over those rows of an affinity group alone that pass; their number. No group term counts their members."""
    cdef term_t* t
    cdef int32_t i, j, passing = 0
    cdef double raw, low, high
    for i in range(g.count):
        if stage_of(r, g.rows[i]) == 0:
            passing += 1
    for j in range(r.term_count):
        t = &r.terms[j]
        t.low = t.range = 0.0
        if t.source == SOURCE_GROUP or passing < 2:
            continue
        low = INFINITY
        high = -INFINITY
        for i in range(g.count):
            if stage_of(r, g.rows[i]) == 0:
                raw = raw_of(r, t, g.rows[i])
                low = min(low, raw)
                high = max(high, raw)
        set_range(t, low, high)
    return passing


cdef inline void measure_group(ranking_t* r, group_t* g, int32_t members_passing) noexcept nogil:
    """Normalisers of the group terms: raw is factor * members, 0 on every passing row outside the group."""
    cdef term_t* t
    cdef int32_t i, j
    cdef double raw, low, high
    for i in range(r.term_count):
        t = &r.terms[i]
        if t.source != SOURCE_GROUP:
            continue
        t.low = t.range = 0.0
        if g == NULL or (g.policy == SOFT_AFFINITY) != (t.group_factor > 0):
            continue
        low = INFINITY
        high = -INFINITY
        if r.counts[0] > members_passing:
            low = high = clamped(t, 0.0)
        for j in range(g.count):
            if r.shared.index.aside[g.rows[j]]:
                raw = clamped(t, t.group_factor * g.members[j])
                low = min(low, raw)
                high = max(high, raw)
        set_range(t, low, high)


cdef inline void decide_by_index(ranking_t* r, group_t* groups, int32_t group, int32_t wanted, uint64_t seed) noexcept nogil:
    """Fill the list of best rows for one guest, of server group `group` (-1: none); the index is up to date."""
    cdef group_t* g = NULL
    cdef uint8_t* aside = r.shared.index.aside
    cdef int32_t i, row, kept = 0
    cdef int64_t passing, size
    cdef bint soft = False
    r.found = 0
    ask(r)
    count(r)
    if group >= 0:
        g = &groups[group]
        if g.count == 0 or not looks_at(r, g.policy):
            g = NULL
    passing = r.counts[0]
    if g != NULL and g.policy == AFFINITY:
        passing = measure_rows(r, g)
    elif g != NULL:
        soft = g.policy != ANTI_AFFINITY
        for i in range(g.count):
            row = g.rows[i]
            if (soft or g.members[i] >= g.at_most) and stage_of(r, row) == 0:
                aside[row] = 1
                kept += 1
        if not soft:
            passing -= kept
    size = min(r.subset, passing)
    r.seed = seed
    r.drawn = 0
    r.pick = drawn_below(r, size) if size > 1 else 0
    r.wanted = max(wanted, <int32_t>r.pick + 1)
    if g != NULL and g.policy == AFFINITY:
        for i in range(g.count):
            if stage_of(r, g.rows[i]) == 0:
                offer(r, g.rows[i], true_score(r, g.rows[i], 0.0))
        take_pick(r, wanted)
        return
    if passing > 1:
        measure(r, kept > 0 and not soft)
        measure_group(r, g if soft else NULL, kept)
    else:
        # One passing row: no weigher runs and its weight is 0.0 (Nova 33).
        for i in range(r.term_count):
            r.terms[i].low = r.terms[i].range = 0.0
    if soft:
        for i in range(g.count):
            if aside[g.rows[i]]:
                offer(r, g.rows[i], true_score(r, g.rows[i], signed_members(g, i)))
    if passing > 0:
        search_index(r, kept > 0)
    if kept > 0:
        for i in range(g.count):
            aside[g.rows[i]] = 0
    r.way.visited = r.shared.query.visited
    take_pick(r, wanted)


cdef inline void tally_by_index(ranking_t* r, group_t* groups, int32_t group, int64_t* out) noexcept nogil:
    """Rows by first refusing stage for a guest of server group `group`; the index was asked by this ranking last."""
    cdef group_t* g
    cdef int32_t i, k
    cdef uint8_t stage
    memcpy(out, r.counts, STAGES * sizeof(int64_t))
    if group < 0:
        return
    g = &groups[group]
    if g.count == 0 or not looks_at(r, g.policy):
        return
    if g.policy == ANTI_AFFINITY:
        for i in range(g.count):
            if g.members[i] >= g.at_most:
                stage = stage_of(r, g.rows[i])
                if (stage == 0 or stage > r.anti_affinity_stage) and stage != NOT_A_HOST:
                    out[stage] -= 1
                    out[r.anti_affinity_stage] += 1
    elif g.policy == AFFINITY:
        # Only the group's rows get past this stage.
        for k in range(r.affinity_stage + 1, NOT_A_HOST):
            out[r.affinity_stage] += out[k]
            out[k] = 0
        out[r.affinity_stage] += out[0]
        out[0] = 0
        for i in range(g.count):
            stage = stage_of(r, g.rows[i])
            if (stage == 0 or stage > r.affinity_stage) and stage != NOT_A_HOST:
                out[r.affinity_stage] -= 1
                out[stage] += 1
