"""The pools kernel: Cinder's capacity rule over pool columns, consumption, and many placements in one call.

Doubles are rounded to two decimals exactly as Python's round does: where a product with 100 is ambiguous, Python's
``round`` decides.
"""

from libc.math cimport INFINITY, NAN, fabs, floor, isnan, rint
from libc.stdint cimport int32_t, int64_t

from ._fleet cimport Columns
from .ranking._ranking cimport Ranking
from .ranking._state cimport STAGES

cdef double SURE = 2.0 ** 42
"""Below this, a product with 100 is off by less than a thousandth."""


cdef double cents(double x) except? -1.25e300:
    """round(x, 2)"""
    cdef double y = x * 100.0
    cdef double n = rint(y)
    if fabs(y) < SURE and fabs(y - n) < 0.499:
        return n / 100.0
    return <double>round(x, 2)


cdef int derive_row(double* block, int64_t stride, int32_t row) except -1:
    """Room and virtual free capacity of one row, thin and thick."""
    cdef double* at = block + row
    cdef double total = at[TOTAL * stride], free = at[FREE * stride], provisioned = at[PROVISIONED * stride]
    cdef double ratio = at[RATIO * stride]
    cdef double base, available, virtual, most
    if at[BOUNDED * stride] == 0.0:
        at[ROOM_THIN * stride] = at[ROOM_THICK * stride] = INFINITY if at[ENDLESS * stride] != 0.0 else -INFINITY
        at[VIRTUAL_THIN * stride] = at[VIRTUAL_THICK * stride] = -1.0
        return 0
    # Python's floor is a whole number, which has no -0.0; adding 0.0 removes the sign.
    base = total - (floor(total * (at[RESERVED_PERCENTAGE * stride] / 100.0)) + 0.0)
    virtual = base - provisioned
    if free < virtual:
        virtual = free
    virtual = cents(virtual)
    at[VIRTUAL_THICK * stride] = virtual
    at[ROOM_THICK * stride] = floor(virtual) if total > 0.0 else -INFINITY
    if at[THIN * stride] == 0.0:
        at[VIRTUAL_THIN * stride] = virtual
        at[ROOM_THIN * stride] = at[ROOM_THICK * stride]
        return 0
    available = base * ratio
    virtual = cents(available - provisioned)
    available = cents(available)
    at[VIRTUAL_THIN * stride] = virtual
    if total <= 0.0 or ratio < 1.0 or available == 0.0:
        at[ROOM_THIN * stride] = -INFINITY
        return 0
    most = floor(virtual)
    if (provisioned + most) / available > ratio:
        most = min(most, floor(ratio * available - provisioned) + 1.0)
        while (provisioned + most) / available > ratio:
            most -= 1.0
    at[ROOM_THIN * stride] = most
    return 0


cdef int consume_row(double* block, int64_t stride, int32_t row, double size, double now) except -1:
    """Take ``size`` GiB of one row; ``now`` NaN leaves the time."""
    cdef double* at = block + row
    at[ALLOCATED * stride] += size
    at[PROVISIONED * stride] += size
    if at[COUNTED * stride] != 0.0:
        at[FREE * stride] -= size
    if not isnan(now):
        at[UPDATED * stride] = now
    return derive_row(block, stride, row)


cdef int check_block(double[:, ::1] block, int64_t row) except -1:
    if block.shape[0] < POOL_COLUMNS:
        raise ValueError("pool block lacks columns")
    if row < 0 or row >= block.shape[1]:
        raise IndexError("row out of range")
    return 0


def derive(double[:, ::1] block not None, int32_t[::1] rows not None):
    """Compute room and virtual free capacity of rows from their other columns."""
    cdef Py_ssize_t i
    for i in range(rows.shape[0]):
        check_block(block, rows[i])
    for i in range(rows.shape[0]):
        derive_row(&block[0, 0], block.shape[1], rows[i])


def consume(double[:, ::1] block not None, int32_t row, double size, double now):
    """Take ``size`` GiB of a row (give back: negative) at ``now`` (NaN: the time stays)."""
    check_block(block, row)
    consume_row(&block[0, 0], block.shape[1], row, size, now)


def place(Columns columns not None, double[:, ::1] block not None, list rankings not None, int32_t[::1] which not None,
          double[::1] sizes not None, double now, int32_t[::1] out_row not None, double[::1] out_score not None,
          int64_t[:, ::1] out_counts not None):
    """Place volume i of ``sizes[i]`` GiB by ranking ``which[i]``, one after the other, each seeing those before it.

    ``out_row[i]`` is the pool, -1 if none passed. ``out_counts[i]`` gets the rows by first refusing stage, as many
    stages as it is wide. The block must be the one that the columns are attached to. MemoryError: then nothing is placed.
    """
    cdef Py_ssize_t i, k, n = which.shape[0], width = out_counts.shape[1]
    cdef int64_t counts[STAGES]
    cdef Ranking ranking
    cdef int32_t row
    if sizes.shape[0] != n or out_row.shape[0] != n or out_score.shape[0] != n or out_counts.shape[0] != n or width > STAGES:
        raise ValueError("batch columns differ in length")
    check_block(block, 0)
    if columns.c.host != &block[0, 0]:
        raise ValueError("a block of other columns")
    for i in range(n):
        if which[i] < 0 or which[i] >= len(rankings):
            raise IndexError("ranking out of range")
    for each in rankings:
        ranking = <Ranking?>each
        if ranking.columns is not columns:
            raise ValueError("a ranking of other columns")
        ranking.check_capacity()
        ranking.reserve_top(1)
    columns.reserve_log(2 * n)  # also to undo them
    for i in range(n):
        ranking = <Ranking>rankings[which[i]]
        ranking.sync()
        if ranking.r.shared != NULL and ranking.r.shared.failed:
            ranking.r.shared.failed = False
            for k in range(i - 1, -1, -1):
                row = out_row[k]
                if row >= 0:
                    consume_row(&block[0, 0], block.shape[1], row, -sizes[k], NAN)
                    block[VOLUMES, row] -= 1.0
                    columns.touch(row)
            raise MemoryError
        ranking.decide(-1, 1, 0)
        ranking.tally(-1, counts)
        for k in range(width):
            out_counts[i, k] = counts[k]
        out_row[i] = -1
        out_score[i] = 0.0
        if ranking.r.found == 0:
            continue
        row = ranking.r.top_row[0]
        out_row[i] = row
        out_score[i] = ranking.r.top_score[0]
        consume_row(&block[0, 0], block.shape[1], row, sizes[i], now)
        block[VOLUMES, row] += 1.0
        columns.touch(row)
