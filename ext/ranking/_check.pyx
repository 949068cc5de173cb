"""Assertions that what a ranking or the host index keeps is what a fresh look at every row gives. For tests. O(rows)."""

from libc.float cimport DBL_MAX
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t

from ._state cimport FANOUT, NOT_A_HOST, SOURCE_PACKING, STAGES, hostler_index, hostler_wrong_list, hostler_wrong_score, ranking_t, term_t

cdef extern from "ranking/trees.h" nogil:
    double formula_value "ranking_formula_value"(ranking_t* r, term_t* t, int64_t row)
    double side_value "ranking_side_value"(ranking_t* r, int32_t side, int64_t row)
    double stored_score "ranking_stored_score"(ranking_t* r, int64_t row)
    int64_t slot "ranking_slot"(ranking_t* r, int32_t side, int64_t node)
    uint8_t stage_of "ranking_stage_of"(ranking_t* r, int64_t row)


cdef int check_index(ranking_t* r) except -1:
    """Rows, classes and values of the host index."""
    cdef hostler_index* index = &r.shared.index
    cdef int64_t row, place
    cdef int32_t w, source
    assert index.rows == r.fleet.rows and index.seen == r.fleet.log_base + r.fleet.log_length, "rows of the index"
    for row in range(index.rows):
        place = index.place_of[row]
        assert index.row_at[place] == row, f"place of row {row}"
        assert index.class_at[place] == r.fleet.class_of[row], f"class of row {row}"
        assert not index.aside[row], f"row {row} left aside"
        for w in range(index.width):
            source = index.source[w]
            value = r.fleet.host[~source * r.capacity + row] if source < 0 else r.fleet.avail[source * r.capacity + row]
            assert index.values[(place // FANOUT * index.width + w) * FANOUT + place % FANOUT] == value, f"values of row {row}"
    assert hostler_wrong_score(index) < 0, f"reference score of row {hostler_wrong_score(index)}"
    assert hostler_wrong_list(index) < 0, f"counts of list {hostler_wrong_list(index)}"
    return 0


cdef int check_rows(ranking_t* r) except -1:
    """Stages, counts and trees of a ranking that keeps rows of its own."""
    cdef int64_t row, node, child
    cdef int32_t side, level
    cdef double value, greatest
    counts = [0] * STAGES
    for row in range(r.fleet.rows):
        assert r.stage[row] == stage_of(r, row), f"stage of row {row}"
        counts[r.stage[row]] += 1
        value = max(stored_score(r, row), -DBL_MAX) if r.stage[row] == 0 else -INFINITY
        assert r.score[row] == value, f"stored score of row {row}"
        assert not r.aside[row], f"row {row} left aside"
        for side in range(r.term_count):
            if r.terms[side].source == SOURCE_PACKING and r.stage[row] != NOT_A_HOST:
                assert r.terms[side].values[row] == formula_value(r, &r.terms[side], row), f"value of row {row}"
    assert counts == [r.counts[i] for i in range(STAGES)], "counts"
    for side in range(r.side_count + 1):
        for level in range(r.levels):
            for node in range(r.level_size[level]):
                greatest = -INFINITY
                leader = 0
                for child in range(node * FANOUT, (node + 1) * FANOUT):
                    if level == 0:
                        if child >= r.fleet.rows:
                            break
                        value = side_value(r, side, child)
                    else:
                        if child >= r.level_size[level - 1]:
                            break
                        value = r.best[slot(r, side, r.level_start[level - 1] + child)]
                    if value > greatest:
                        greatest = value
                        leader = child - node * FANOUT
                at = slot(r, side, r.level_start[level] + node)
                assert r.best[at] == greatest, f"side {side} level {level} node {node}"
                assert greatest == -INFINITY or r.leader[at] == leader, f"leader side {side} level {level} node {node}"
    return 0
