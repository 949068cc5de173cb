"""Packs items of several sizes into equal bins: first fit, filling bin by bin, and emptying bins by local search.

Sizes and capacities are whole numbers, so what fits is exact. Bins are numbered from 0 in the order they were opened.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

import numpy as np


cdef inline bint fits(const int64_t* load, const int64_t* size, const int64_t* capacity, Py_ssize_t d) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(d):
        if load[k] + size[k] > capacity[k]:
            return False
    return True


cdef inline void put(int64_t* load, const int64_t* size, Py_ssize_t d, int64_t sign) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(d):
        load[k] += sign * size[k]


cdef int check(const int64_t[:, ::1] sizes, const int64_t[::1] capacity) except -1:
    cdef Py_ssize_t i, k
    if sizes.shape[1] != capacity.shape[0] or sizes.shape[1] == 0:
        raise ValueError("sizes and capacity differ in length")
    for i in range(sizes.shape[0]):
        for k in range(sizes.shape[1]):
            if not -(<int64_t>1 << 31) <= sizes[i, k] <= capacity[k] <= (<int64_t>1 << 31) or capacity[k] < 0:
                raise ValueError(f"item {i} is larger than a bin")
    return 0


def first_fit(const int64_t[:, ::1] sizes, const int64_t[::1] capacity, const int32_t[::1] order):
    """Each item, in ``order``, into the first bin that has room. Returns the bin of each item. O(items * bins)."""
    cdef Py_ssize_t n = sizes.shape[0], d = sizes.shape[1], i, b, used = 0, item
    check(sizes, capacity)
    if order.shape[0] != n or sorted(order) != list(range(n)):
        raise ValueError("an order names each item once")
    bins = np.full(n, -1, np.int32)
    if n == 0:
        return bins
    cdef int32_t[::1] bin_of = bins
    cdef int64_t[:, ::1] load = np.zeros((n, d), np.int64)
    for i in range(n):
        item = order[i]
        b = 0
        while b < used and not fits(&load[b, 0], &sizes[item, 0], &capacity[0], d):
            b += 1
        used = max(used, b + 1)
        put(&load[b, 0], &sizes[item, 0], d, 1)
        bin_of[item] = <int32_t>b
    return bins


def bin_centric(const int64_t[:, ::1] sizes, const int64_t[::1] capacity, const double[::1] weights, bint by_norm,
                const double[::1] bonus):
    """Bin by bin, the item that suits the open bin's remaining room best: the greatest weighted dot product of room and
    size, or (``by_norm``) the least weighted squared distance of them; all as parts of the capacity. ``bonus`` is added
    to each item's score. The first of equals. Returns the bin of each item. O(items²)."""
    cdef Py_ssize_t n = sizes.shape[0], d = sizes.shape[1], i, k, best, left = n, b = 0
    cdef double score, best_score, room, size
    check(sizes, capacity)
    if weights.shape[0] != d or bonus.shape[0] != n:
        raise ValueError("weights differ in length")
    bins = np.full(n, -1, np.int32)
    if n == 0:
        return bins
    cdef int32_t[::1] bin_of = bins
    cdef int64_t[::1] load = np.zeros(d, np.int64)
    while left:
        best, best_score = -1, 0.0
        for i in range(n):
            if bin_of[i] >= 0 or not fits(&load[0], &sizes[i, 0], &capacity[0], d):
                continue
            score = bonus[i]
            for k in range(d):
                if capacity[k] == 0:
                    continue
                room = <double>(capacity[k] - load[k]) / <double>capacity[k]
                size = <double>sizes[i, k] / <double>capacity[k]
                if by_norm:
                    score -= weights[k] * (room - size) * (room - size)
                else:
                    score += weights[k] * room * size
            if best < 0 or score > best_score:
                best, best_score = i, score
        if best < 0:
            b += 1
            for k in range(d):
                load[k] = 0
            continue
        put(&load[0], &sizes[best, 0], d, 1)
        bin_of[best] = <int32_t>b
        left -= 1
    return bins


cdef inline uint64_t following(uint64_t* state) noexcept nogil:
    """xorshift64*: the next number by chance."""
    state[0] ^= state[0] >> 12
    state[0] ^= state[0] << 25
    state[0] ^= state[0] >> 27
    return state[0] * <uint64_t>2685821657736338717


def empty_a_bin(const int64_t[:, ::1] sizes, const int64_t[::1] capacity, const int32_t[::1] bin_of, Py_ssize_t bins,
                int64_t moves, uint64_t seed):
    """The items packed into one bin less than ``bins``, or None if that is not found in so many moves.

    Tabu search: the items of the emptiest bin are out. A move takes one in and up to two others of some bin out, so
    that what is out gets smallest; what came in must stay for a while. O(items * bin's items * moves) at most.
    """
    cdef Py_ssize_t n = sizes.shape[0], d = sizes.shape[1], i, j, k, b, item, out_count = 0, victim, start, step
    cdef Py_ssize_t best_b, best_i, best_j, best_u
    cdef int64_t move, size, gain, best_gain, until
    cdef uint64_t state = seed * <uint64_t>0x9E3779B97F4A7C15 + 0x1234567
    cdef bint ok
    check(sizes, capacity)
    if bin_of.shape[0] != n:
        raise ValueError("bins and items differ in length")
    for i in range(n):
        if not 0 <= bin_of[i] < bins:
            raise ValueError(f"no bin {bin_of[i]}")
    if bins <= 1 or n == 0:
        return None
    if state == 0:
        state = 1
    packed = np.array(bin_of, np.int32)
    cdef int32_t[::1] where = packed
    cdef int64_t[:, ::1] load = np.zeros((bins, d), np.int64)
    cdef int32_t[:, ::1] held = np.zeros((bins, n), np.int32)     # items by bin
    cdef int32_t[::1] counts = np.zeros(bins, np.int32)
    cdef int32_t[::1] out = np.zeros(n, np.int32)
    cdef int64_t[::1] weight = np.zeros(n, np.int64)              # sum of parts of the capacity, in 1/65536
    cdef int64_t[::1] tabu = np.zeros(n, np.int64)                # an item stays in until then
    cdef int64_t[::1] fill = np.zeros(bins, np.int64)
    cdef int64_t[::1] room = np.zeros(d, np.int64)
    for i in range(n):
        for k in range(d):
            if capacity[k]:
                weight[i] += sizes[i, k] * 65536 // capacity[k]
        b = where[i]
        put(&load[b, 0], &sizes[i, 0], d, 1)
        fill[b] += weight[i]
        held[b, counts[b]] = <int32_t>i
        counts[b] += 1
    victim = 0
    for b in range(bins):
        if fill[b] < fill[victim]:
            victim = b
    with nogil:
        for i in range(counts[victim]):
            out[out_count] = held[victim, i]
            out_count += 1
        counts[victim] = 0
        for move in range(moves):
            # Whatever fits somewhere goes in.
            i = 0
            while i < out_count:
                item = out[i]
                start = <Py_ssize_t>(following(&state) % <uint64_t>bins)
                ok = False
                for step in range(bins):
                    b = (start + step) % bins
                    if b != victim and fits(&load[b, 0], &sizes[item, 0], &capacity[0], d):
                        ok = True
                        break
                if ok:
                    put(&load[b, 0], &sizes[item, 0], d, 1)
                    where[item] = <int32_t>b
                    held[b, counts[b]] = <int32_t>item
                    counts[b] += 1
                    out_count -= 1
                    out[i] = out[out_count]
                else:
                    i += 1
            if out_count == 0:
                break
            # The best exchange of one that is out for at most two of a bin.
            best_u = <Py_ssize_t>(following(&state) % <uint64_t>out_count)
            item = out[best_u]
            best_b, best_i, best_j, best_gain = -1, -1, -1, -(<int64_t>1 << 62)
            start = <Py_ssize_t>(following(&state) % <uint64_t>bins)
            for step in range(bins):
                b = (start + step) % bins
                if b == victim:
                    continue
                for k in range(d):
                    room[k] = capacity[k] - load[b, k] - sizes[item, k]
                for i in range(counts[b]):
                    if tabu[held[b, i]] > move:
                        continue
                    gain = weight[item] - weight[held[b, i]]
                    if gain > best_gain:
                        ok = True
                        for k in range(d):
                            if room[k] + sizes[held[b, i], k] < 0:
                                ok = False
                                break
                        if ok:
                            best_b, best_i, best_j, best_gain = b, i, -1, gain
                            continue
                    for j in range(i):
                        size = weight[held[b, i]] + weight[held[b, j]]
                        if weight[item] - size <= best_gain or tabu[held[b, j]] > move:
                            continue
                        ok = True
                        for k in range(d):
                            if room[k] + sizes[held[b, i], k] + sizes[held[b, j], k] < 0:
                                ok = False
                                break
                        if ok:
                            best_b, best_i, best_j, best_gain = b, i, j, weight[item] - size
            if best_b < 0:
                continue
            b = best_b
            out[best_u] = held[b, best_i]
            put(&load[b, 0], &sizes[held[b, best_i], 0], d, -1)
            if best_j >= 0:
                out[out_count] = held[b, best_j]
                out_count += 1
                put(&load[b, 0], &sizes[held[b, best_j], 0], d, -1)
            # The later place goes first: the bin's last item fills it.
            counts[b] -= 1
            held[b, best_i] = held[b, counts[b]]
            if best_j >= 0:
                counts[b] -= 1
                held[b, best_j] = held[b, counts[b]]
            put(&load[b, 0], &sizes[item, 0], d, 1)
            where[item] = <int32_t>b
            held[b, counts[b]] = <int32_t>item
            counts[b] += 1
            until = move + 2 + out_count + <int64_t>(following(&state) % 10)
            tabu[item] = until
    if out_count:
        return None
    for i in range(n):
        if where[i] == bins - 1:
            where[i] = <int32_t>victim
    return packed
