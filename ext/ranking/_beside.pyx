"""The best rows of a ranking where some rows are left out, and others take part whatever its result for them is."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

import numpy as np

from ._ranking cimport Ranking
from ._state cimport ranking_t

cdef extern from "ranking/beside.h" nogil:
    ctypedef struct beside_t "ranking_beside_t":
        const int32_t* without
        const int32_t* rows
        const double* members
        int64_t without_count, count
    enum:
        NOT_A_HOST
    uint8_t stage_of "ranking_stage_of"(ranking_t* r, int64_t row)
    int decide_beside "ranking_decide_beside"(ranking_t* r, const beside_t* b, int32_t wanted, uint64_t seed)


def best_beside(Ranking ranking not None, int32_t[::1] without not None, int32_t[::1] beside not None,
                double[::1] members=None, int32_t wanted=1, uint64_t seed=0):
    """``Ranking.best`` where the rows ``without`` are left out, and the rows ``beside`` (none of those) take part whatever their
    results are; ``members`` of the request's soft group on each of these, signed as in ``score_rows``. O(rows named) more than
    ``best``."""
    cdef beside_t b
    cdef Py_ssize_t i
    cdef int failed
    cdef double no_members = 0.0
    if wanted < 1:
        raise ValueError("wanted must be at least 1")
    if ranking.r.shuffle:
        raise ValueError("a ranking that shuffles chooses among its own rows only")
    if members is not None and members.shape[0] != beside.shape[0]:
        raise ValueError("rows and members differ in length")
    for i in range(without.shape[0]):
        ranking.columns.check_row(without[i])
    for i in range(beside.shape[0]):
        ranking.columns.check_row(beside[i])
    ranking.refresh()
    wanted = <int32_t>min(<int64_t>wanted, max(ranking.r.fleet.rows, 1))
    ranking.reserve_top(wanted)
    b.without = &without[0] if without.shape[0] else NULL
    b.without_count = without.shape[0]
    b.rows = &beside[0] if beside.shape[0] else NULL
    b.count = beside.shape[0]
    b.members = NULL
    if members is not None:
        # Of a soft group that no row beside has members of: its terms are weighed all the same.
        b.members = &members[0] if members.shape[0] else &no_members
    with nogil:
        failed = decide_beside(&ranking.r, &b, wanted, seed)
    if failed:
        raise ValueError("a row is named twice")
    found = range(ranking.r.found)
    return [ranking.r.top_row[i] for i in found], [ranking.r.top_score[i] for i in found]


def set_aside(Ranking ranking not None, masks, int64_t[::1] counts not None):
    """The rows that pass in the ranking, but that one of ``masks``, (uint8 by row, 0: refused; stage), refuses, int32, in order.
    ``counts``, rows by stage of the ranking alone, become those of the ranking and the masks together: a row is counted for the first
    stage that refuses it, masks among themselves in their order. O(rows)."""
    cdef const uint8_t* passes[255]
    cdef uint8_t numbers[255]
    cdef const uint8_t[::1] mask
    cdef int64_t rows = ranking.columns.c.rows, row, found = 0
    cdef int32_t i, n = <int32_t>len(masks)
    cdef uint8_t first, stage
    ranking.check_capacity()
    if n > 255:
        raise ValueError("more masks than stages")
    for i, (array, number) in enumerate(masks):
        mask = array
        if mask.shape[0] < rows or mask.shape[0] == 0:
            raise ValueError("a mask has one entry per row")
        if not 1 <= number < min(counts.shape[0], <Py_ssize_t>NOT_A_HOST):
            raise ValueError("a stage must be within [1, 254] and be counted")
        passes[i], numbers[i] = &mask[0], number
    aside = np.empty(rows, np.int32)
    cdef int32_t[::1] out = aside
    cdef bint counted = True
    with nogil:
        for row in range(rows):
            first = NOT_A_HOST
            for i in range(n):
                if not passes[i][row]:
                    first = numbers[i]
                    break
            if first == NOT_A_HOST:
                continue
            stage = stage_of(&ranking.r, row)
            if stage == NOT_A_HOST:
                continue
            if stage >= counts.shape[0]:
                counted = False
                break
            counts[stage] -= 1
            counts[first if stage == 0 else min(first, stage)] += 1
            if stage == 0:
                out[found] = <int32_t>row
                found += 1
    if not counted:
        raise ValueError("a stage of the ranking is not counted")
    return aside[:found]
