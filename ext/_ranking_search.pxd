"""The search of a ranking's trees for the best rows, and what chance has a part in."""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from ._ranking_scores cimport true_score
from ._ranking_state cimport FANOUT, HOSTLER_ASSERT_INDEX, ranking_t
from ._ranking_trees cimport slot

cdef extern from "draws.h":
    uint64_t hostler_word(uint64_t seed, uint64_t number) noexcept nogil
    int64_t hostler_below(uint64_t word, int64_t count) noexcept nogil


cdef inline void offer(ranking_t* r, int64_t row, double score) noexcept nogil:
    """Keep the `wanted` best rows in order: greater score first, then smaller row."""
    cdef int32_t i = r.found
    HOSTLER_ASSERT_INDEX(row, r.fleet.rows)
    HOSTLER_ASSERT_INDEX(i, r.wanted + 1)
    if i == r.wanted:
        if score < r.top_score[i - 1] or (score == r.top_score[i - 1] and row > r.top_row[i - 1]):
            return
        i -= 1
    else:
        r.found += 1
    while i > 0 and (score > r.top_score[i - 1] or (score == r.top_score[i - 1] and row < r.top_row[i - 1])):
        r.top_score[i] = r.top_score[i - 1]
        r.top_row[i] = r.top_row[i - 1]
        i -= 1
    r.top_score[i] = score
    r.top_row[i] = <int32_t>row


cdef inline bint hopeless(ranking_t* r, double bound, int64_t first_row) noexcept nogil:
    """No row from `first_row` on whose score is at most `bound` can enter the list."""
    cdef double least
    if r.found < r.wanted:
        return bound == -INFINITY
    least = r.top_score[r.wanted - 1]
    return bound < least or (bound == least and first_row > r.top_row[r.wanted - 1])


cdef inline void search_block(ranking_t* r, int64_t block) noexcept nogil:
    cdef int64_t row = block * FANOUT, n = min(row + FANOUT, r.fleet.rows), i
    cdef double least = r.top_score[r.wanted - 1] if r.found == r.wanted else -INFINITY
    for i in range(row, n):
        if r.score[i] + r.slack < least or hopeless(r, r.score[i] + r.slack, i) or r.aside[i] or r.score[i] == -INFINITY:
            continue
        r.work += 1
        offer(r, i, true_score(r, i, 0.0) if r.drifted else r.score[i])


cdef inline void search(ranking_t* r, int32_t level, int64_t node) noexcept nogil:
    """Offer the rows below a node that can still enter the list; the child with the best stored score first."""
    cdef double* best
    cdef int64_t first = node * FANOUT, i, n, leader
    cdef int64_t span = <int64_t>1 << (4 * level)
    if level == 0:
        search_block(r, node)
        return
    best = r.best + slot(r, r.side_count, r.level_start[level - 1])
    n = min(first + FANOUT, r.level_size[level - 1])
    leader = first + r.leader[slot(r, r.side_count, r.level_start[level] + node)]
    if not hopeless(r, best[leader] + r.slack, leader * span):
        search(r, level - 1, leader)
    for i in range(first, n):
        if i != leader and not hopeless(r, best[i] + r.slack, i * span):
            search(r, level - 1, i)


cdef inline void add_tie(ranking_t* r, int64_t row) noexcept nogil:
    HOSTLER_ASSERT_INDEX(r.tie_count, r.fleet.rows)
    r.ties[r.tie_count] = <int32_t>row
    r.tie_count += 1


cdef inline void search_ties(ranking_t* r, int32_t level, int64_t node, double best) noexcept nogil:
    """Add the rows below a node that are not set aside and have the score `best`, the greatest there is, to the ties."""
    cdef int64_t first = node * FANOUT, i
    if r.best[slot(r, r.side_count, r.level_start[level] + node)] + r.slack < best:
        return
    if level > 0:
        for i in range(first, min(first + FANOUT, r.level_size[level - 1])):
            search_ties(r, level - 1, i, best)
        return
    for i in range(first, min(first + FANOUT, r.fleet.rows)):
        if r.score[i] + r.slack < best or r.aside[i] or r.score[i] == -INFINITY:
            continue
        r.work += 1
        if (true_score(r, i, 0.0) if r.drifted else r.score[i]) == best:
            add_tie(r, i)


cdef inline int by_number(const void* one, const void* other) noexcept nogil:
    cdef int32_t left = (<int32_t*>one)[0], right = (<int32_t*>other)[0]
    return (left > right) - (left < right)


cdef inline int64_t drawn_below(ranking_t* r, int64_t count) noexcept nogil:
    r.drawn += 1
    return hostler_below(hostler_word(r.seed, r.drawn), count)


cdef inline void shuffle(ranking_t* r, int32_t* rows, int64_t count, int64_t first) noexcept nogil:
    """Draw which of `count` rows stand on the `first` positions."""
    cdef int64_t i, other
    cdef int32_t row
    for i in range(min(first, count - 1)):
        other = i + drawn_below(r, count - i)
        HOSTLER_ASSERT_INDEX(other, count)
        row = rows[i]
        rows[i] = rows[other]
        rows[other] = row
