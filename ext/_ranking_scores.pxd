"""What a ranking says of one row: the first stage that refuses it, the weighers' raw values, and the score."""

from libc.math cimport INFINITY, fabs
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from ._fleet cimport (
    CPU_ALLOCATION_RATIO, FREE_RAM_MB, RAM_ALLOCATION_RATIO, TOTAL_USABLE_RAM_MB, VCPUS_TOTAL, VCPUS_USED, columns_t,
)
from ._ranking_state cimport (
    HOSTLER_ASSERT, HOSTLER_ASSERT_INDEX, NOT_A_HOST, SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, SOURCE_PACKING, SOURCE_ROW,
    hostler_figures, hostler_wish, ranking_t, term_t,
)

cdef extern from "scores.h":
    void hostler_add_term(double* score, const double* raw, int64_t n, double minval, double low, double range, double multiplier) noexcept nogil
    void hostler_refuse(double* score, const uint8_t* stage, int64_t n) noexcept nogil

cdef extern from "vector_fit.h":
    double hostler_fit(int formula, const hostler_figures* figures, int64_t row, const hostler_wish* wish) noexcept nogil
    void hostler_fit_all(int formula, const hostler_figures* figures, const hostler_wish* wish, int64_t n, double maxval,
                         double* out) noexcept nogil
    void hostler_mean_load(const hostler_figures* figures, const uint8_t* stage, int64_t n, double* load) noexcept nogil


cdef inline void borrow(ranking_t* r) noexcept nogil:
    """Take up what the lender's verdicts and values by class are now: they move when host classes are added."""
    cdef int32_t i
    if r.lender == NULL or r.edition == r.lender.edition:
        return
    r.below = r.lender.below
    r.base = r.lender.base
    r.class_stage = r.lender.class_stage
    r.class_count = r.lender.class_count
    for i in range(r.term_count):
        r.terms[i].values = r.lender.terms[i].values
        r.terms[i].value_low = r.lender.terms[i].value_low
        r.terms[i].value_high = r.lender.terms[i].value_high
        r.terms[i].multipliers = r.lender.terms[i].multipliers
        r.terms[i].least_multiplier = r.lender.terms[i].least_multiplier
        r.terms[i].greatest_multiplier = r.lender.terms[i].greatest_multiplier
    r.counts_at = -1
    r.edition = r.lender.edition


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


cdef inline double formula_value(ranking_t* r, term_t* t, int64_t row) noexcept nogil:
    cdef double value = hostler_fit(t.formula, &r.figures, row, &t.wish)
    return t.maxval if t.has_maxval and value > t.maxval else value


cdef inline void value_row(ranking_t* r, int64_t row) noexcept nogil:
    """Bring the formulas' values of one row up to date, where they depend on no other."""
    cdef int32_t i
    for i in range(r.term_count):
        if r.terms[i].source == SOURCE_PACKING:
            r.terms[i].values[row] = formula_value(r, &r.terms[i], row)


cdef inline void value_all(ranking_t* r) noexcept nogil:
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


cdef inline void set_range(term_t* t, double low, double high) noexcept nogil:
    """The ends of the term's range: minval and maxval where the weigher sets them, else the least and greatest raw value."""
    if t.has_minval:
        low = t.minval
    if t.has_maxval:
        high = t.maxval
    t.low = low
    t.range = high - low if high > low else 0.0


cdef inline double norm(double value, double low, double span) noexcept nogil:
    return 0.0 if span == 0.0 else (value - low) / span


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


cdef inline void score_all(ranking_t* r) noexcept nogil:
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


cdef inline double greatest_change(term_t* t, double low, double high, double* size) noexcept nogil:
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
