"""One decision of a ranking: the list of best rows for one guest, and what becomes of its server group."""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy

from ._fleet cimport AFFINITY, ANTI_AFFINITY, NO_POLICY, SOFT_AFFINITY, group_t
from ._ranking_scores cimport clamped, greatest_change, raw_of, set_range, true_score
from ._ranking_search cimport add_tie, by_number, drawn_below, offer, search, search_ties, shuffle
from ._ranking_state cimport HOSTLER_ASSERT, HOSTLER_ASSERT_INDEX, NOT_A_HOST, SOURCE_GROUP, STAGES, ranking_t, term_t
from ._ranking_sync cimport normalise, store_scores
from ._ranking_trees cimport leading_row, root

cdef extern from "draws.h":
    int64_t hostler_nth_passing(const uint8_t* stage, const uint8_t* aside, uint8_t heed, int64_t n, int64_t nth) noexcept nogil

cdef enum:
    RENEWAL_WORK = 10      # stored scores that a vectorised pass renews while a search, which jumps, scores one row


cdef inline void decide(ranking_t* r, group_t* groups, int32_t group, int32_t wanted, uint64_t seed) noexcept nogil:
    """Fill the list of best rows for one guest, of server group `group` (-1: none), drawing from `seed`; its length is r.found.
    `sync` was called, and the list has room."""
    cdef group_t* g = NULL
    cdef int32_t i, row, kept = 0
    cdef int64_t passing
    cdef bint some_aside = False, soft = False
    r.found = 0
    r.slack = 0.0
    if r.work > r.fleet.rows // RENEWAL_WORK + 64:
        store_scores(r)
    if group >= 0:
        g = &groups[group]
        if g.count == 0 or not heeds(r, g.policy):
            g = NULL
    if g != NULL and g.policy == AFFINITY:
        passing = measure_among(r, g.rows, g.count)
        aim(r, passing, wanted, seed)
        offer_among(r, g.rows, g.count)
        shuffle_best(r, g, passing)
        take_pick(r, wanted)
        return
    passing = r.counts[0]
    if g != NULL:
        soft = g.policy != ANTI_AFFINITY
        for i in range(g.count):
            row = g.rows[i]
            if r.stage[row] == 0 and (soft or g.members[i] >= g.at_most):
                r.aside[row] = 1
                kept += 1
        some_aside = kept > 0
        if not soft:
            passing -= kept
    aim(r, passing, wanted, seed)
    if passing > 1:
        normalise(r, some_aside and not soft)
        set_group_range(r, g if soft else NULL, kept)
        if r.shuffle and all_equal(r):
            draw_any(r, passing, not soft)
        else:
            pick(r, g if soft else NULL, kept)
            shuffle_best(r, g if soft else NULL, passing)
    elif passing == 1:
        pick_only(r, g if soft else NULL)
    else:
        add_nothing(r)
    take_pick(r, wanted)
    if some_aside:
        for i in range(g.count):
            r.aside[g.rows[i]] = 0


cdef inline void aim(ranking_t* r, int64_t passing, int32_t wanted, uint64_t seed) noexcept nogil:
    """Draw which of the best is to be taken, and look for as many as that needs."""
    cdef int64_t size = min(r.subset, passing)
    r.seed = seed
    r.drawn = 0
    r.pick = drawn_below(r, size) if size > 1 else 0
    r.wanted = max(wanted, <int32_t>r.pick + 1)


cdef inline bint all_equal(ranking_t* r) noexcept nogil:
    """Whether every passing row has the score 0.0, under the decision's normalisers."""
    cdef int32_t i
    for i in range(r.term_count):
        if r.terms[i].range != 0.0:
            return False
    return True


cdef inline void draw_any(ranking_t* r, int64_t passing, bint heed_aside) noexcept nogil:
    """Fill the list with rows drawn from all `passing` ones: those that pass and, if `heed_aside`, are not set aside."""
    cdef int64_t row
    cdef int32_t i
    r.found = <int32_t>min(<int64_t>r.wanted, passing)
    if r.found == 1:
        r.top_row[0] = <int32_t>hostler_nth_passing(r.stage, r.aside, heed_aside, r.fleet.rows, drawn_below(r, passing))
        r.top_score[0] = 0.0
        return
    r.tie_count = 0
    for row in range(r.fleet.rows):
        if r.stage[row] == 0 and not (heed_aside and r.aside[row]):
            add_tie(r, row)
    HOSTLER_ASSERT(r.tie_count == passing)
    shuffle(r, r.ties, passing, r.found)
    for i in range(r.found):
        r.top_row[i] = r.ties[i]
        r.top_score[i] = 0.0


cdef inline void shuffle_best(ranking_t* r, group_t* g, int64_t passing) noexcept nogil:
    """Draw the order of the rows that share the best score. `g`: the group whose rows are offered by themselves, or NULL."""
    cdef int32_t equal = 0
    if not r.shuffle:
        return
    while equal < r.found and r.top_score[equal] == r.top_score[0]:
        equal += 1
    if equal < r.found or r.found == passing:
        shuffle(r, r.top_row, equal, equal)
        return
    find_ties(r, g)
    HOSTLER_ASSERT(r.tie_count >= r.found)
    shuffle(r, r.ties, r.tie_count, r.found)
    memcpy(r.top_row, r.ties, r.found * sizeof(int32_t))


cdef inline void find_ties(ranking_t* r, group_t* g) noexcept nogil:
    """All rows of the best score, by number."""
    cdef double best = r.top_score[0], members
    cdef int32_t i
    r.tie_count = 0
    if g == NULL or g.policy != AFFINITY:
        search_ties(r, r.levels - 1, 0, best)
    if g == NULL:
        return
    for i in range(g.count):
        if g.policy == AFFINITY:
            if r.stage[g.rows[i]] == 0 and true_score(r, g.rows[i], 0.0) == best:
                add_tie(r, g.rows[i])
        elif r.aside[g.rows[i]]:
            members = g.members[i] if g.policy == SOFT_AFFINITY else -g.members[i]
            if true_score(r, g.rows[i], members) == best:
                add_tie(r, g.rows[i])
    qsort(r.ties, r.tie_count, sizeof(int32_t), &by_number)


cdef inline void take_pick(ranking_t* r, int32_t wanted) noexcept nogil:
    """Move the row that was drawn to the front, and leave off what was only looked for to find it."""
    cdef int32_t row, i = <int32_t>r.pick
    cdef double score
    if r.found == 0:
        return
    HOSTLER_ASSERT_INDEX(i, r.found)
    row, score = r.top_row[i], r.top_score[i]
    while i > 0:
        r.top_row[i] = r.top_row[i - 1]
        r.top_score[i] = r.top_score[i - 1]
        i -= 1
    r.top_row[0], r.top_score[0] = row, score
    r.found = min(r.found, wanted)


cdef inline bint heeds(ranking_t* r, int32_t policy) noexcept nogil:
    """Whether the signature's filters or weighers look at groups of this policy."""
    if policy == AFFINITY:
        return r.affinity_stage != 0
    if policy == ANTI_AFFINITY:
        return r.anti_affinity_stage != 0
    return policy != NO_POLICY


cdef inline void set_group_range(ranking_t* r, group_t* g, int32_t members_passing) noexcept nogil:
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
            if r.aside[g.rows[j]]:
                raw = clamped(t, t.group_factor * g.members[j])
                low = min(low, raw)
                high = max(high, raw)
        set_range(t, low, high)


cdef inline void pick(ranking_t* r, group_t* g, int32_t members_passing) noexcept nogil:
    """Search the best of the passing rows that are not set aside, and offer the group's own rows beside them."""
    cdef term_t* t
    cdef int32_t i
    cdef double size = 0.0, outside
    if g != NULL:
        for i in range(r.term_count):
            if r.terms[i].source == SOURCE_GROUP and r.terms[i].range != 0.0:
                r.drifted = True
    if r.drifted:
        for i in range(r.term_count):
            t = &r.terms[i]
            if t.source != SOURCE_GROUP:
                r.slack += greatest_change(t, t.low, t.low + t.range, &size)
            elif t.range != 0.0:
                # The rows to be searched have no members.
                outside = clamped(t, 0.0)
                r.slack += greatest_change(t, outside, outside, &size)
        # Rounding of both sums and of the slack: a few ulps of the greatest contributions, taken a thousandfold.
        r.slack += size * 1e-12
    if not r.drifted and r.wanted == 1 and members_passing == 0 and not r.aside[leading_row(r, r.side_count)]:
        offer(r, leading_row(r, r.side_count), root(r, r.side_count))
        return
    if g != NULL:
        for i in range(g.count):
            if r.aside[g.rows[i]]:
                offer(r, g.rows[i], true_score(r, g.rows[i], g.members[i] if g.policy == SOFT_AFFINITY else -g.members[i]))
    search(r, r.levels - 1, 0)


cdef inline void pick_only(ranking_t* r, group_t* g) noexcept nogil:
    """One passing row: no weigher runs and its weight is 0.0 (Nova 33)."""
    cdef int32_t i
    add_nothing(r)
    if g != NULL:
        for i in range(g.count):
            if r.aside[g.rows[i]]:
                offer(r, g.rows[i], 0.0)
                return
    r.drifted = False
    search(r, r.levels - 1, 0)
    if r.found:
        r.top_score[0] = 0.0


cdef inline void add_nothing(ranking_t* r) noexcept nogil:
    """Make every term idle: fewer than two rows pass."""
    cdef int32_t i
    for i in range(r.term_count):
        r.terms[i].low = r.terms[i].range = 0.0


cdef inline int64_t measure_among(ranking_t* r, int32_t* rows, int32_t count) noexcept nogil:
    """Normalise over those of `rows` alone that pass; their number. No group term counts their members."""
    cdef term_t* t
    cdef int32_t i, j, passing = 0
    cdef double raw, low, high
    for i in range(count):
        if r.stage[rows[i]] == 0:
            passing += 1
    add_nothing(r)
    for j in range(r.term_count if passing > 1 else 0):
        t = &r.terms[j]
        if t.source == SOURCE_GROUP:
            continue
        low = INFINITY
        high = -INFINITY
        for i in range(count):
            if r.stage[rows[i]] != 0:
                continue
            raw = raw_of(r, t, rows[i])
            low = min(low, raw)
            high = max(high, raw)
        set_range(t, low, high)
    return passing


cdef inline void offer_among(ranking_t* r, int32_t* rows, int32_t count) noexcept nogil:
    """Rank only `rows`, those that pass."""
    cdef int32_t i
    for i in range(count):
        if r.stage[rows[i]] == 0:
            offer(r, rows[i], true_score(r, rows[i], 0.0))


cdef inline void tally(ranking_t* r, group_t* groups, int32_t group, int64_t* out) noexcept nogil:
    """Rows by first refusing stage for a guest of server group `group`, int64[STAGES]."""
    cdef group_t* g
    cdef int32_t i, k
    cdef uint8_t stage
    memcpy(out, r.counts, STAGES * sizeof(int64_t))
    if group < 0:
        return
    g = &groups[group]
    if g.count == 0 or not heeds(r, g.policy):
        return
    if g.policy == ANTI_AFFINITY:
        for i in range(g.count):
            stage = r.stage[g.rows[i]]
            if g.members[i] >= g.at_most and (stage == 0 or stage > r.anti_affinity_stage) and stage != NOT_A_HOST:
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
            stage = r.stage[g.rows[i]]
            if (stage == 0 or stage > r.affinity_stage) and stage != NOT_A_HOST:
                out[r.affinity_stage] -= 1
                out[stage] += 1
