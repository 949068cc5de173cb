"""The batch kernel: decide, claim, next: many placements and releases in one call."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ._fleet cimport BUILDING, NAMED, Columns
from .ranking._ranking cimport Ranking
from .ranking._state cimport STAGES, ranking_t
from ._shapes cimport Shapes

cdef extern from "draws.h":
    uint64_t hostler_word(uint64_t seed, uint64_t number) noexcept nogil

cdef extern from "ranking/beside.h" nogil:
    ctypedef struct beside_t "ranking_beside_t":
        const int32_t* without
        const int32_t* rows
        const double* members
        int64_t without_count, count
    int decide_beside "ranking_decide_beside"(ranking_t* r, const beside_t* b, int32_t wanted, uint64_t seed)


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


cdef class Bounds:
    """Ranges of host columns."""

    cdef int32_t count
    cdef int32_t* columns
    cdef double* ends

    def __dealloc__(self):
        free(self.columns)
        free(self.ends)

    def __init__(self, Columns columns, given):
        cdef int32_t i
        if self.columns != NULL:
            raise RuntimeError("bounds are made once")
        self.columns = <int32_t*>malloc((len(given) + 1) * sizeof(int32_t))
        self.ends = <double*>malloc((2 * len(given) + 1) * sizeof(double))
        if self.columns == NULL or self.ends == NULL:
            raise MemoryError
        for i, (column, low, high) in enumerate(given):
            if not 0 <= column < columns.arrays[1].shape[0]:
                raise IndexError("column out of range")
            self.columns[i], self.ends[2 * i], self.ends[2 * i + 1] = column, low, high
            self.count = i + 1

    cdef bint hold(self, Columns columns, int32_t row) noexcept:
        """Whether all values of a row are within."""
        cdef int32_t i
        cdef double value
        for i in range(self.count):
            value = columns.c.host[self.columns[i] * columns.c.capacity + row]
            if not self.ends[2 * i] <= value <= self.ends[2 * i + 1]:
                return False
        return True


cdef class Claims:
    """Rows that guests of one request were claimed on and that do not pass any more: ``beside`` are still weighed, whether or not they
    have room; ``without`` are not."""

    cdef int32_t* beside
    cdef int32_t* without
    cdef int64_t beside_count, without_count

    def __cinit__(self, int64_t room):
        self.beside = <int32_t*>malloc((room + 1) * sizeof(int32_t))
        self.without = <int32_t*>malloc((room + 1) * sizeof(int32_t))
        if self.beside == NULL or self.without == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.beside)
        free(self.without)

    cdef int64_t place_of(self, int32_t row) noexcept:
        """Position of a row among those beside; -1 if it is none of them."""
        cdef int64_t k
        for k in range(self.beside_count):
            if self.beside[k] == row:
                return k
        return -1

    cdef void take(self, int32_t row, bint weighed) noexcept:
        """Take in a row that does not pass after a claim."""
        cdef int64_t k = self.place_of(row)
        if weighed:
            if k < 0:
                self.beside[self.beside_count] = row
                self.beside_count += 1
            return
        if k >= 0:
            self.beside_count -= 1
            self.beside[k] = self.beside[self.beside_count]
        self.without[self.without_count] = row
        self.without_count += 1


cdef int32_t choose(Columns columns, Ranking ranking, Claims claims, int32_t shape, bint first) noexcept:
    """Place in the ranking's list of the row for the next guest; -1 if that is not sure. The ranking has caught up, and its list has
    room."""
    cdef beside_t b
    cdef int32_t k, found = -1
    cdef ranking_t* r = &ranking.r
    if claims.beside_count + claims.without_count == 0:
        ranking.decide(-1, 1 if first else 2, 0)
        return -1 if r.found == 0 or (r.found == 2 and r.top_score[0] == r.top_score[1]) else 0
    b.without, b.rows, b.members = claims.without, claims.beside, NULL
    b.without_count, b.count = claims.without_count, claims.beside_count
    if decide_beside(r, &b, <int32_t>min(claims.beside_count + 2, r.fleet.rows), 0):
        return -1
    for k in range(r.found):
        if claims.place_of(r.top_row[k]) >= 0 and not columns.fits(r.top_row[k], shape):
            continue
        if found >= 0:
            return found if r.top_score[k] != r.top_score[found] else -1
        found = k
    return found


def place_alike(Columns columns not None, Ranking ranking not None, int32_t shape, uint64_t[:, ::1] uuids not None, int32_t project,
                int32_t user, bint building, again, int32_t[::1] out_row, int32_t[::1] out_consumer, double[::1] out_score,
                double[:, :, ::1] out_parts):
    """Place guests of one shape, one after the other, each seeing the claims before it, for as long as the best row that passes is sure
    to be the one that Nova takes, which filters once for all of them.

    ``again``: (column, low, high) of what is judged for each guest again: a row of a claim outside is left out; one that does not pass
    in the ranking for other reasons is weighed with the others, and taken if it has room.

    Returns how many were placed: fewer than all where no row passes, where (from the second guest on) two rows are equally good, where
    one row at most is left because others are left out, or where a uuid exists. ``out_parts[i, j]``: raw, normalised and multiplier of
    term j of guest i's row. ValueError if the ranking draws; IndexError for a column that there is not.
    """
    cdef Py_ssize_t i, k, n = uuids.shape[0]
    cdef int32_t row, consumer, at
    cdef int64_t passing = 0
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
    cdef Bounds bounds = Bounds(columns, again)
    cdef Claims claims = Claims(n)
    ranking.reserve_top(n + 2)
    columns.reserve_consumers(n)
    columns.reserve_log(n)
    for i in range(n):
        ranking.sync()
        if ranking.r.shared != NULL and ranking.r.shared.failed:
            ranking.r.shared.failed = False
            for k in range(i - 1, -1, -1):
                columns.drop(out_consumer[k])
            raise MemoryError
        if claims.without_count and passing - claims.without_count <= 1:
            return i
        at = choose(columns, ranking, claims, shape, i == 0)
        if at < 0:
            return i
        if i == 0:
            passing = ranking.r.counts[0]
        row = ranking.r.top_row[at]
        out_row[i] = row
        out_score[i] = ranking.r.top_score[at]
        if ranking.r.term_count > 0:
            ranking.weigh_row(row, 0.0, &out_parts[i, 0, 0])
        consumer = columns.add(uuids[i, 0], uuids[i, 1], row, shape, project, user, -1, flags)
        if consumer < 0:
            return i
        out_consumer[i] = consumer
        if not ranking.passes(row):
            claims.take(row, bounds.hold(columns, row))
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
