"""How a ranking catches up with its fleet's change log, and when it makes its stored scores anew."""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from ._fleet cimport columns_t
from ._ranking_scores cimport find_columns, multiplier_of, raw_of, score_all, stage_of, value_all, value_row
from ._ranking_state cimport HOSTLER_ASSERT, NOT_A_HOST, SOURCE_GROUP, STAGES, TERMS, ranking_t, term_t
from ._ranking_trees cimport ask_for, build_score_tree, build_trees, side_end, update_side

cdef enum:
    LOOK_AHEAD = 6         # changed rows whose memory is asked for ahead of their turn
    OUTGROWS_CACHE = 20000 # rows from which on a fleet's columns do not fit the second-level cache


cdef inline void normalise(ranking_t* r, bint some_aside) noexcept nogil:
    """Set the terms' normalisers to the exact range of the passing rows that are not set aside."""
    cdef term_t* t
    cdef int32_t i
    cdef double high
    r.drifted = False
    for i in range(r.term_count):
        t = &r.terms[i]
        if t.source == SOURCE_GROUP:
            continue
        high = t.maxval if t.has_maxval else side_end(r, t.high_side, some_aside)
        t.low = t.minval if t.has_minval else -side_end(r, t.low_side, some_aside)
        t.range = high - t.low
        if high == -INFINITY or t.range < 0.0:
            t.range = 0.0
        if t.range != t.stored_range or (t.low != t.stored_low and t.range != 0.0):
            r.drifted = True


cdef inline void store_scores(ranking_t* r) noexcept nogil:
    """Make the exact range of the passing rows the stored normalisers, and every stored score anew."""
    cdef int32_t i
    normalise(r, False)
    for i in range(r.term_count):
        r.terms[i].stored_low = r.terms[i].low if r.terms[i].source != SOURCE_GROUP else 0.0
        r.terms[i].stored_range = r.terms[i].range if r.terms[i].source != SOURCE_GROUP else 0.0
    score_all(r)
    build_score_tree(r)
    r.drifted = False
    r.work = 0
    r.rescores += 1


cdef inline void build(ranking_t* r) noexcept nogil:
    cdef int64_t row
    memset(r.counts, 0, STAGES * sizeof(int64_t))
    r.counted = r.fleet.rows
    for row in range(r.fleet.rows):
        r.stage[row] = stage_of(r, row)
        r.counts[r.stage[row]] += 1
    if r.packing:
        value_all(r)
    build_trees(r)
    store_scores(r)
    r.seen = r.fleet.log_base + r.fleet.log_length
    r.rebuilds += 1


cdef inline int sync(ranking_t* r) noexcept nogil:
    """Catch up with the change log. `check_capacity` was called."""
    cdef columns_t* c = r.fleet
    cdef int64_t version = c.log_base + c.log_length, at, row
    cdef uint8_t old, new
    cdef int32_t side, i
    cdef double score, raw
    cdef term_t* t
    HOSTLER_ASSERT(r.capacity == c.capacity)
    find_columns(r)
    if r.seen == version and r.counted == c.rows:
        return 0
    if r.seen < c.log_base or version - r.seen > c.rows // 8 + 64:
        build(r)
        return 0
    if c.rows < r.counted:
        build(r)
        return 0
    for row in range(r.counted, c.rows):
        r.stage[row] = NOT_A_HOST
        r.score[row] = -INFINITY
    r.counts[NOT_A_HOST] += c.rows - r.counted
    r.counted = c.rows
    for at in range(r.seen - c.log_base, c.log_length):
        if c.rows > OUTGROWS_CACHE and at + LOOK_AHEAD < c.log_length:
            row = c.log[at + LOOK_AHEAD]
            if row < c.rows:
                ask_for(r, row)
        row = c.log[at]
        if row >= c.rows:
            # The row was added and taken back since.
            continue
        old = r.stage[row]
        new = stage_of(r, row)
        if old != new:
            r.stage[row] = new
            r.counts[old] -= 1
            r.counts[new] += 1
        if r.by_load:
            continue
        if r.packing:
            value_row(r, row)
        if old != 0 and old == new:
            continue
        if old == 0 or new == 0:
            score = 0.0 if new == 0 else -INFINITY
            for i in range(r.term_count):
                t = &r.terms[i]
                if t.source == SOURCE_GROUP:
                    continue
                raw = -INFINITY
                if new == 0:
                    raw = raw_of(r, t, row)
                    if t.stored_range != 0.0:
                        score += multiplier_of(r, t, row) * ((raw - t.stored_low) / t.stored_range)
                if t.steady and old == new:
                    continue
                if t.high_side >= 0:
                    update_side(r, t.high_side, row, raw)
                if t.low_side >= 0:
                    update_side(r, t.low_side, row, -raw if new == 0 else -INFINITY)
            r.score[row] = score
            update_side(r, r.side_count, row, score)
    if r.by_load:
        # Every row's value has changed.
        value_all(r)
        build_trees(r)
        store_scores(r)
    r.seen = version
    return 0


cdef inline void value_rows(ranking_t* r) noexcept nogil:
    """Bring the formulas' values up to date; the normalisers of the latest decision stay. `check_capacity` was called."""
    cdef double low[TERMS]
    cdef double span[TERMS]
    cdef int32_t i
    if not r.packing:
        return
    for i in range(r.term_count):
        low[i] = r.terms[i].low
        span[i] = r.terms[i].range
    sync(r)
    for i in range(r.term_count):
        r.terms[i].low = low[i]
        r.terms[i].range = span[i]
