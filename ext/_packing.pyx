"""Kernels of vector bin packing: items are rows of whole numbers, all bins have one capacity, items are never divided.

The heuristics are the standard ones; ``eliminate`` is a guided ejection search that empties one bin of a packing.
Random choices depend only on the seed.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

import numpy as np

cdef int64_t ENDLESS = (<int64_t>1) << 62
cdef int64_t BOUND = (<int64_t>1) << 40
"""Greatest size: two thousand million of them can be added."""


cdef struct packing_t:
    int64_t* size        # [items][dimensions]
    int64_t* capacity    # [dimensions]
    int64_t* free        # [bins][dimensions]
    int32_t* bin_of      # [items] -1: in none
    int32_t* first       # [bins] the item that came last, -1: empty
    int32_t* following   # [items] the next item of the same bin, -1: none
    int32_t* before      # [items]
    int32_t items, dimensions, bins


cdef inline bint fits(packing_t* p, int32_t item, int32_t bin) noexcept nogil:
    cdef int32_t d
    for d in range(p.dimensions):
        if p.size[item * p.dimensions + d] > p.free[bin * p.dimensions + d]:
            return False
    return True


cdef inline bint fits_without(packing_t* p, int32_t item, int32_t bin, int32_t out, int32_t other) noexcept nogil:
    """Whether the item fits once ``out`` and ``other`` (-1: none) have left the bin."""
    cdef int32_t d, n = p.dimensions
    cdef int64_t room
    for d in range(n):
        room = p.free[bin * n + d] + p.size[out * n + d]
        if other >= 0:
            room += p.size[other * n + d]
        if p.size[item * n + d] > room:
            return False
    return True


cdef inline void enter(packing_t* p, int32_t item, int32_t bin) noexcept nogil:
    cdef int32_t d, head = p.first[bin]
    for d in range(p.dimensions):
        p.free[bin * p.dimensions + d] -= p.size[item * p.dimensions + d]
    p.bin_of[item] = bin
    p.following[item] = head
    p.before[item] = -1
    if head >= 0:
        p.before[head] = item
    p.first[bin] = item


cdef inline void leave(packing_t* p, int32_t item) noexcept nogil:
    cdef int32_t d, bin = p.bin_of[item]
    for d in range(p.dimensions):
        p.free[bin * p.dimensions + d] += p.size[item * p.dimensions + d]
    if p.before[item] >= 0:
        p.following[p.before[item]] = p.following[item]
    else:
        p.first[bin] = p.following[item]
    if p.following[item] >= 0:
        p.before[p.following[item]] = p.before[item]
    p.bin_of[item] = -1


cdef int open_packing(packing_t* p, int64_t[:, ::1] sizes, int64_t[::1] capacity, int32_t bins) except -1:
    """Room for so many bins, all empty; ValueError unless every item fits an empty bin."""
    cdef Py_ssize_t i, d
    p.items, p.dimensions, p.bins = <int32_t>sizes.shape[0], <int32_t>sizes.shape[1], bins
    if capacity.shape[0] != sizes.shape[1] or sizes.shape[1] == 0:
        raise ValueError("items and capacity differ in dimensions")
    for i in range(sizes.shape[0]):
        for d in range(sizes.shape[1]):
            if not -BOUND <= sizes[i, d] <= capacity[d] <= BOUND:
                raise ValueError("a size is above the capacity, or too large")
    p.size = &sizes[0, 0] if sizes.shape[0] else NULL
    p.capacity = &capacity[0]
    p.free = <int64_t*>malloc(max(bins, 1) * p.dimensions * sizeof(int64_t))
    p.bin_of = <int32_t*>malloc(max(p.items, 1) * sizeof(int32_t))
    p.first = <int32_t*>malloc(max(bins, 1) * sizeof(int32_t))
    p.following = <int32_t*>malloc(max(p.items, 1) * sizeof(int32_t))
    p.before = <int32_t*>malloc(max(p.items, 1) * sizeof(int32_t))
    if p.free == NULL or p.bin_of == NULL or p.first == NULL or p.following == NULL or p.before == NULL:
        close_packing(p)
        raise MemoryError
    for i in range(bins):
        p.first[i] = -1
        memcpy(p.free + i * p.dimensions, p.capacity, p.dimensions * sizeof(int64_t))
    for i in range(p.items):
        p.bin_of[i] = -1
    return 0


cdef void close_packing(packing_t* p) noexcept nogil:
    free(p.free)
    free(p.bin_of)
    free(p.first)
    free(p.following)
    free(p.before)


cdef answer(packing_t* p):
    result = np.empty(p.items, np.int32)
    cdef int32_t[::1] view = result
    cdef int32_t i
    for i in range(p.items):
        view[i] = p.bin_of[i]
    return result


cdef inline double load_of(packing_t* p, int32_t bin, int32_t item, int32_t norm) noexcept nogil:
    """Size of what is free in a bin, in parts of the capacity, after the item came (-1: as it is): the sum over the
    dimensions (norm 1), of squares (2), or the greatest (3)."""
    cdef int32_t d
    cdef double total = 0.0, part
    for d in range(p.dimensions):
        if p.capacity[d] == 0:
            continue
        part = <double>p.free[bin * p.dimensions + d]
        if item >= 0:
            part -= <double>p.size[item * p.dimensions + d]
        part /= <double>p.capacity[d]
        if norm == 1:
            total += part
        elif norm == 2:
            total += part * part
        elif part > total:
            total = part
    return total


def fit_in_turn(int64_t[:, ::1] sizes, int64_t[::1] capacity, int32_t[::1] order, int32_t norm):
    """Items in ``order``, each into the first bin that it fits (norm 0), or into the one in which least is then free by
    the norm (1: sum, 2: sum of squares, 3: greatest; the first of equals); a new bin if it fits none. Returns the bin
    of each item, int32[items]."""
    cdef packing_t p
    cdef int32_t used = 0, item, bin, best
    cdef Py_ssize_t i
    cdef double least, load
    check_order(order, sizes.shape[0])
    if not 0 <= norm <= 3:
        raise ValueError("norm must be within [0, 3]")
    open_packing(&p, sizes, capacity, <int32_t>sizes.shape[0])
    try:
        with nogil:
            for i in range(order.shape[0]):
                item = order[i]
                best = used
                least = 1e300
                for bin in range(used):
                    if not fits(&p, item, bin):
                        continue
                    if norm == 0:
                        best = bin
                        break
                    load = load_of(&p, bin, item, norm)
                    if load < least:
                        least = load
                        best = bin
                enter(&p, item, best)
                if best == used:
                    used += 1
        return answer(&p)
    finally:
        close_packing(&p)


def fill_in_turn(int64_t[:, ::1] sizes, int64_t[::1] capacity, int32_t[::1] order, int32_t rule):
    """Bins one after the other, each filled with the item that suits it best while one fits: rule 1 takes the greatest
    dot product of what is free and what the item takes, rule 2 the least sum of squares of what is free then, both in
    parts of the capacity; the first of equals in ``order``. Returns the bin of each item, int32[items]."""
    cdef packing_t p
    cdef int32_t bin = 0, item, best, d, left
    cdef Py_ssize_t i
    cdef double value, greatest, scale
    check_order(order, sizes.shape[0])
    if not 1 <= rule <= 2:
        raise ValueError("rule must be 1 or 2")
    open_packing(&p, sizes, capacity, <int32_t>sizes.shape[0])
    try:
        with nogil:
            left = p.items
            while left:
                best = -1
                greatest = 0.0
                for i in range(order.shape[0]):
                    item = order[i]
                    if p.bin_of[item] >= 0 or not fits(&p, item, bin):
                        continue
                    if rule == 2:
                        value = -load_of(&p, bin, item, 2)
                    else:
                        value = 0.0
                        for d in range(p.dimensions):
                            if p.capacity[d]:
                                scale = <double>p.capacity[d]
                                value += (p.free[bin * p.dimensions + d] / scale) * (p.size[item * p.dimensions + d] / scale)
                    if best < 0 or value > greatest:
                        greatest = value
                        best = item
                if best < 0:
                    bin += 1
                else:
                    enter(&p, best, bin)
                    left -= 1
        return answer(&p)
    finally:
        close_packing(&p)


cdef int check_order(int32_t[::1] order, Py_ssize_t items) except -1:
    cdef Py_ssize_t i
    if order.shape[0] != items:
        raise ValueError("order must name each item once")
    seen = np.zeros(items, np.uint8)
    cdef unsigned char[::1] view = seen
    for i in range(items):
        if not 0 <= order[i] < items or view[order[i]]:
            raise ValueError("order must name each item once")
        view[order[i]] = 1
    return 0


cdef inline uint64_t draw(uint64_t* state) noexcept nogil:
    """xorshift64*."""
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * <uint64_t>2685821657736338717


cdef inline int32_t below(uint64_t* state, int32_t count) noexcept nogil:
    return <int32_t>(((draw(state) >> 32) * <uint64_t>count) >> 32)


cdef struct ejection_t:
    int32_t bin, out, other
    int64_t cost
    int32_t equals


cdef inline void propose(ejection_t* e, uint64_t* state, int32_t bin, int32_t out, int32_t other, int64_t cost) noexcept nogil:
    """Keep the cheapest ejection; equal ones with equal probability."""
    if cost < e.cost:
        e.equals = 1
    else:
        e.equals += 1
        if below(state, e.equals) != 0:
            return
    e.bin, e.out, e.other, e.cost = bin, out, other, cost


cdef void cheapest(packing_t* p, int32_t item, int64_t* penalty, uint64_t* state, ejection_t* e) noexcept nogil:
    """Find the bin and the one or two items to eject from it so that ``item`` fits, with the least penalties
    together."""
    cdef int32_t bin, out, other
    e.cost, e.bin, e.equals = ENDLESS, -1, 0
    for bin in range(p.bins):
        out = p.first[bin]
        while out >= 0:
            if penalty[out] <= e.cost and fits_without(p, item, bin, out, -1):
                propose(e, state, bin, out, -1, penalty[out])
            out = p.following[out]
    for bin in range(p.bins):
        out = p.first[bin]
        while out >= 0:
            if penalty[out] < e.cost:
                other = p.following[out]
                while other >= 0:
                    if penalty[out] + penalty[other] <= e.cost and fits_without(p, item, bin, out, other):
                        propose(e, state, bin, out, other, penalty[out] + penalty[other])
                    other = p.following[other]
            out = p.following[out]


cdef inline bint can_swap(packing_t* p, int32_t one, int32_t two) noexcept nogil:
    return (fits_without(p, two, p.bin_of[one], one, -1) and fits_without(p, one, p.bin_of[two], two, -1))


cdef inline bint can_leave(packing_t* p, int32_t item) noexcept nogil:
    """Whether what is left in the item's bin fits it: not so where the item's negative size made room."""
    cdef int32_t d
    for d in range(p.dimensions):
        if p.free[p.bin_of[item] * p.dimensions + d] + p.size[item * p.dimensions + d] < 0:
            return False
    return True


cdef void stir(packing_t* p, int32_t times, uint64_t* state) noexcept nogil:
    """Move single items, and swap pairs, of different bins at random, as far as they fit."""
    cdef int32_t k, one, two, bin, home
    for k in range(times):
        one = below(state, p.items)
        two = below(state, p.items)
        if p.bin_of[one] < 0 or p.bin_of[two] < 0 or p.bin_of[one] == p.bin_of[two]:
            continue
        bin, home = p.bin_of[two], p.bin_of[one]
        if fits(p, one, bin) and can_leave(p, one):
            leave(p, one)
            enter(p, one, bin)
        elif can_swap(p, one, two):
            leave(p, one)
            leave(p, two)
            enter(p, one, bin)
            enter(p, two, home)


def eliminate(int64_t[:, ::1] sizes, int64_t[::1] capacity, int32_t[::1] bins, int32_t count, int64_t steps, int32_t stirs,
              uint64_t seed):
    """Try to pack into ``count - 1`` bins what ``bins`` (the bin of each item, below ``count``) packs into ``count``.

    The emptiest bin is dissolved. Its items are pushed in one by one; what does not fit ejects the one or two items
    that have been hard to place least often, and these come next; after each ejection ``stirs`` random moves and swaps
    are tried. Gives up after ``steps`` insertions. Returns (the bin of each item, or None; the steps taken).
    """
    cdef packing_t p
    cdef Py_ssize_t i
    cdef int32_t d, item, bin, victim = 0, waiting = 0, out
    cdef int64_t step = 0
    cdef double load, greatest = -1.0
    cdef uint64_t state = seed * <uint64_t>0x9E3779B97F4A7C15 + 1
    cdef int64_t* penalty = NULL
    cdef int32_t* queue = NULL
    cdef ejection_t e
    if bins.shape[0] != sizes.shape[0] or count < 2 or stirs < 0:
        raise ValueError("a packing of at least two bins is wanted")
    open_packing(&p, sizes, capacity, count)
    try:
        for i in range(p.items):
            if not 0 <= bins[i] < count:
                raise ValueError("that is no packing")
            enter(&p, <int32_t>i, bins[i])
        for i in range(count * p.dimensions):
            if p.free[i] < 0:
                raise ValueError("that is no packing")
        penalty = <int64_t*>calloc(max(p.items, 1), sizeof(int64_t))
        queue = <int32_t*>malloc(max(p.items, 1) * sizeof(int32_t))
        if penalty == NULL or queue == NULL:
            raise MemoryError
        with nogil:
            if state == 0:
                state = 1
            for bin in range(count):
                load = load_of(&p, bin, -1, 1)
                if load > greatest:
                    greatest = load
                    victim = bin
            while p.first[victim] >= 0:
                item = p.first[victim]
                leave(&p, item)
                queue[waiting] = item
                waiting += 1
            # The last bin takes the number of the one that is gone.
            while victim != count - 1 and p.first[count - 1] >= 0:
                item = p.first[count - 1]
                leave(&p, item)
                enter(&p, item, victim)
            p.bins = count - 1
            while waiting and step < steps:
                step += 1
                waiting -= 1
                item = queue[waiting]
                bin = 0
                while bin < p.bins and not fits(&p, item, bin):
                    bin += 1
                if bin < p.bins:
                    enter(&p, item, bin)
                    continue
                penalty[item] += 1
                cheapest(&p, item, penalty, &state, &e)
                if e.bin < 0:
                    # Only an empty bin has room for it: take any, and all that is in it.
                    e.bin = below(&state, p.bins)
                    while p.first[e.bin] >= 0:
                        out = p.first[e.bin]
                        leave(&p, out)
                        queue[waiting] = out
                        waiting += 1
                else:
                    leave(&p, e.out)
                    queue[waiting] = e.out
                    waiting += 1
                    if e.other >= 0:
                        leave(&p, e.other)
                        queue[waiting] = e.other
                        waiting += 1
                enter(&p, item, e.bin)
                stir(&p, stirs, &state)
        return (answer(&p) if waiting == 0 else None), step
    finally:
        free(penalty)
        free(queue)
        close_packing(&p)
