"""The batch kernel: decide, claim, next: many placements and releases in one call."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from ._fleet cimport BUILDING, NAMED, Columns
from .ranking._ranking cimport Ranking
from .ranking._state cimport STAGES
from ._shapes cimport Shapes

cdef extern from "draws.h":
    uint64_t hostler_word(uint64_t seed, uint64_t number) noexcept nogil


def place(Columns columns not None, Shapes shapes not None, int32_t[::1] which, uint64_t[:, ::1] uuids, int32_t[::1] projects,
          int32_t[::1] users, int32_t[::1] groups, bint building, uint64_t seed, uint64_t sequence, int32_t[::1] out_row,
          int32_t[::1] out_consumer, double[::1] out_score, int64_t[:, ::1] out_counts):
    """Place guest i, of request shape ``which[i]``, one after the other, each seeing the claims before it.

    Guest i draws from word ``sequence + i`` of ``seed`` (draws.py). ``out_row[i]`` is the host, -1 if none passed. ``out_counts[i]``
    gets the rows by first refusing stage, as many stages as it is wide. Returns how many guests were processed: fewer than
    all if the uuid of the next one already exists.
    """
    cdef Py_ssize_t i, n = which.shape[0]
    cdef Py_ssize_t width = out_counts.shape[1], k
    cdef int64_t counts[STAGES]
    cdef Ranking ranking
    cdef int32_t row, consumer
    cdef uint8_t flags = BUILDING if building else 0
    if (uuids.shape[0] != n or uuids.shape[1] != 2 or projects.shape[0] != n or users.shape[0] != n or groups.shape[0] != n
            or out_row.shape[0] != n or out_consumer.shape[0] != n or out_score.shape[0] != n or out_counts.shape[0] != n
            or width > STAGES):
        raise ValueError("batch columns differ in length")
    if shapes.columns is not columns:
        raise ValueError("shapes of another fleet")
    for i in range(n):
        shapes.check(which[i])
        if groups[i] >= 0:
            columns.check_group(groups[i])
    columns.reserve_consumers(n)
    columns.reserve_log(n)
    reserve_groups(columns, groups)
    for i in range(n):
        ranking = shapes.ready(which[i])
        if ranking.r.shared != NULL and ranking.r.shared.failed:
            ranking.r.shared.failed = False
            for k in range(i - 1, -1, -1):
                if out_consumer[k] >= 0:
                    columns.drop(out_consumer[k])
            raise MemoryError
        ranking.decide(groups[i], 1, hostler_word(seed, sequence + i))
        shapes.note(which[i], ranking)
        if width == 0:
            pass
        elif groups[i] < 0:
            memcpy(&out_counts[i, 0], ranking.r.counts, width * sizeof(int64_t))
        else:
            ranking.tally(groups[i], counts)
            memcpy(&out_counts[i, 0], counts, width * sizeof(int64_t))
        out_row[i] = out_consumer[i] = -1
        out_score[i] = 0.0
        if ranking.r.found == 0:
            continue
        row = ranking.r.top_row[0]
        consumer = columns.add(uuids[i, 0], uuids[i, 1], row, shapes.sizes[shapes.shapes[which[i]].size].guest, projects[i], users[i],
                               groups[i], flags)
        if consumer < 0:
            return i
        out_row[i] = row
        out_consumer[i] = consumer
        out_score[i] = ranking.r.top_score[0]
    return n


def place_alike(Columns columns not None, Ranking ranking not None, int32_t shape, uint64_t[:, ::1] uuids not None, int32_t project,
                int32_t user, bint building, int32_t[::1] out_row, int32_t[::1] out_consumer, double[::1] out_score,
                double[:, :, ::1] out_parts):
    """Place guests of one shape, one after the other, each seeing the claims before it, for as long as the best row that passes is sure
    to be the one that Nova takes, which filters once for all of them.

    Returns how many were placed: fewer than all where no row passes, where (from the second guest on) two rows are equally good, where
    a claim leaves its row without room for one more while guests remain, or where a uuid exists. ``out_parts[i, j]``: raw,
    normalised and multiplier of term j of guest i's row. ValueError if the ranking draws.
    """
    cdef Py_ssize_t i, k, n = uuids.shape[0]
    cdef int32_t row, consumer
    cdef uint8_t flags = BUILDING if building else 0
    if (uuids.shape[1] != 2 or out_row.shape[0] != n or out_consumer.shape[0] != n or out_score.shape[0] != n
            or out_parts.shape[0] != n or out_parts.shape[1] != ranking.r.term_count or out_parts.shape[2] != 3):
        raise ValueError("batch columns differ in length")
    if ranking.columns is not columns:
        raise ValueError("a ranking of another fleet")
    if ranking.r.shuffle or ranking.r.subset != 1:
        raise ValueError("a ranking that draws")
    columns.check_shape(shape)
    ranking.check_capacity()
    ranking.reserve_top(2)
    columns.reserve_consumers(n)
    columns.reserve_log(n)
    for i in range(n):
        ranking.sync()
        if ranking.r.shared != NULL and ranking.r.shared.failed:
            ranking.r.shared.failed = False
            for k in range(i - 1, -1, -1):
                columns.drop(out_consumer[k])
            raise MemoryError
        ranking.decide(-1, 1 if i == 0 else 2, 0)
        if ranking.r.found == 0 or (ranking.r.found == 2 and ranking.r.top_score[0] == ranking.r.top_score[1]):
            return i
        row = ranking.r.top_row[0]
        out_row[i] = row
        out_score[i] = ranking.r.top_score[0]
        if ranking.r.term_count > 0:
            ranking.weigh_row(row, 0.0, &out_parts[i, 0, 0])
        consumer = columns.add(uuids[i, 0], uuids[i, 1], row, shape, project, user, -1, flags)
        if consumer < 0:
            return i
        out_consumer[i] = consumer
        if i + 1 < n and not ranking.passes(row):
            return i + 1
    return n


cdef int reserve_groups(Columns columns, int32_t[::1] groups) except -1:
    """Room in each group for all guests that name it."""
    cdef Py_ssize_t i
    for i in range(groups.shape[0]):
        if groups[i] >= 0:
            columns.groups[groups[i]].coming = 0
    for i in range(groups.shape[0]):
        if groups[i] >= 0:
            columns.groups[groups[i]].coming += 1
    for i in range(groups.shape[0]):
        if groups[i] >= 0:
            columns.reserve_group(groups[i], columns.groups[groups[i]].coming)
    return 0


def release(Columns columns not None, int32_t[::1] consumers):
    """Drop the consumers (distinct, alive) in order, or none of them."""
    cdef Py_ssize_t i
    cdef bint twice = False
    for i in range(consumers.shape[0]):
        columns.check_consumer(consumers[i])
    columns.reserve_log(consumers.shape[0])
    for i in range(consumers.shape[0]):
        twice = twice or columns.consumer_flags[consumers[i]] & NAMED
        columns.consumer_flags[consumers[i]] |= NAMED
    for i in range(consumers.shape[0]):
        columns.consumer_flags[consumers[i]] &= ~NAMED
    if twice:
        raise ValueError("a consumer is named twice")
    for i in range(consumers.shape[0]):
        columns.drop(consumers[i])


def find(Columns columns not None, uint64_t[:, ::1] uuids, int32_t[::1] out):
    """Consumer ids of ``uuids``, -1 where there is none."""
    cdef Py_ssize_t i
    if out.shape[0] != uuids.shape[0] or uuids.shape[1] != 2:
        raise ValueError("one id per uuid")
    for i in range(uuids.shape[0]):
        out[i] = columns.consumers.find(uuids[i, 0], uuids[i, 1])
