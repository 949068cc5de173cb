"""The tournament trees of a ranking: one per end of each weigher's range, and one over the stored scores."""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t

from ._fleet cimport columns_t
from ._ranking_scores cimport raw_of
from ._ranking_state cimport FANOUT, HOSTLER_ASSERT_INDEX, SOURCE_COLUMN, ranking_t, term_t

cdef extern from *:
    """
    #define HOSTLER_PREFETCH(address) __builtin_prefetch((const void *)(address))
    """
    void HOSTLER_PREFETCH(const void* address) noexcept nogil

cdef extern from "scores.h":
    void hostler_passing(double* out, const double* raw, const uint8_t* stage, int64_t n, double minval, double sign) noexcept nogil
    double hostler_block_greatest(const double* raw, const uint8_t* stage, double minval, double sign, uint8_t* leader) noexcept nogil
    void hostler_block_maxima(const double* values, int64_t blocks, int64_t stride, double* best, uint8_t* leader) noexcept nogil


cdef inline double side_value(ranking_t* r, int32_t side, int64_t row) noexcept nogil:
    """What tree `side` holds of a row: the score, the raw value, or minus the raw value; -inf where the row is refused."""
    cdef term_t* t
    if side == r.side_count:
        return r.score[row]
    if r.stage[row] != 0:
        return -INFINITY
    t = &r.terms[r.side_term[side]]
    return raw_of(r, t, row) if t.high_side == side else -raw_of(r, t, row)


cdef inline int64_t slot(ranking_t* r, int32_t side, int64_t node) noexcept nogil:
    """Where tree `side` keeps a node. The raw values' trees lie node by node, so that a changed row touches one line of each; the
    score's tree lies by itself, so that a search reads a node's children in one go."""
    return r.side_count * r.nodes + node if side == r.side_count else node * r.side_count + side


cdef inline void refresh_block(ranking_t* r, int32_t side, int64_t block) noexcept nogil:
    cdef int64_t row = block * FANOUT
    cdef double value, greatest = -INFINITY, sign
    cdef int32_t i, leader = 0, n = FANOUT
    cdef int64_t at = slot(r, side, block)
    cdef term_t* t
    if row + n > r.fleet.rows:
        n = <int32_t>(r.fleet.rows - row)
    elif side == r.side_count:
        hostler_block_maxima(r.score + row, 1, 1, r.best + at, r.leader + at)
        return
    else:
        t = &r.terms[r.side_term[side]]
        if t.raw != NULL:
            sign = 1.0 if t.high_side == side else -1.0
            r.best[at] = hostler_block_greatest(t.raw + row, r.stage + row, t.floor, sign, r.leader + at)
            return
    if side == r.side_count:
        for i in range(n):
            if r.score[row + i] > greatest:
                greatest = r.score[row + i]
                leader = i
    else:
        t = &r.terms[r.side_term[side]]
        sign = 1.0 if t.high_side == side else -1.0
        for i in range(n):
            if r.stage[row + i] == 0:
                value = sign * raw_of(r, t, row + i)
                if value > greatest:
                    greatest = value
                    leader = i
    r.best[at] = greatest
    r.leader[at] = <uint8_t>leader


cdef inline void refresh_node(ranking_t* r, int32_t side, int32_t level, int64_t node) noexcept nogil:
    cdef int64_t child = node * FANOUT
    cdef int64_t below = r.level_start[level - 1] + child
    cdef double value, greatest = -INFINITY
    cdef int32_t i, leader = 0, n = FANOUT
    if child + n > r.level_size[level - 1]:
        n = <int32_t>(r.level_size[level - 1] - child)
    for i in range(n):
        value = r.best[slot(r, side, below + i)]
        if value > greatest:
            greatest = value
            leader = i
    r.best[slot(r, side, r.level_start[level] + node)] = greatest
    r.leader[slot(r, side, r.level_start[level] + node)] = <uint8_t>leader


cdef inline void update_side(ranking_t* r, int32_t side, int64_t row, double value) noexcept nogil:
    """Bring one row's new value into tree `side`; stops at the first node that does not change."""
    cdef double* best = r.best
    cdef uint8_t* leader = r.leader
    cdef int64_t node = row, parent, at
    cdef int32_t level, child
    cdef double was
    HOSTLER_ASSERT_INDEX(row, r.fleet.rows)
    HOSTLER_ASSERT_INDEX(side, r.side_count + 1)
    for level in range(r.levels):
        parent = node // FANOUT
        child = <int32_t>(node % FANOUT)
        at = slot(r, side, r.level_start[level] + parent)
        was = best[at]
        if value > was:
            best[at] = value
            leader[at] = <uint8_t>child
        elif value == was:
            if child < leader[at]:
                leader[at] = <uint8_t>child
            return
        elif leader[at] == child:
            if level == 0:
                refresh_block(r, side, parent)
            else:
                refresh_node(r, side, level, parent)
            if best[at] == was:
                return
        else:
            return
        value = best[at]
        node = parent


cdef inline void build_score_tree(ranking_t* r) noexcept nogil:
    cdef int64_t whole = r.fleet.rows // FANOUT, at = slot(r, r.side_count, 0), i
    cdef int32_t level
    hostler_block_maxima(r.score, whole, 1, r.best + at, r.leader + at)
    for i in range(whole, r.level_size[0]):
        refresh_block(r, r.side_count, i)
    for level in range(1, r.levels):
        for i in range(r.level_size[level]):
            refresh_node(r, r.side_count, level, i)


cdef inline void build_trees(ranking_t* r) noexcept nogil:
    """The raw values' trees, from the bottom up. The scores are overwritten, and to be made anew."""
    cdef int32_t side, level
    cdef int64_t i, whole, at
    cdef term_t* t
    for side in range(r.side_count):
        t = &r.terms[r.side_term[side]]
        whole = 0
        if t.raw != NULL:
            whole = r.fleet.rows // FANOUT
            at = slot(r, side, 0)
            hostler_passing(r.score, t.raw, r.stage, whole * FANOUT, t.floor, 1.0 if t.high_side == side else -1.0)
            hostler_block_maxima(r.score, whole, r.side_count, r.best + at, r.leader + at)
        for i in range(whole, r.level_size[0]):
            refresh_block(r, side, i)
        for level in range(1, r.levels):
            for i in range(r.level_size[level]):
                refresh_node(r, side, level, i)


cdef inline double root(ranking_t* r, int32_t side) noexcept nogil:
    return r.best[slot(r, side, r.level_start[r.levels - 1])]


cdef inline int64_t leading_row(ranking_t* r, int32_t side) noexcept nogil:
    cdef int64_t node = 0
    cdef int32_t level
    for level in range(r.levels - 1, -1, -1):
        node = node * FANOUT + r.leader[slot(r, side, r.level_start[level] + node)]
    return node


cdef inline double greatest_kept(ranking_t* r, int32_t side, int32_t level, int64_t node, double floor) noexcept nogil:
    """Greatest value of tree `side` below a node over rows that are not set aside, if it is above `floor`; else `floor`."""
    cdef double value
    cdef int64_t first = node * FANOUT, i, n
    if r.best[slot(r, side, r.level_start[level] + node)] <= floor:
        return floor
    if level == 0:
        n = min(first + FANOUT, r.fleet.rows)
        for i in range(first, n):
            if not r.aside[i]:
                value = side_value(r, side, i)
                if value > floor:
                    floor = value
        return floor
    n = min(first + FANOUT, r.level_size[level - 1])
    for i in range(first, n):
        floor = greatest_kept(r, side, level - 1, i, floor)
    return floor


cdef inline double side_end(ranking_t* r, int32_t side, bint some_aside) noexcept nogil:
    if some_aside and r.aside[leading_row(r, side)]:
        return greatest_kept(r, side, r.levels - 1, 0, -INFINITY)
    return root(r, side)


cdef inline void ask_for(ranking_t* r, int64_t row) noexcept nogil:
    """Have the memory that a changed row's turn will read brought near."""
    cdef columns_t* c = r.fleet
    cdef int64_t block = row // FANOUT
    cdef int32_t i
    HOSTLER_PREFETCH(c.class_of + row)
    HOSTLER_PREFETCH(r.stage + row)
    HOSTLER_PREFETCH(r.score + row)
    for i in range(r.need_count):
        HOSTLER_PREFETCH(c.avail + r.needs[i].resource * r.capacity + row)
    for i in range(r.bound_count):
        HOSTLER_PREFETCH(c.host + r.bounds[i].column * r.capacity + row)
    for i in range(r.term_count):
        if r.terms[i].source == SOURCE_COLUMN:
            HOSTLER_PREFETCH(c.host + r.terms[i].column * r.capacity + row)
    if r.packing:
        HOSTLER_PREFETCH(r.figures.vcpus_total + row)
        HOSTLER_PREFETCH(r.figures.cpu_ratio + row)
        HOSTLER_PREFETCH(r.figures.vcpus_used + row)
        HOSTLER_PREFETCH(r.figures.ram_total_mb + row)
        HOSTLER_PREFETCH(r.figures.ram_ratio + row)
        HOSTLER_PREFETCH(r.figures.free_ram_mb + row)
    HOSTLER_PREFETCH(r.best + slot(r, 0, block))
    HOSTLER_PREFETCH(r.best + slot(r, r.side_count, block))
    HOSTLER_PREFETCH(r.leader + slot(r, 0, block))
    HOSTLER_PREFETCH(r.leader + slot(r, r.side_count, block))
