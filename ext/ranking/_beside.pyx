"""The best rows of a ranking where some rows are left out, and others take part whatever its result for them is."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from ._ranking cimport Ranking
from ._state cimport ranking_t

cdef extern from "ranking/beside.h" nogil:
    ctypedef struct beside_t "ranking_beside_t":
        const int32_t* without
        const int32_t* rows
        const double* members
        int64_t without_count, count
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
