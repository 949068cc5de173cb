"""Request shapes by number: a ranking, and the amounts that guests of this size need. It decides nothing.

Any number of shapes share one ranking, which searches the host index with the amounts of the shape at hand. A shape that is asked for
often enough gets a ranking of its own that keeps rows, within the bytes that the index allows for all of them.
"""

from cpython.list cimport PyList_GET_ITEM
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

import numpy as np

from ._fleet cimport Columns
from .ranking._ranking cimport Ranking


cdef class Shapes:
    """The shapes of requests on one fleet's columns."""

    def __init__(self, Columns columns not None):
        self.columns = columns
        self.rankings, self.searchers, self.own, self.numbers = [], [], [], {}

    def __dealloc__(self):
        free(self.shapes)
        free(self.sizes)

    def __len__(self):
        """Shapes so far."""
        return len(self.own)

    def add_ranking(self, Ranking ranking not None):
        """Take in a ranking and return its number."""
        if ranking.columns is not self.columns:
            raise ValueError("a ranking of another fleet")
        self.rankings.append(ranking)
        self.searchers.append(None)
        return len(self.rankings) - 1

    def add_size(self, int32_t guest, amounts=None):
        """Take in a size and return its number. ``guest``: shape of the consumers that are added; ``amounts``: of what the ranking
        needs, in its order, at most eight; None: those that the ranking was made with."""
        cdef size_row_t* grown
        cdef size_row_t made
        if amounts is not None and len(amounts) > AMOUNTS:
            raise ValueError("too many amounts")
        if self.size_count == self.size_room:
            grown = <size_row_t*>realloc(self.sizes, (2 * self.size_room + 16) * sizeof(size_row_t))
            if grown == NULL:
                raise MemoryError
            self.sizes = grown
            self.size_room = 2 * self.size_room + 16
        memset(&made, 0, sizeof(size_row_t))
        made.guest = guest
        made.count = -1 if amounts is None else <int32_t>len(amounts)
        for i in range(max(made.count, 0)):
            made.amounts[i] = amounts[i]
        self.sizes[self.size_count] = made
        self.size_count += 1
        return self.size_count - 1

    def number(self, int32_t ranking, int32_t size):
        """The number of the shape of a ranking and a size, a new one if they have none. O(1), amortised."""
        return self.number_of(ranking, size)

    cdef int32_t number_of(self, int32_t ranking, int32_t size) except -1:
        cdef shape_t* grown
        cdef int64_t count = len(self.own)
        key = (<int64_t>ranking << 32) | size
        known = self.numbers.get(key)
        if known is not None:
            return known
        if not 0 <= ranking < len(self.rankings) or not 0 <= size < self.size_count:
            raise IndexError("ranking or size out of range")
        if self.sizes[size].count not in (-1, (<Ranking>self.rankings[ranking]).r.need_count):
            raise ValueError("the amounts differ in number from what the ranking needs")
        if self.sizes[size].count >= 0 and (<Ranking>self.rankings[ranking]).r.shared == NULL:
            raise ValueError("a ranking that searches no index has the amounts that it was made with")
        if self.sizes[size].count >= 0 and self.searchers[ranking] is None:
            self.searchers[ranking] = (<Ranking>self.rankings[ranking]).another()
        if count == self.room:
            grown = <shape_t*>realloc(self.shapes, (2 * self.room + 16) * sizeof(shape_t))
            if grown == NULL:
                raise MemoryError
            self.shapes = grown
            self.room = 2 * self.room + 16
        memset(&self.shapes[count], 0, sizeof(shape_t))
        self.shapes[count].ranking = ranking
        self.shapes[count].size = size
        self.shapes[count].way.asked = self.columns.c.log_base + self.columns.c.log_length
        self.own.append(None)
        self.numbers[key] = count
        return <int32_t>count

    def forget(self):
        """Drop all shapes, and rankings of their own with them; rankings and sizes stay."""
        self.numbers.clear()
        self.own = []

    def rankings_and_sizes(self, int32_t[::1] which):
        """The number of the ranking and of the size of each shape, as two int32 arrays."""
        cdef Py_ssize_t i, n = which.shape[0]
        rankings, sizes = np.empty(n, np.int32), np.empty(n, np.int32)
        cdef int32_t[::1] ranking = rankings, size = sizes
        for i in range(n):
            if not 0 <= which[i] < len(self.own):
                raise IndexError("shape out of range")
            ranking[i] = self.shapes[which[i]].ranking
            size[i] = self.shapes[which[i]].size
        return rankings, sizes

    @property
    def nbytes(self):
        """Bytes of the table, without the rankings."""
        return self.room * sizeof(shape_t) + self.size_room * sizeof(size_row_t) + len(self.own) * 150

    @property
    def with_rows(self):
        """Shapes that have a ranking of their own at present."""
        return [shape for shape, ranking in enumerate(self.own) if ranking is not None]

    cdef int check(self, int32_t shape) except -1:
        """IndexError if there is no such shape, or no such consumers; RuntimeError if the columns moved."""
        cdef Ranking ranking
        if not 0 <= shape < len(self.own):
            raise IndexError("shape out of range")
        self.columns.check_shape(self.sizes[self.shapes[shape].size].guest)
        ranking = <Ranking>PyList_GET_ITEM(self.rankings, self.shapes[shape].ranking)
        ranking.check_capacity()
        ranking.reserve_top(1)
        return 0

    cdef Ranking ready(self, int32_t shape):
        """The ranking that decides for a shape, caught up with the change log. `check` was called."""
        cdef shape_t* s = &self.shapes[shape]
        cdef size_row_t* size = &self.sizes[s.size]
        cdef object own = <object>PyList_GET_ITEM(self.own, shape)
        cdef Ranking ranking
        cdef int32_t i
        if own is not None:
            ranking = <Ranking>own
            ranking.sync()
            if not ranking.r.held:
                s.way = ranking.r.way
                self.own[shape] = None
            return ranking
        if size.count < 0:
            ranking = <Ranking>PyList_GET_ITEM(self.rankings, s.ranking)
            ranking.sync()
            return ranking
        ranking = <Ranking>PyList_GET_ITEM(self.searchers, s.ranking)
        # What the search for the shape before visited is as good a guess for this one as any, until it was asked for once.
        s.way.visited = s.way.visited or ranking.r.way.visited
        if ranking.worth(&s.way) > 0:
            own = ranking.another()
            ranking = <Ranking>own
            for i in range(size.count):
                ranking.r.needs[i].amount = size.amounts[i]
            ranking.r.way = s.way
            if ranking.keep_rows():
                self.own[shape] = own
                ranking.sync()
                return ranking
            ranking = <Ranking>PyList_GET_ITEM(self.searchers, s.ranking)
        ranking.search_as(size.amounts)
        return ranking

    cdef void note(self, int32_t shape, Ranking ranking) noexcept:
        """Note what the decision for a shape that `ranking` has just made took."""
        self.shapes[shape].way.visited = ranking.r.way.visited
