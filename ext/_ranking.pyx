"""The ranking kernel: exact best hosts for one compiled request signature, without looking at every host.

Per signature it keeps each row's verdict (the first stage that refuses it), the row's exact score under *stored* normalisers,
and tournament trees: one per end of each weigher's range (so the normalisers over the passing rows are always known exactly)
and one over the stored scores. While the true normalisers equal the stored ones, the best row is the score tree's leader.
When they have drifted, a row's true score differs from the stored one by at most `slack`, the sum of the greatest change of each
term over its range; the search visits only subtrees whose stored best plus slack reaches the best true score found. Rows that
changed are taken from the fleet's change log, so a decision costs the changes since the last one and a descent.
Stored scores are renewed once the searches have cost as much as a renewal would.
"""

from libc.math cimport INFINITY, fabs
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

import numpy as np

from ._fleet cimport (
    AFFINITY, ANTI_AFFINITY, CPU_ALLOCATION_RATIO, FREE_RAM_MB, NO_POLICY, RAM_ALLOCATION_RATIO, SOFT_AFFINITY,
    TOTAL_USABLE_RAM_MB, VCPUS_TOTAL, VCPUS_USED, Columns, columns_t, group_t,
)

cdef extern from "debug.h" nogil:
    void HOSTLER_ASSERT(bint condition)
    void HOSTLER_ASSERT_INDEX(int64_t index, int64_t count)

cdef extern from *:
    """
    #define HOSTLER_PREFETCH(address) __builtin_prefetch((const void *)(address))
    """
    void HOSTLER_PREFETCH(const void* address) noexcept nogil

cdef extern from "scores.h":
    void hostler_add_term(double* score, const double* raw, int64_t n, double minval, double low, double range, double multiplier) noexcept nogil
    void hostler_refuse(double* score, const uint8_t* stage, int64_t n) noexcept nogil
    double hostler_block_greatest(const double* raw, const uint8_t* stage, double minval, double sign, uint8_t* leader) noexcept nogil
    void hostler_passing(double* out, const double* raw, const uint8_t* stage, int64_t n, double minval, double sign) noexcept nogil
    void hostler_block_maxima(const double* values, int64_t blocks, int64_t stride, double* best, uint8_t* leader) noexcept nogil

cdef extern from "vector_fit.h":
    double hostler_fit(int formula, const hostler_figures* figures, int64_t row, const hostler_wish* wish) noexcept nogil
    void hostler_fit_all(int formula, const hostler_figures* figures, const hostler_wish* wish, int64_t n, double maxval,
                         double* out) noexcept nogil
    void hostler_mean_load(const hostler_figures* figures, const uint8_t* stage, int64_t n, double* load) noexcept nogil

cdef extern from "draws.h":
    uint64_t hostler_word(uint64_t seed, uint64_t number) noexcept nogil
    int64_t hostler_below(uint64_t word, int64_t count) noexcept nogil
    int64_t hostler_nth_passing(const uint8_t* stage, const uint8_t* aside, uint8_t heed, int64_t n, int64_t nth) noexcept nogil

cdef int64_t LOOK_AHEAD = 6
"""Changed rows whose memory is asked for ahead of their turn."""
cdef int64_t OUTGROWS_CACHE = 20000
"""Rows from which on a fleet's columns do not fit the second-level cache."""
cdef double RENEWAL_COST = 0.1
"""Cost of renewing one stored score, in scored rows of a search: a renewal is a vectorised pass, a search jumps."""


cdef inline double raw_of(ranking_t* r, term_t* t, int64_t row) noexcept nogil:
    cdef double value
    if t.raw != NULL:
        value = t.raw[row]
    elif t.source == SOURCE_CLASS:
        HOSTLER_ASSERT(0 <= r.fleet.class_of[row] and r.fleet.class_of[row] < r.class_count)
        value = t.values[r.fleet.class_of[row]]
    else:
        value = 0.0
    return t.floor if value < t.floor else value


cdef inline void find_columns(ranking_t* r) noexcept nogil:
    """Look up where the terms' raw values lie now: the fleet's blocks move when a resource class is added."""
    cdef int32_t i
    cdef term_t* t
    for i in range(r.term_count):
        t = &r.terms[i]
        t.floor = t.minval if t.has_minval else -INFINITY
        if t.source == SOURCE_COLUMN:
            t.raw = r.fleet.host + t.column * r.capacity
        elif t.source == SOURCE_ROW or t.source == SOURCE_PACKING:
            t.raw = t.values
        else:
            t.raw = NULL
    if r.packing:
        r.figures.vcpus_total = r.fleet.host + VCPUS_TOTAL * r.capacity
        r.figures.cpu_ratio = r.fleet.host + CPU_ALLOCATION_RATIO * r.capacity
        r.figures.vcpus_used = r.fleet.host + VCPUS_USED * r.capacity
        r.figures.ram_total_mb = r.fleet.host + TOTAL_USABLE_RAM_MB * r.capacity
        r.figures.ram_ratio = r.fleet.host + RAM_ALLOCATION_RATIO * r.capacity
        r.figures.free_ram_mb = r.fleet.host + FREE_RAM_MB * r.capacity


cdef inline double formula_value(ranking_t* r, term_t* t, int64_t row) noexcept nogil:
    cdef double value = hostler_fit(t.formula, &r.figures, row, &t.wish)
    return t.maxval if t.has_maxval and value > t.maxval else value


cdef inline void value_row(ranking_t* r, int64_t row) noexcept nogil:
    """Bring the formulas' values of one row up to date, where they depend on no other."""
    cdef int32_t i
    for i in range(r.term_count):
        if r.terms[i].source == SOURCE_PACKING:
            r.terms[i].values[row] = formula_value(r, &r.terms[i], row)


cdef void value_all(ranking_t* r) noexcept nogil:
    """The formulas' values of all rows, whose verdicts are up to date."""
    cdef double load[2]
    cdef int32_t i
    cdef term_t* t
    if r.by_load:
        hostler_mean_load(&r.figures, r.stage, r.fleet.rows, load)
    for i in range(r.term_count):
        t = &r.terms[i]
        if t.source == SOURCE_PACKING:
            if t.by_load:
                t.wish.weight[0] = load[0]
                t.wish.weight[1] = load[1]
            hostler_fit_all(t.formula, &r.figures, &t.wish, r.fleet.rows, t.maxval if t.has_maxval else INFINITY, t.values)


cdef inline double multiplier_of(ranking_t* r, term_t* t, int64_t row) noexcept nogil:
    return t.multiplier if t.multipliers == NULL else t.multipliers[r.fleet.class_of[row]]


cdef inline double clamped(term_t* t, double raw) noexcept nogil:
    if t.has_minval and raw < t.minval:
        return t.minval
    if t.has_maxval and raw > t.maxval:
        return t.maxval
    return raw


cdef inline double group_raw(term_t* t, double members) noexcept nogil:
    """A group term's raw value: `members` is signed, positive for soft-affinity and negative for soft-anti-affinity, and speaks only
    to the term of its own sign."""
    return clamped(t, t.group_factor * fabs(members) if t.group_factor * members > 0.0 else 0.0)


cdef inline void set_range(term_t* t, double low, double high) noexcept nogil:
    """The ends of the term's range: minval and maxval where the weigher sets them, else the least and greatest raw value."""
    if t.has_minval:
        low = t.minval
    if t.has_maxval:
        high = t.maxval
    t.low = low
    t.range = high - low if high > low else 0.0


cdef inline double true_score(ranking_t* r, int64_t row, double members) noexcept nogil:
    """Nova's sum for the row under the decision's normalisers: from 0.0, in order, multiplier * norm."""
    cdef double total = 0.0, raw
    cdef term_t* t
    cdef int32_t i
    for i in range(r.term_count):
        t = &r.terms[i]
        if t.range == 0.0:
            continue
        if t.source == SOURCE_GROUP:
            raw = group_raw(t, members)
        else:
            raw = raw_of(r, t, row)
        total += multiplier_of(r, t, row) * ((raw - t.low) / t.range)
    return total


cdef inline double stored_score(ranking_t* r, int64_t row) noexcept nogil:
    cdef double total = 0.0
    cdef term_t* t
    cdef int32_t i
    for i in range(r.term_count):
        t = &r.terms[i]
        if t.stored_range == 0.0:
            continue
        total += multiplier_of(r, t, row) * ((raw_of(r, t, row) - t.stored_low) / t.stored_range)
    return total


cdef inline uint8_t stage_of(ranking_t* r, int64_t row) noexcept nogil:
    """The first stage that refuses the row, 0 if none does."""
    cdef columns_t* c = r.fleet
    HOSTLER_ASSERT_INDEX(row, c.rows)
    HOSTLER_ASSERT_INDEX(c.class_of[row], r.class_count)
    cdef uint8_t stage = r.class_stage[c.class_of[row]]
    cdef int32_t i
    cdef int64_t at
    cdef double value
    if stage == NOT_A_HOST:
        return stage
    if stage == 0:
        stage = NOT_A_HOST
    for i in range(r.need_count):
        if r.needs[i].stage < stage:
            HOSTLER_ASSERT_INDEX(r.needs[i].resource, c.classes)
            at = r.needs[i].resource * r.capacity + row
            if c.avail[at] < r.needs[i].amount or (r.needs[i].units and (
                    r.needs[i].amount < c.min_unit[at]
                    or (c.step_size[at] > 1 and r.needs[i].amount % c.step_size[at]))):
                stage = r.needs[i].stage
    for i in range(r.bound_count):
        if r.bounds[i].stage < stage:
            value = c.host[r.bounds[i].column * r.capacity + row]
            if not (r.bounds[i].low <= value <= r.bounds[i].high):
                stage = r.bounds[i].stage
    for i in range(r.mask_count):
        if r.masks[i].stage < stage and not r.masks[i].passes[row]:
            stage = r.masks[i].stage
    return 0 if stage == NOT_A_HOST else stage


cdef inline double side_value(ranking_t* r, int32_t side, int64_t row) noexcept nogil:
    """What tree `side` holds of a row: the score, the raw value, or minus the raw value; -inf where the row is refused."""
    cdef term_t* t
    if side == r.side_count:
        return r.score[row]
    if r.stage[row] != 0:
        return -INFINITY
    t = &r.terms[r.side_term[side]]
    return raw_of(r, t, row) if t.high_side == side else -raw_of(r, t, row)


cdef inline int64_t slot(ranking_t* r, int32_t side, int64_t node) noexcept nogil:
    """Where tree `side` keeps a node. The raw values' trees lie node by node, so that a changed row touches one line of each; the
    score's tree lies by itself, so that a search reads a node's children in one go."""
    return r.side_count * r.nodes + node if side == r.side_count else node * r.side_count + side


cdef void refresh_block(ranking_t* r, int32_t side, int64_t block) noexcept nogil:
    cdef int64_t row = block * FANOUT
    cdef double value, greatest = -INFINITY, sign
    cdef int32_t i, leader = 0, n = FANOUT
    cdef int64_t at = slot(r, side, block)
    cdef term_t* t
    if row + n > r.fleet.rows:
        n = <int32_t>(r.fleet.rows - row)
    elif side == r.side_count:
        hostler_block_maxima(r.score + row, 1, 1, r.best + at, r.leader + at)
        return
    else:
        t = &r.terms[r.side_term[side]]
        if t.raw != NULL:
            sign = 1.0 if t.high_side == side else -1.0
            r.best[at] = hostler_block_greatest(t.raw + row, r.stage + row, t.floor, sign, r.leader + at)
            return
    if side == r.side_count:
        for i in range(n):
            if r.score[row + i] > greatest:
                greatest = r.score[row + i]
                leader = i
    else:
        t = &r.terms[r.side_term[side]]
        sign = 1.0 if t.high_side == side else -1.0
        for i in range(n):
            if r.stage[row + i] == 0:
                value = sign * raw_of(r, t, row + i)
                if value > greatest:
                    greatest = value
                    leader = i
    r.best[at] = greatest
    r.leader[at] = <uint8_t>leader


cdef void refresh_node(ranking_t* r, int32_t side, int32_t level, int64_t node) noexcept nogil:
    cdef int64_t child = node * FANOUT
    cdef int64_t below = r.level_start[level - 1] + child
    cdef double value, greatest = -INFINITY
    cdef int32_t i, leader = 0, n = FANOUT
    if child + n > r.level_size[level - 1]:
        n = <int32_t>(r.level_size[level - 1] - child)
    for i in range(n):
        value = r.best[slot(r, side, below + i)]
        if value > greatest:
            greatest = value
            leader = i
    r.best[slot(r, side, r.level_start[level] + node)] = greatest
    r.leader[slot(r, side, r.level_start[level] + node)] = <uint8_t>leader


cdef inline void ask_for(ranking_t* r, int64_t row) noexcept nogil:
    """Have the memory that a changed row's turn will read brought near."""
    cdef columns_t* c = r.fleet
    cdef int64_t block = row // FANOUT
    cdef int32_t i
    HOSTLER_PREFETCH(c.class_of + row)
    HOSTLER_PREFETCH(r.stage + row)
    HOSTLER_PREFETCH(r.score + row)
    for i in range(r.need_count):
        HOSTLER_PREFETCH(c.avail + r.needs[i].resource * r.capacity + row)
    for i in range(r.bound_count):
        HOSTLER_PREFETCH(c.host + r.bounds[i].column * r.capacity + row)
    for i in range(r.term_count):
        if r.terms[i].source == SOURCE_COLUMN:
            HOSTLER_PREFETCH(c.host + r.terms[i].column * r.capacity + row)
    if r.packing:
        HOSTLER_PREFETCH(r.figures.vcpus_total + row)
        HOSTLER_PREFETCH(r.figures.cpu_ratio + row)
        HOSTLER_PREFETCH(r.figures.vcpus_used + row)
        HOSTLER_PREFETCH(r.figures.ram_total_mb + row)
        HOSTLER_PREFETCH(r.figures.ram_ratio + row)
        HOSTLER_PREFETCH(r.figures.free_ram_mb + row)
    HOSTLER_PREFETCH(r.best + slot(r, 0, block))
    HOSTLER_PREFETCH(r.best + slot(r, r.side_count, block))
    HOSTLER_PREFETCH(r.leader + slot(r, 0, block))
    HOSTLER_PREFETCH(r.leader + slot(r, r.side_count, block))


cdef inline void update_side(ranking_t* r, int32_t side, int64_t row, double value) noexcept nogil:
    """Bring one row's new value into tree `side`; stops at the first node that does not change."""
    cdef double* best = r.best
    cdef uint8_t* leader = r.leader
    cdef int64_t node = row, parent, at
    cdef int32_t level, child
    cdef double was
    HOSTLER_ASSERT_INDEX(row, r.fleet.rows)
    HOSTLER_ASSERT_INDEX(side, r.side_count + 1)
    for level in range(r.levels):
        parent = node // FANOUT
        child = <int32_t>(node % FANOUT)
        at = slot(r, side, r.level_start[level] + parent)
        was = best[at]
        if value > was:
            best[at] = value
            leader[at] = <uint8_t>child
        elif value == was:
            if child < leader[at]:
                leader[at] = <uint8_t>child
            return
        elif leader[at] == child:
            if level == 0:
                refresh_block(r, side, parent)
            else:
                refresh_node(r, side, level, parent)
            if best[at] == was:
                return
        else:
            return
        value = best[at]
        node = parent


cdef void score_all(ranking_t* r) noexcept nogil:
    """Every row's score under the stored normalisers, -inf where refused; as stored_score gives it, term by term."""
    cdef int64_t n = r.fleet.rows, row
    cdef int32_t i
    cdef term_t* t
    memset(r.score, 0, n * sizeof(double))
    for i in range(r.term_count):
        t = &r.terms[i]
        if t.stored_range == 0.0:
            continue
        if t.multipliers == NULL and t.raw != NULL:
            hostler_add_term(r.score, t.raw, n, t.floor, t.stored_low, t.stored_range, t.multiplier)
        else:
            for row in range(n):
                r.score[row] += multiplier_of(r, t, row) * ((raw_of(r, t, row) - t.stored_low) / t.stored_range)
    hostler_refuse(r.score, r.stage, n)


cdef void build_score_tree(ranking_t* r) noexcept nogil:
    cdef int64_t whole = r.fleet.rows // FANOUT, at = slot(r, r.side_count, 0), i
    cdef int32_t level
    hostler_block_maxima(r.score, whole, 1, r.best + at, r.leader + at)
    for i in range(whole, r.level_size[0]):
        refresh_block(r, r.side_count, i)
    for level in range(1, r.levels):
        for i in range(r.level_size[level]):
            refresh_node(r, r.side_count, level, i)


cdef void build_trees(ranking_t* r) noexcept nogil:
    """The raw values' trees, from the bottom up. The scores are overwritten, and to be made anew."""
    cdef int32_t side, level
    cdef int64_t i, whole, at
    cdef term_t* t
    for side in range(r.side_count):
        t = &r.terms[r.side_term[side]]
        whole = 0
        if t.raw != NULL:
            whole = r.fleet.rows // FANOUT
            at = slot(r, side, 0)
            hostler_passing(r.score, t.raw, r.stage, whole * FANOUT, t.floor, 1.0 if t.high_side == side else -1.0)
            hostler_block_maxima(r.score, whole, r.side_count, r.best + at, r.leader + at)
        for i in range(whole, r.level_size[0]):
            refresh_block(r, side, i)
        for level in range(1, r.levels):
            for i in range(r.level_size[level]):
                refresh_node(r, side, level, i)


cdef inline double root(ranking_t* r, int32_t side) noexcept nogil:
    return r.best[slot(r, side, r.level_start[r.levels - 1])]


cdef inline int64_t leading_row(ranking_t* r, int32_t side) noexcept nogil:
    cdef int64_t node = 0
    cdef int32_t level
    for level in range(r.levels - 1, -1, -1):
        node = node * FANOUT + r.leader[slot(r, side, r.level_start[level] + node)]
    return node


cdef double greatest_kept(ranking_t* r, int32_t side, int32_t level, int64_t node, double floor) noexcept nogil:
    """Greatest value of tree `side` below a node over rows that are not set aside, if it is above `floor`; else `floor`."""
    cdef double value
    cdef int64_t first = node * FANOUT, i, n
    if r.best[slot(r, side, r.level_start[level] + node)] <= floor:
        return floor
    if level == 0:
        n = min(first + FANOUT, r.fleet.rows)
        for i in range(first, n):
            if not r.aside[i]:
                value = side_value(r, side, i)
                if value > floor:
                    floor = value
        return floor
    n = min(first + FANOUT, r.level_size[level - 1])
    for i in range(first, n):
        floor = greatest_kept(r, side, level - 1, i, floor)
    return floor


cdef inline double side_end(ranking_t* r, int32_t side, bint some_aside) noexcept nogil:
    if some_aside and r.aside[leading_row(r, side)]:
        return greatest_kept(r, side, r.levels - 1, 0, -INFINITY)
    return root(r, side)


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


cdef void search_block(ranking_t* r, int64_t block) noexcept nogil:
    cdef int64_t row = block * FANOUT, n = min(row + FANOUT, r.fleet.rows), i
    cdef double least = r.top_score[r.wanted - 1] if r.found == r.wanted else -INFINITY
    for i in range(row, n):
        if r.score[i] + r.slack < least or hopeless(r, r.score[i] + r.slack, i) or r.aside[i] or r.score[i] == -INFINITY:
            continue
        r.work += 1
        offer(r, i, true_score(r, i, 0.0) if r.drifted else r.score[i])


cdef void search(ranking_t* r, int32_t level, int64_t node) noexcept nogil:
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


cdef void search_ties(ranking_t* r, int32_t level, int64_t node, double best) noexcept nogil:
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


cdef inline void add_tie(ranking_t* r, int64_t row) noexcept nogil:
    HOSTLER_ASSERT_INDEX(r.tie_count, r.fleet.rows)
    r.ties[r.tie_count] = <int32_t>row
    r.tie_count += 1


cdef int by_number(const void* one, const void* other) noexcept nogil:
    cdef int32_t left = (<int32_t*>one)[0], right = (<int32_t*>other)[0]
    return (left > right) - (left < right)


cdef inline int64_t drawn_below(ranking_t* r, int64_t count) noexcept nogil:
    r.drawn += 1
    return hostler_below(hostler_word(r.seed, r.drawn), count)


cdef void shuffle(ranking_t* r, int32_t* rows, int64_t count, int64_t first) noexcept nogil:
    """Draw which of `count` rows stand on the `first` positions."""
    cdef int64_t i, other
    cdef int32_t row
    for i in range(min(first, count - 1)):
        other = i + drawn_below(r, count - i)
        HOSTLER_ASSERT_INDEX(other, count)
        row = rows[i]
        rows[i] = rows[other]
        rows[other] = row


cdef inline double norm(double value, double low, double span) noexcept nogil:
    return 0.0 if span == 0.0 else (value - low) / span


cdef double greatest_change(term_t* t, double low, double high, double* size) noexcept nogil:
    """Most that a term's contribution can exceed the stored one by, for raw values in [low, high]: linear, so at a corner.
    Adds the greatest magnitude of the contributions to `size`."""
    cdef double result = -INFINITY, m, at, now, stored, greatest = 0.0
    cdef int32_t i, j
    for i in range(2):
        at = low if i == 0 else high
        for j in range(2):
            m = t.least_multiplier if j == 0 else t.greatest_multiplier
            now = m * norm(at, t.low, t.range)
            stored = m * norm(at, t.stored_low, t.stored_range)
            result = max(result, now - stored)
            greatest = max(greatest, max(fabs(now), fabs(stored)))
    size[0] += greatest
    return result


cdef uint8_t filter_stage(int stage) except 0:
    if not 0 < stage < NOT_A_HOST:
        raise ValueError("a filter's stage must be within [1, 254]")
    return <uint8_t>stage


cdef class Ranking:
    """One request signature compiled against one fleet's columns."""

    def __cinit__(self):
        memset(&self.r, 0, sizeof(ranking_t))
        self.r.seen = -1

    def __dealloc__(self):
        free(self.r.needs)
        free(self.r.bounds)
        free(self.r.masks)
        free(self.r.terms)
        free(self.r.stage)
        free(self.r.score)
        free(self.r.counts)
        free(self.r.best)
        free(self.r.leader)
        free(self.r.aside)
        free(self.r.top_row)
        free(self.r.top_score)
        free(self.r.ties)

    def __init__(self, Columns columns not None, *, uint8_t[::1] class_stage, needs=(), bounds=(), masks=(), terms=(),
                 uint8_t affinity_stage=0, uint8_t anti_affinity_stage=0, bint shuffle=False, int64_t subset=1):
        """``class_stage[k]``: stage that refuses host class k, 0 for none, 255 for rows that are no hosts.

        ``needs``: (resource class index, amount, stage, units); ``bounds``: (column, low, high, stage); ``masks``: (uint8 array of
        capacity, stage); ``terms``: dicts with source, column, values, minval, maxval, multiplier, multipliers,
        group_factor, steady (the raw values of rows never change for as long as the ranking lives), formula, asked (vCPUs, GiB),
        by_load (the mean load of all hosts weighs the resources).
        ``affinity_stage``, ``anti_affinity_stage``: stages of the server group filters, 0 where the policy has none.
        ``shuffle``: rows of the best score are taken in any order; ``subset``: one of so many best rows comes first (draws.py).
        """
        cdef ranking_t* r = &self.r
        if r.seen != -1 or r.counts != NULL:
            raise RuntimeError("a ranking is made once")
        if columns.c.capacity == 0:
            raise ValueError("the columns are not attached")
        if subset < 1:
            raise ValueError("subset must be at least 1")
        self.columns = columns
        r.affinity_stage = affinity_stage
        r.anti_affinity_stage = anti_affinity_stage
        r.shuffle = shuffle
        r.subset = subset
        r.fleet = &columns.c
        r.capacity = columns.c.capacity
        self.arrays = {}
        self.set_class_stage(class_stage)
        if len(terms) > TERMS:
            raise ValueError("too many weighers")
        self.compile_filters(needs, bounds, masks)
        self.compile_terms(terms)
        self.lay_trees()

    def set_class_stage(self, uint8_t[::1] class_stage):
        """Replace the verdicts by class (they grow as new host classes appear)."""
        if class_stage.shape[0] == 0:
            raise ValueError("class stages are missing")
        self.arrays["class_stage"] = class_stage
        self.r.class_stage = &class_stage[0]
        self.r.class_count = <int32_t>class_stage.shape[0]

    cdef int compile_filters(self, needs, bounds, masks) except -1:
        cdef ranking_t* r = &self.r
        cdef Py_ssize_t columns = self.columns.arrays[1].shape[0]
        cdef uint8_t[::1] passes
        r.needs = <need_t*>calloc(max(len(needs), 1), sizeof(need_t))
        r.bounds = <bound_t*>calloc(max(len(bounds), 1), sizeof(bound_t))
        r.masks = <mask_t*>calloc(max(len(masks), 1), sizeof(mask_t))
        if r.needs == NULL or r.bounds == NULL or r.masks == NULL:
            raise MemoryError
        for resource, amount, stage, units in needs:
            if not 0 <= resource < r.fleet.classes:
                raise IndexError("resource class out of range")
            r.needs[r.need_count].resource = resource
            r.needs[r.need_count].amount = amount
            r.needs[r.need_count].stage = filter_stage(stage)
            r.needs[r.need_count].units = units
            r.need_count += 1
        for column, low, high, stage in bounds:
            if not 0 <= column < columns:
                raise IndexError("column out of range")
            r.bounds[r.bound_count].column = column
            r.bounds[r.bound_count].low = low
            r.bounds[r.bound_count].high = high
            r.bounds[r.bound_count].stage = filter_stage(stage)
            r.bound_count += 1
        for mask, stage in masks:
            passes = self.arrays["mask", r.mask_count] = mask
            if passes.shape[0] != r.capacity:
                raise ValueError("a mask has one entry per row")
            r.masks[r.mask_count].passes = &passes[0]
            r.masks[r.mask_count].stage = filter_stage(stage)
            r.mask_count += 1
        return 0

    cdef int compile_terms(self, terms) except -1:
        cdef ranking_t* r = &self.r
        cdef Py_ssize_t columns = self.columns.arrays[1].shape[0]
        cdef double[::1] values
        cdef term_t* t
        r.terms = <term_t*>calloc(max(len(terms), 1), sizeof(term_t))
        if r.terms == NULL:
            raise MemoryError
        for term in terms:
            t = &r.terms[r.term_count]
            t.source = term["source"]
            t.column = term.get("column", -1)
            if t.source not in (SOURCE_COLUMN, SOURCE_CLASS, SOURCE_ROW, SOURCE_GROUP, SOURCE_PACKING):
                raise ValueError("unknown source of raw values")
            if t.source == SOURCE_COLUMN and not 0 <= t.column < columns:
                raise IndexError("column out of range")
            t.multiplier = t.least_multiplier = t.greatest_multiplier = term["multiplier"]
            t.has_minval = term.get("minval") is not None
            t.minval = term["minval"] if t.has_minval else 0.0
            t.has_maxval = term.get("maxval") is not None
            t.maxval = term["maxval"] if t.has_maxval else 0.0
            if t.has_maxval and t.source == SOURCE_COLUMN:
                raise ValueError("values of a term with maxval are given by class or row")
            if t.has_maxval and t.has_minval and t.minval > t.maxval:
                raise ValueError("minval is above maxval")
            t.group_factor = term.get("group_factor", 0.0)
            t.steady = term.get("steady", False)
            if t.source in (SOURCE_CLASS, SOURCE_ROW):
                values = self.arrays["values", r.term_count] = term["values"]
                if values.shape[0] == 0:
                    raise ValueError("values are missing")
                t.values = &values[0]
            if t.source == SOURCE_ROW and values.shape[0] != r.capacity:
                raise ValueError("row values have one entry per row")
            if t.source == SOURCE_PACKING:
                self.compile_formula(t, term)
            if term.get("multipliers") is not None:
                values = self.arrays["multipliers", r.term_count] = term["multipliers"]
                if values.shape[0] == 0:
                    raise ValueError("values are missing")
                t.multipliers = &values[0]
                t.least_multiplier = term["least_multiplier"]
                t.greatest_multiplier = term["greatest_multiplier"]
            t.high_side = t.low_side = -1
            if t.source != SOURCE_GROUP:
                if not t.has_maxval:
                    t.high_side = r.side_count
                    r.side_term[r.side_count] = r.term_count
                    r.side_count += 1
                if not t.has_minval:
                    t.low_side = r.side_count
                    r.side_term[r.side_count] = r.term_count
                    r.side_count += 1
            r.term_count += 1
        return 0

    cdef int compile_formula(self, term_t* t, term) except -1:
        cdef ranking_t* r = &self.r
        cdef double[::1] values
        if not DOT_PRODUCT <= term["formula"] <= DELTA_PERP:
            raise ValueError("unknown formula")
        if self.columns.arrays[1].shape[0] <= RAM_ALLOCATION_RATIO:
            raise IndexError("column out of range")
        t.formula = term["formula"]
        t.wish.asked[0], t.wish.asked[1] = term["asked"]
        t.wish.weight[0] = t.wish.weight[1] = 1.0
        t.by_load = term.get("by_load", False)
        r.packing = True
        r.by_load = r.by_load or t.by_load
        values = self.arrays["values", r.term_count] = np.zeros(r.capacity)
        t.values = &values[0]
        return 0

    def set_class_values(self, int32_t term, double[::1] values, multipliers):
        """Replace a class-sourced term's values, or any term's multipliers by class, after host classes were added."""
        cdef double[::1] by_class
        if term < 0 or term >= self.r.term_count:
            raise IndexError("term out of range")
        if (values is not None and values.shape[0] == 0) or (multipliers is not None and len(multipliers[0]) == 0):
            raise ValueError("values are missing")
        if values is not None and self.r.terms[term].source == SOURCE_CLASS:
            self.arrays["values", term] = values
            self.r.terms[term].values = &values[0]
        if multipliers is not None:
            by_class, least, greatest = multipliers
            self.arrays["multipliers", term] = by_class
            self.r.terms[term].multipliers = &by_class[0]
            self.r.terms[term].least_multiplier = least
            self.r.terms[term].greatest_multiplier = greatest

    cdef int lay_trees(self) except -1:
        cdef ranking_t* r = &self.r
        cdef int64_t size = r.capacity
        while True:
            size = (size + FANOUT - 1) // FANOUT
            r.level_start[r.levels] = r.nodes
            r.level_size[r.levels] = size
            r.nodes += size
            r.levels += 1
            if size == 1:
                break
        r.stage = <uint8_t*>malloc(r.capacity)
        r.score = <double*>malloc(r.capacity * sizeof(double))
        r.aside = <uint8_t*>calloc(r.capacity, 1)
        r.ties = <int32_t*>malloc(r.capacity * sizeof(int32_t) if r.shuffle else 1)
        r.counts = <int64_t*>calloc(STAGES, sizeof(int64_t))
        r.best = <double*>malloc((r.side_count + 1) * r.nodes * sizeof(double))
        r.leader = <uint8_t*>malloc((r.side_count + 1) * r.nodes)
        if (r.stage == NULL or r.score == NULL or r.aside == NULL or r.ties == NULL or r.counts == NULL or r.best == NULL
                or r.leader == NULL):
            raise MemoryError
        memset(r.stage, NOT_A_HOST, r.capacity)
        self.reserve_top(8)
        return 0

    cdef int reserve_top(self, int64_t wanted) except -1:
        """Room for so many best rows, and for those that chance chooses among."""
        wanted = max(wanted, min(self.r.subset, self.r.capacity))
        if wanted > self.top_room:
            self.r.top_row = <int32_t*>realloc(self.r.top_row, wanted * sizeof(int32_t))
            self.r.top_score = <double*>realloc(self.r.top_score, wanted * sizeof(double))
            if self.r.top_row == NULL or self.r.top_score == NULL:
                raise MemoryError
            self.top_room = <int>wanted
        return 0

    @property
    def nbytes(self):
        """Bytes that the ranking holds."""
        cdef int64_t by_row = 10 + 4 * self.r.shuffle
        for i in range(self.r.term_count):
            by_row += 8 * (self.r.terms[i].source == SOURCE_PACKING)
        return self.r.capacity * by_row + (self.r.side_count + 1) * self.r.nodes * 9

    @property
    def statistics(self):
        """(rebuilds, renewals of the stored scores) since it was made."""
        return self.r.rebuilds, self.r.rescores

    @property
    def seen(self):
        """Change-log version that the verdicts stand for, -1 before the first decision."""
        return self.r.seen

    cdef void normalise(self, bint some_aside) noexcept nogil:
        """Set the terms' normalisers to the exact range of the passing rows that are not set aside."""
        cdef ranking_t* r = &self.r
        cdef term_t* t
        cdef int32_t i
        cdef double high
        r.drifted = False
        for i in range(r.term_count):
            t = &r.terms[i]
            if t.source == SOURCE_GROUP:
                continue
            high = t.maxval if t.has_maxval else side_end(r, t.high_side, some_aside)
            t.low = t.minval if t.has_minval else -side_end(r, t.low_side, some_aside)
            t.range = high - t.low
            if high == -INFINITY or t.range < 0.0:
                t.range = 0.0
            if t.range != t.stored_range or (t.low != t.stored_low and t.range != 0.0):
                r.drifted = True

    cdef void store_scores(self) noexcept nogil:
        """Make the exact range of the passing rows the stored normalisers, and every stored score anew."""
        cdef ranking_t* r = &self.r
        cdef int32_t i
        self.normalise(False)
        for i in range(r.term_count):
            r.terms[i].stored_low = r.terms[i].low if r.terms[i].source != SOURCE_GROUP else 0.0
            r.terms[i].stored_range = r.terms[i].range if r.terms[i].source != SOURCE_GROUP else 0.0
        score_all(r)
        build_score_tree(r)
        r.drifted = False
        r.work = 0
        r.rescores += 1

    cdef void build(self) noexcept nogil:
        cdef ranking_t* r = &self.r
        cdef int64_t row
        memset(r.counts, 0, STAGES * sizeof(int64_t))
        r.counted = r.fleet.rows
        for row in range(r.fleet.rows):
            r.stage[row] = stage_of(r, row)
            r.counts[r.stage[row]] += 1
        if r.packing:
            value_all(r)
        build_trees(r)
        self.store_scores()
        r.seen = r.fleet.log_base + r.fleet.log_length
        r.rebuilds += 1

    cdef int sync(self) noexcept nogil:
        """Catch up with the change log. `check_capacity` was called."""
        cdef ranking_t* r = &self.r
        cdef columns_t* c = r.fleet
        cdef int64_t version = c.log_base + c.log_length, at, row
        cdef uint8_t old, new
        cdef int32_t side, i
        cdef double score, raw
        cdef term_t* t
        HOSTLER_ASSERT(r.capacity == c.capacity)
        find_columns(r)
        if r.seen == version and r.counted == c.rows:
            return 0
        if r.seen < c.log_base or version - r.seen > c.rows // 8 + 64:
            self.build()
            return 0
        if c.rows < r.counted:
            self.build()
            return 0
        for row in range(r.counted, c.rows):
            r.stage[row] = NOT_A_HOST
            r.score[row] = -INFINITY
        r.counts[NOT_A_HOST] += c.rows - r.counted
        r.counted = c.rows
        for at in range(r.seen - c.log_base, c.log_length):
            if c.rows > OUTGROWS_CACHE and at + LOOK_AHEAD < c.log_length:
                row = c.log[at + LOOK_AHEAD]
                if row < c.rows:
                    ask_for(r, row)
            row = c.log[at]
            if row >= c.rows:
                # The row was added and taken back since.
                continue
            old = r.stage[row]
            new = stage_of(r, row)
            if old != new:
                r.stage[row] = new
                r.counts[old] -= 1
                r.counts[new] += 1
            if r.by_load:
                continue
            if r.packing:
                value_row(r, row)
            if old != 0 and old == new:
                continue
            if old == 0 or new == 0:
                score = 0.0 if new == 0 else -INFINITY
                for i in range(r.term_count):
                    t = &r.terms[i]
                    if t.source == SOURCE_GROUP:
                        continue
                    raw = -INFINITY
                    if new == 0:
                        raw = raw_of(r, t, row)
                        if t.stored_range != 0.0:
                            score += multiplier_of(r, t, row) * ((raw - t.stored_low) / t.stored_range)
                    if t.steady and old == new:
                        continue
                    if t.high_side >= 0:
                        update_side(r, t.high_side, row, raw)
                    if t.low_side >= 0:
                        update_side(r, t.low_side, row, -raw if new == 0 else -INFINITY)
                r.score[row] = score
                update_side(r, r.side_count, row, score)
        if r.by_load:
            # Every row's value has changed.
            value_all(r)
            build_trees(r)
            self.store_scores()
        r.seen = version
        return 0

    cdef void value_rows(self) noexcept nogil:
        """Bring the formulas' values up to date; the normalisers of the latest decision stay. `check_capacity` was called."""
        cdef ranking_t* r = &self.r
        cdef double low[TERMS]
        cdef double span[TERMS]
        cdef int32_t i
        if not r.packing:
            return
        for i in range(r.term_count):
            low[i] = r.terms[i].low
            span[i] = r.terms[i].range
        self.sync()
        for i in range(r.term_count):
            r.terms[i].low = low[i]
            r.terms[i].range = span[i]

    cdef void decide(self, int32_t group, int32_t wanted, uint64_t seed) noexcept nogil:
        """Fill the list of best rows for one guest, of server group `group` (-1: none), drawing from `seed`; its length is r.found.
        `sync` was called, and the list has room."""
        cdef ranking_t* r = &self.r
        cdef group_t* g = NULL
        cdef int32_t i, row, kept = 0
        cdef int64_t passing
        cdef bint some_aside = False, soft = False
        r.found = 0
        r.slack = 0.0
        if r.work > r.fleet.rows * RENEWAL_COST + 64:
            self.store_scores()
        if group >= 0:
            g = &self.columns.groups[group]
            if g.count == 0 or not self.heeds(g.policy):
                g = NULL
        if g != NULL and g.policy == AFFINITY:
            passing = self.measure_among(g.rows, g.count)
            self.aim(passing, wanted, seed)
            self.offer_among(g.rows, g.count)
            self.shuffle_best(g, passing)
            self.take_pick(wanted)
            return
        passing = r.counts[0]
        if g != NULL:
            soft = g.policy != ANTI_AFFINITY
            for i in range(g.count):
                row = g.rows[i]
                if r.stage[row] == 0 and (soft or g.members[i] >= g.at_most):
                    r.aside[row] = 1
                    kept += 1
            some_aside = kept > 0
            if not soft:
                passing -= kept
        self.aim(passing, wanted, seed)
        if passing > 1:
            self.normalise(some_aside and not soft)
            self.set_group_range(g if soft else NULL, kept)
            if r.shuffle and self.all_equal():
                self.draw_any(passing, not soft)
            else:
                self.pick(g if soft else NULL, kept)
                self.shuffle_best(g if soft else NULL, passing)
        elif passing == 1:
            self.pick_only(g if soft else NULL)
        else:
            self.add_nothing()
        self.take_pick(wanted)
        if some_aside:
            for i in range(g.count):
                r.aside[g.rows[i]] = 0

    cdef void aim(self, int64_t passing, int32_t wanted, uint64_t seed) noexcept nogil:
        """Draw which of the best is to be taken, and look for as many as that needs."""
        cdef ranking_t* r = &self.r
        cdef int64_t size = min(r.subset, passing)
        r.seed = seed
        r.drawn = 0
        r.pick = drawn_below(r, size) if size > 1 else 0
        r.wanted = max(wanted, <int32_t>r.pick + 1)

    cdef bint all_equal(self) noexcept nogil:
        """Whether every passing row has the score 0.0, under the decision's normalisers."""
        cdef int32_t i
        for i in range(self.r.term_count):
            if self.r.terms[i].range != 0.0:
                return False
        return True

    cdef void draw_any(self, int64_t passing, bint heed_aside) noexcept nogil:
        """Fill the list with rows drawn from all `passing` ones: those that pass and, if `heed_aside`, are not set aside."""
        cdef ranking_t* r = &self.r
        cdef int64_t row
        cdef int32_t i
        r.found = <int32_t>min(<int64_t>r.wanted, passing)
        if r.found == 1:
            r.top_row[0] = <int32_t>hostler_nth_passing(r.stage, r.aside, heed_aside, r.fleet.rows, drawn_below(r, passing))
            r.top_score[0] = 0.0
            return
        r.tie_count = 0
        for row in range(r.fleet.rows):
            if r.stage[row] == 0 and not (heed_aside and r.aside[row]):
                add_tie(r, row)
        HOSTLER_ASSERT(r.tie_count == passing)
        shuffle(r, r.ties, passing, r.found)
        for i in range(r.found):
            r.top_row[i] = r.ties[i]
            r.top_score[i] = 0.0

    cdef void shuffle_best(self, group_t* g, int64_t passing) noexcept nogil:
        """Draw the order of the rows that share the best score. `g`: the group whose rows are offered by themselves, or NULL."""
        cdef ranking_t* r = &self.r
        cdef int32_t equal = 0
        if not r.shuffle:
            return
        while equal < r.found and r.top_score[equal] == r.top_score[0]:
            equal += 1
        if equal < r.found or r.found == passing:
            shuffle(r, r.top_row, equal, equal)
            return
        self.find_ties(g)
        HOSTLER_ASSERT(r.tie_count >= r.found)
        shuffle(r, r.ties, r.tie_count, r.found)
        memcpy(r.top_row, r.ties, r.found * sizeof(int32_t))

    cdef void find_ties(self, group_t* g) noexcept nogil:
        """All rows of the best score, by number."""
        cdef ranking_t* r = &self.r
        cdef double best = r.top_score[0], members
        cdef int32_t i
        r.tie_count = 0
        if g == NULL or g.policy != AFFINITY:
            search_ties(r, r.levels - 1, 0, best)
        if g == NULL:
            return
        for i in range(g.count):
            if g.policy == AFFINITY:
                if r.stage[g.rows[i]] == 0 and true_score(r, g.rows[i], 0.0) == best:
                    add_tie(r, g.rows[i])
            elif r.aside[g.rows[i]]:
                members = g.members[i] if g.policy == SOFT_AFFINITY else -g.members[i]
                if true_score(r, g.rows[i], members) == best:
                    add_tie(r, g.rows[i])
        qsort(r.ties, r.tie_count, sizeof(int32_t), &by_number)

    cdef void take_pick(self, int32_t wanted) noexcept nogil:
        """Move the row that was drawn to the front, and leave off what was only looked for to find it."""
        cdef ranking_t* r = &self.r
        cdef int32_t row, i = <int32_t>r.pick
        cdef double score
        if r.found == 0:
            return
        HOSTLER_ASSERT_INDEX(i, r.found)
        row, score = r.top_row[i], r.top_score[i]
        while i > 0:
            r.top_row[i] = r.top_row[i - 1]
            r.top_score[i] = r.top_score[i - 1]
            i -= 1
        r.top_row[0], r.top_score[0] = row, score
        r.found = min(r.found, wanted)

    cdef bint heeds(self, int32_t policy) noexcept nogil:
        """Whether the signature's filters or weighers look at groups of this policy."""
        if policy == AFFINITY:
            return self.r.affinity_stage != 0
        if policy == ANTI_AFFINITY:
            return self.r.anti_affinity_stage != 0
        return policy != NO_POLICY

    cdef void tally(self, int32_t group, int64_t* out) noexcept nogil:
        """Rows by first refusing stage for a guest of server group `group`, int64[STAGES]."""
        cdef ranking_t* r = &self.r
        cdef group_t* g
        cdef int32_t i, k
        cdef uint8_t stage
        memcpy(out, r.counts, STAGES * sizeof(int64_t))
        if group < 0:
            return
        g = &self.columns.groups[group]
        if g.count == 0 or not self.heeds(g.policy):
            return
        if g.policy == ANTI_AFFINITY:
            for i in range(g.count):
                stage = r.stage[g.rows[i]]
                if g.members[i] >= g.at_most and (stage == 0 or stage > r.anti_affinity_stage) and stage != NOT_A_HOST:
                    out[stage] -= 1
                    out[r.anti_affinity_stage] += 1
        elif g.policy == AFFINITY:
            # Only the group's rows get past this stage.
            for k in range(r.affinity_stage + 1, NOT_A_HOST):
                out[r.affinity_stage] += out[k]
                out[k] = 0
            out[r.affinity_stage] += out[0]
            out[0] = 0
            for i in range(g.count):
                stage = r.stage[g.rows[i]]
                if (stage == 0 or stage > r.affinity_stage) and stage != NOT_A_HOST:
                    out[r.affinity_stage] -= 1
                    out[stage] += 1

    cdef void set_group_range(self, group_t* g, int32_t members_passing) noexcept nogil:
        """Normalisers of the group terms: raw is factor * members, 0 on every passing row outside the group."""
        cdef ranking_t* r = &self.r
        cdef term_t* t
        cdef int32_t i, j
        cdef double raw, low, high
        for i in range(r.term_count):
            t = &r.terms[i]
            if t.source != SOURCE_GROUP:
                continue
            t.low = t.range = 0.0
            if g == NULL or (g.policy == SOFT_AFFINITY) != (t.group_factor > 0):
                continue
            low = INFINITY
            high = -INFINITY
            if r.counts[0] > members_passing:
                low = high = clamped(t, 0.0)
            for j in range(g.count):
                if r.aside[g.rows[j]]:
                    raw = clamped(t, t.group_factor * g.members[j])
                    low = min(low, raw)
                    high = max(high, raw)
            set_range(t, low, high)

    cdef void pick(self, group_t* g, int32_t members_passing) noexcept nogil:
        """Search the best of the passing rows that are not set aside, and offer the group's own rows beside them."""
        cdef ranking_t* r = &self.r
        cdef term_t* t
        cdef int32_t i
        cdef double size = 0.0, outside
        if g != NULL:
            for i in range(r.term_count):
                if r.terms[i].source == SOURCE_GROUP and r.terms[i].range != 0.0:
                    r.drifted = True
        if r.drifted:
            for i in range(r.term_count):
                t = &r.terms[i]
                if t.source != SOURCE_GROUP:
                    r.slack += greatest_change(t, t.low, t.low + t.range, &size)
                elif t.range != 0.0:
                    # The rows to be searched have no members.
                    outside = clamped(t, 0.0)
                    r.slack += greatest_change(t, outside, outside, &size)
            # Rounding of both sums and of the slack: a few ulps of the greatest contributions, taken a thousandfold.
            r.slack += size * 1e-12
        if not r.drifted and r.wanted == 1 and members_passing == 0 and not r.aside[leading_row(r, r.side_count)]:
            offer(r, leading_row(r, r.side_count), root(r, r.side_count))
            return
        if g != NULL:
            for i in range(g.count):
                if r.aside[g.rows[i]]:
                    offer(r, g.rows[i], true_score(r, g.rows[i], g.members[i] if g.policy == SOFT_AFFINITY else -g.members[i]))
        search(r, r.levels - 1, 0)

    cdef void pick_only(self, group_t* g) noexcept nogil:
        """One passing row: no weigher runs and its weight is 0.0 (Nova 33)."""
        cdef ranking_t* r = &self.r
        cdef int32_t i
        self.add_nothing()
        if g != NULL:
            for i in range(g.count):
                if r.aside[g.rows[i]]:
                    offer(r, g.rows[i], 0.0)
                    return
        r.drifted = False
        search(r, r.levels - 1, 0)
        if r.found:
            r.top_score[0] = 0.0

    cdef void add_nothing(self) noexcept nogil:
        """Make every term idle: fewer than two rows pass."""
        cdef int32_t i
        for i in range(self.r.term_count):
            self.r.terms[i].low = self.r.terms[i].range = 0.0

    cdef int64_t measure_among(self, int32_t* rows, int32_t count) noexcept nogil:
        """Normalise over those of `rows` alone that pass; their number. No group term counts their members."""
        cdef ranking_t* r = &self.r
        cdef term_t* t
        cdef int32_t i, j, passing = 0
        cdef double raw, low, high
        for i in range(count):
            if r.stage[rows[i]] == 0:
                passing += 1
        self.add_nothing()
        for j in range(r.term_count if passing > 1 else 0):
            t = &r.terms[j]
            if t.source == SOURCE_GROUP:
                continue
            low = INFINITY
            high = -INFINITY
            for i in range(count):
                if r.stage[rows[i]] != 0:
                    continue
                raw = raw_of(r, t, rows[i])
                low = min(low, raw)
                high = max(high, raw)
            set_range(t, low, high)
        return passing

    cdef void offer_among(self, int32_t* rows, int32_t count) noexcept nogil:
        """Rank only `rows`, those that pass."""
        cdef ranking_t* r = &self.r
        cdef int32_t i
        for i in range(count):
            if r.stage[rows[i]] == 0:
                offer(r, rows[i], true_score(r, rows[i], 0.0))

    # Python's side

    def refresh(self):
        """Catch up with the fleet. RuntimeError if the columns were reallocated since the ranking was made."""
        self.check_capacity()
        self.sync()

    def best(self, int32_t group=-1, int32_t wanted=1, uint64_t seed=0):
        """The ``wanted`` best rows and scores as two lists, best first, ties by row; what chance has a part in is drawn from ``seed``.
        O(changes + log hosts) as a rule."""
        if wanted < 1:
            raise ValueError("wanted must be at least 1")
        if group >= 0:
            self.columns.check_group(group)
        self.refresh()
        wanted = <int32_t>min(<int64_t>wanted, max(self.r.fleet.rows, 1))
        self.reserve_top(wanted)
        with nogil:
            self.decide(group, wanted, seed)
        return [self.r.top_row[i] for i in range(self.r.found)], [self.r.top_score[i] for i in range(self.r.found)]

    def stages(self):
        """Copy of each row's first refusing stage, uint8[rows]."""
        self.refresh()
        result = np.empty(self.r.fleet.rows, np.uint8)
        cdef uint8_t[::1] view = result
        if view.shape[0]:
            memcpy(&view[0], self.r.stage, view.shape[0])
        return result

    def counts(self, int32_t group=-1, int width=STAGES):
        """Rows by first refusing stage for a guest of server group ``group``, as a list of ``width``; [0] passed, [255] are no hosts."""
        cdef int64_t counts[STAGES]
        if group >= 0:
            self.columns.check_group(group)
        if width < 0 or width > STAGES:
            raise ValueError("width beyond the stages")
        self.refresh()
        self.tally(group, counts)
        return [counts[i] for i in range(width)]

    def row_parts(self, int32_t row, double members=0.0):
        """Per term (raw, normalised, multiplier) of one row under the normalisers of the latest ``best`` or ``score_rows``."""
        cdef ranking_t* r = &self.r
        cdef int32_t i
        cdef double raw
        find_columns(r)
        self.check_capacity()
        self.columns.check_row(row)
        self.value_rows()
        result = []
        for i in range(r.term_count):
            t = &r.terms[i]
            if t.source == SOURCE_GROUP:
                raw = group_raw(t, members)
            else:
                raw = raw_of(r, t, row)
            result.append((raw, norm(raw, t.low, t.range), multiplier_of(r, t, row)))
        return result

    cdef int check_capacity(self) except -1:
        if self.r.capacity != self.r.fleet.capacity:
            raise RuntimeError("the columns moved: make the ranking anew")
        return 0

    def judge(self, int32_t[::1] rows):
        """Fresh verdicts on ``rows`` (uint8 each), without the trees."""
        cdef Py_ssize_t i
        self.check_capacity()
        result = np.empty(rows.shape[0], np.uint8)
        cdef uint8_t[::1] view = result
        for i in range(rows.shape[0]):
            self.columns.check_row(rows[i])
            view[i] = stage_of(&self.r, rows[i])
        return result

    def score_rows(self, int32_t[::1] rows, double[::1] members=None):
        """Nova's exact scores of ``rows``, normalised over themselves alone; ``members`` of the request's soft group on each
        row, negative if its policy is soft-anti-affinity."""
        cdef ranking_t* r = &self.r
        cdef Py_ssize_t i, j, n = rows.shape[0]
        cdef term_t* t
        cdef double raw, low, high
        find_columns(r)
        self.check_capacity()
        if members is not None and members.shape[0] != n:
            raise ValueError("rows and members differ in length")
        for i in range(n):
            self.columns.check_row(rows[i])
        self.value_rows()
        result = np.zeros(n, np.float64)
        cdef double[::1] view = result
        self.add_nothing()
        if n <= 1:
            return result
        with nogil:
            for j in range(r.term_count):
                t = &r.terms[j]
                if t.source == SOURCE_GROUP and members is None:
                    continue
                low = INFINITY
                high = -INFINITY
                for i in range(n):
                    raw = group_raw(t, members[i]) if t.source == SOURCE_GROUP else raw_of(r, t, rows[i])
                    low = min(low, raw)
                    high = max(high, raw)
                set_range(t, low, high)
            for i in range(n):
                view[i] = true_score(r, rows[i], 0.0 if members is None else members[i])
        return result

    def parts(self, int32_t[::1] rows, double[::1] members=None):
        """Per term, (raw, normalised, multiplier) float64 arrays over ``rows``, normalised over themselves alone."""
        cdef ranking_t* r = &self.r
        cdef Py_ssize_t i, j, n = rows.shape[0]
        cdef term_t* t
        cdef double[:, ::1] of_term
        self.score_rows(rows, members)
        result = []
        for j in range(r.term_count):
            t = &r.terms[j]
            arrays = np.empty((3, n))
            of_term = arrays
            for i in range(n):
                if t.source == SOURCE_GROUP:
                    of_term[0, i] = group_raw(t, 0.0 if members is None else members[i])
                else:
                    of_term[0, i] = raw_of(r, t, rows[i])
                of_term[1, i] = norm(of_term[0, i], t.low, t.range)
                of_term[2, i] = multiplier_of(r, t, rows[i])
            result.append(tuple(arrays))
        return result

    def check(self):
        """Assert that verdicts, counts and trees are what a fresh look at every row gives. For tests. O(rows)."""
        cdef ranking_t* r = &self.r
        cdef int64_t row, node, child
        cdef int32_t side, level
        cdef double value, greatest
        self.refresh()
        counts = [0] * STAGES
        for row in range(r.fleet.rows):
            assert r.stage[row] == stage_of(r, row), f"stage of row {row}"
            counts[r.stage[row]] += 1
            value = stored_score(r, row) if r.stage[row] == 0 else -INFINITY
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
