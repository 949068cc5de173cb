"""The ranking kernel: exact best hosts for one compiled request signature, without looking at every host.

Per signature it keeps the first stage that refuses each row, the row's exact score under *stored* normalisers,
and tournament trees: one per end of each weigher's range (so the normalisers over the passing rows are always known exactly)
and one over the stored scores. While the true normalisers equal the stored ones, the best row is the score tree's leader.
When they have drifted, a row's true score differs from the stored one by at most `slack`, the sum of the greatest change of each
term over its range; the search visits only subtrees whose stored best plus slack reaches the best true score found. Rows that
changed are taken from the fleet's change log, so a decision costs the changes since the last one and a descent.
Stored scores are renewed once the searches have cost as much as a renewal would.

The kernel is C in headers (``rows.h``, ``trees.h``, ``tree_search.h``, ``sync.h``, ``decide.h``, ``by_index.h``, ``upkeep.h``) that
this module alone compiles: one translation unit, in which the compiler inlines what runs once per row. A Cython module per
subject would call across shared objects, through a pointer, for every row.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cimport cython
import numpy as np

from .._fleet cimport Columns
from ._check cimport check_index, check_rows
from ._compile cimport compile_filters, compile_terms
from ._host_index cimport HostIndex
from ._kernel cimport (
    add_nothing, borrow, choose_way, count_again, decide_by_index, decide_by_rows, find_columns, group_raw, held_bytes,
    hold, lay_levels, let_go, multiplier_of, norm, raw_of, set_range, stage_of, sync_index, sync_rows, tally_by_index,
    tally_by_rows, true_score, value_rows, weigh_ways,
)
from ._state cimport (
    HOSTLER_ASSERT, NOT_A_HOST, RULES, SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, STAGES, TERMS, bound_t, need_t, ranking_t,
    term_t, way_t,
)


@cython.no_gc_clear  # the index must outlive `__dealloc__`; nothing that a ranking refers to leads back to it
cdef class Ranking:
    """One request signature compiled against one fleet's columns."""

    def __cinit__(self):
        memset(&self.r, 0, sizeof(ranking_t))
        self.r.seen = -1

    def __dealloc__(self):
        let_go(&self.r)  # which reads terms and the index
        free(self.r.needs)
        free(self.r.bounds)
        free(self.r.masks)
        free(self.r.terms)
        free(self.r.top_row)
        free(self.r.top_score)
        free(self.r.ties)
        if self.r.lender == NULL:
            free(self.r.below)
            free(self.r.base)

    def __init__(self, Columns columns not None, *, uint8_t[::1] class_stage, needs=(), bounds=(), masks=(), terms=(),
                 uint8_t affinity_stage=0, uint8_t anti_affinity_stage=0, bint shuffle=False, int64_t subset=1, HostIndex index=None):
        """``class_stage[k]``: stage that refuses host class k, 0 for none, 255 for rows that are no hosts.

        ``needs``: (resource class index, amount, stage, units); ``bounds``: (column, low, high, stage); ``masks``: (uint8 array of
        capacity, stage); ``terms``: dicts with source, column, values, minval, maxval, multiplier, multipliers,
        group_factor, steady (the raw values of rows never change for as long as the ranking lives), formula, asked (vCPUs, GiB),
        by_load (the mean load of all hosts weighs the resources).
        ``affinity_stage``, ``anti_affinity_stage``: stages of the server group filters, 0 where the policy has none.
        ``shuffle``: rows of the best score are taken in any order; ``subset``: one of so many best rows comes first (draws.py).
        ``index``: searched instead of rows of the ranking's own, which it then has only while it is asked often. Without one, and
        where masks, terms by row, formulas or ``shuffle`` need them, the ranking always has rows of its own.
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
        r.way.asked = columns.c.log_base + columns.c.log_length
        r.counts_at = -1
        self.arrays = {}
        self.set_class_stage(class_stage)
        if len(terms) > TERMS:
            raise ValueError("too many weighers")
        compile_filters(r, columns.arrays[1].shape[0], self.arrays, needs, bounds, masks)
        compile_terms(r, columns.arrays[1].shape[0], self.arrays, terms)
        lay_levels(r)
        self.reserve_top(8)
        if index is not None and index.columns is not columns:
            raise ValueError("an index of another fleet")
        if index is not None and self.can_search() and index.track(needs, bounds, terms):
            self.index = index
            r.shared = &index.s
            r.counts = r.shared.counts
            r.base = <int64_t*>calloc(STAGES + 1, sizeof(int64_t))
            if r.base == NULL:
                raise MemoryError
            self.find_classes()
        elif not hold(r):
            raise MemoryError

    def set_class_stage(self, uint8_t[::1] class_stage):
        """Replace the results by host class (they grow as new host classes appear)."""
        self.check_own_classes()
        if class_stage.shape[0] == 0:
            raise ValueError("class stages are missing")
        self.arrays["class_stage"] = class_stage
        self.r.class_stage = &class_stage[0]
        self.r.class_count = <int32_t>class_stage.shape[0]
        if self.r.shared != NULL:
            self.find_classes()

    def resized(self, needs):
        """A ranking that differs from this one in the amounts that it needs alone, and searches the same index; None if this one
        searches none. ``needs``: as in ``__init__``, of the same resource classes and stages in the same order."""
        cdef Ranking made
        cdef ranking_t* r = &self.r
        cdef int32_t i = 0
        if r.shared == NULL:
            return None
        if len(needs) != r.need_count:
            raise ValueError("the needs differ in number")
        made = self.another()
        for resource, amount, stage, units in needs:
            if resource != r.needs[i].resource or stage != r.needs[i].stage:
                raise ValueError("the needs differ in more than amounts")
            made.r.needs[i].amount = amount
            made.r.needs[i].units = units
            i += 1
        return made

    def judging(self, uint8_t[::1] class_stage):
        """A ranking that differs from this one in the results by host class alone, and searches the same index; None if this one searches
        none. ``class_stage``: as in ``__init__``."""
        cdef Ranking made
        if self.r.shared == NULL:
            return None
        made = self.another()
        made.origin = None
        made.arrays = dict(self.arrays)
        made.r.lender = NULL
        made.r.below = NULL
        made.r.base = <int64_t*>calloc(STAGES + 1, sizeof(int64_t))
        if made.r.base == NULL:
            raise MemoryError
        made.set_class_stage(class_stage)
        return made

    cdef Ranking another(self):
        """A ranking like this one, which searches an index, with filters and terms of its own."""
        cdef Ranking made = Ranking.__new__(Ranking)
        cdef ranking_t* r = &made.r
        borrow(&self.r)
        made.columns, made.index, made.arrays = self.columns, self.index, self.arrays
        made.origin = self if self.origin is None else self.origin
        r[0] = self.r
        r.lender = &made.origin.r
        r.held = False
        r.stage = r.aside = r.leader = NULL
        r.score = r.best = r.top_score = NULL
        r.ties = r.top_row = NULL
        r.counts = r.shared.counts
        r.seen = r.counts_at = -1
        r.rebuilds = r.rescores = r.work = 0
        memset(&r.way, 0, sizeof(way_t))
        r.way.asked = r.fleet.log_base + r.fleet.log_length
        r.needs = <need_t*>malloc(max(r.need_count, 1) * sizeof(need_t))
        r.bounds = <bound_t*>malloc(max(r.bound_count, 1) * sizeof(bound_t))
        r.masks = NULL
        r.terms = <term_t*>malloc(max(r.term_count, 1) * sizeof(term_t))
        if r.needs == NULL or r.bounds == NULL or r.terms == NULL:
            raise MemoryError
        memcpy(r.needs, self.r.needs, r.need_count * sizeof(need_t))
        memcpy(r.bounds, self.r.bounds, r.bound_count * sizeof(bound_t))
        memcpy(r.terms, self.r.terms, r.term_count * sizeof(term_t))
        made.reserve_top(1)
        return made

    cdef bint can_search(self) noexcept:
        """Whether a search of the index can decide: nothing is kept by row but what it keeps."""
        cdef ranking_t* r = &self.r
        cdef int32_t i
        for i in range(r.term_count):
            if r.terms[i].source not in (SOURCE_COLUMN, SOURCE_CLASS, SOURCE_GROUP):
                return False
        return r.mask_count == 0 and not r.shuffle and r.need_count + r.bound_count <= RULES

    cdef int find_classes(self) except -1:
        """Count off the classes that pass, and those whose rows a rule may count elsewhere."""
        cdef ranking_t* r = &self.r
        cdef int32_t k, n = r.class_count, i
        cdef uint8_t first = NOT_A_HOST, stage
        cdef term_t* t
        r.below = <int32_t*>realloc(r.below, 2 * (n + 1) * sizeof(int32_t))
        if r.below == NULL:
            raise MemoryError
        for i in range(r.need_count):
            first = min(first, r.needs[i].stage)
        for i in range(r.bound_count):
            first = min(first, r.bounds[i].stage)
        r.below[0] = r.below[n + 1] = 0
        for k in range(n):
            stage = r.class_stage[k]
            r.below[k + 1] = r.below[k] + (stage == 0)
            r.below[n + k + 2] = r.below[n + k + 1] + (stage == 0 or (stage != NOT_A_HOST and stage > first))
        for i in range(r.term_count):
            t = &r.terms[i]
            t.value_low = INFINITY
            t.value_high = -INFINITY
            if t.source != SOURCE_CLASS:
                continue
            for k in range(min(n, <int32_t>self.arrays["values", i].shape[0])):
                if r.class_stage[k] == 0:
                    t.value_low = min(t.value_low, t.values[k])
                    t.value_high = max(t.value_high, t.values[k])
        r.base[STAGES] = r.counts_at = -1
        r.edition += 1
        return 0

    def set_class_values(self, int32_t term, double[::1] values, multipliers):
        """Replace a class-sourced term's values, or any term's multipliers by class, after host classes were added."""
        cdef double[::1] by_class
        self.check_own_classes()
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
        if self.r.shared != NULL:
            self.find_classes()

    cdef int reserve_top(self, int64_t wanted) except -1:
        """Reserve space for ``wanted`` best rows, and for those among which the random choice is made."""
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
        """Bytes of rows of the ranking's own."""
        return held_bytes(&self.r) if self.r.held else 0

    @property
    def statistics(self):
        """(rebuilds, renewals of the stored scores) since it was made."""
        return self.r.rebuilds, self.r.rescores

    @property
    def held(self):
        """True while the ranking has rows of its own."""
        return self.r.held

    @property
    def seen(self):
        """Change-log version that the stages are of, -1 before the first decision."""
        return self.r.seen if self.r.held else self.r.shared.index.seen

    cdef void sync(self) noexcept nogil:
        """Catch up with the change log. `check_capacity` was called."""
        borrow(&self.r)
        if self.r.shared != NULL:
            choose_way(&self.r)
        if self.r.held:
            sync_rows(&self.r)
        else:
            find_columns(&self.r)
            sync_index(&self.r)

    cdef void search_as(self, const int64_t* amounts) noexcept nogil:
        """Catch up with the change log, to decide by the index, with these amounts of what is needed from now on. `check_capacity`
        was called, and the ranking has no rows of its own."""
        HOSTLER_ASSERT(not self.r.held)
        cdef int32_t i
        borrow(&self.r)
        for i in range(self.r.need_count):
            self.r.needs[i].amount = amounts[i]
        self.r.counts_at = -1
        find_columns(&self.r)
        sync_index(&self.r)

    cdef int worth(self, way_t* way) noexcept nogil:
        """Whether rows of its own are worth their upkeep to a shape that is decided by `search_as`: 1 if so."""
        return weigh_ways(way, &self.r, False)

    cdef bint keep_rows(self) noexcept nogil:
        """Let the ranking have rows of its own. False if there is no memory for them."""
        return hold(&self.r)

    cdef void decide(self, int32_t group, int32_t wanted, uint64_t seed) noexcept nogil:
        """Fill the list of best rows for one guest, of server group `group` (-1: none), drawing from `seed`; its length is r.found.
        `sync` was called, and the list has room."""
        if self.r.held:
            decide_by_rows(&self.r, self.columns.groups, group, wanted, seed)
        else:
            decide_by_index(&self.r, self.columns.groups, group, wanted, seed)

    cdef void tally(self, int32_t group, int64_t* out) noexcept nogil:
        """Rows by first refusing stage for a guest of server group `group`, int64[STAGES]. `decide` was called for the same group."""
        if self.r.held:
            tally_by_rows(&self.r, self.columns.groups, group, out)
        else:
            tally_by_index(&self.r, self.columns.groups, group, out)

    cdef void weigh_row(self, int32_t row, double members, double* out) noexcept nogil:
        """Per term raw, normalised and multiplier of one row, double[terms][3], under the normalisers of the latest `decide`.
        `check_capacity` was called."""
        cdef ranking_t* r = &self.r
        cdef int32_t i
        cdef double raw
        find_columns(r)
        value_rows(r)
        for i in range(r.term_count):
            raw = group_raw(&r.terms[i], members) if r.terms[i].source == SOURCE_GROUP else raw_of(r, &r.terms[i], row)
            out[3 * i] = raw
            out[3 * i + 1] = norm(raw, r.terms[i].low, r.terms[i].range)
            out[3 * i + 2] = multiplier_of(r, &r.terms[i], row)

    cdef bint passes(self, int32_t row) noexcept nogil:
        """Whether no stage refuses the row as it is now. `check_capacity` was called."""
        return stage_of(&self.r, row) == 0

    # Python's side

    def refresh(self):
        """Catch up with the fleet. RuntimeError if the columns were reallocated since the ranking was made."""
        self.check_capacity()
        self.catch_up()

    cdef int catch_up(self) except -1:
        self.sync()
        if self.r.shared != NULL and self.r.shared.failed:
            self.r.shared.failed = False
            raise MemoryError
        return 0

    def best(self, int32_t group=-1, int32_t wanted=1, uint64_t seed=0):
        """The ``wanted`` best rows and scores as two lists, best first, ties by row; random choices are drawn from ``seed``.
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
        cdef int64_t row
        self.refresh()
        result = np.empty(self.r.fleet.rows, np.uint8)
        cdef uint8_t[::1] view = result
        if view.shape[0] and self.r.held:
            memcpy(&view[0], self.r.stage, view.shape[0])
        elif view.shape[0]:
            with nogil:
                for row in range(view.shape[0]):
                    view[row] = stage_of(&self.r, row)
            # A scan costs as much as so many visits: rows of the ranking's own are worth it sooner.
            self.r.way.visited = max(self.r.way.visited, self.r.fleet.rows // 8)
        return result

    def counts(self, int32_t group=-1, int width=STAGES):
        """Rows by first refusing stage for a guest of server group ``group``, as a list of ``width``; [0] passed, [255] are no hosts."""
        cdef int64_t counts[STAGES]
        if group >= 0:
            self.columns.check_group(group)
        if width < 0 or width > STAGES:
            raise ValueError("width beyond the stages")
        self.check_capacity()
        if self.r.held:
            self.catch_up()  # which may let its rows go
        if not self.r.held:
            find_columns(&self.r)
            if sync_index(&self.r) < 0:
                raise MemoryError
            count_again(&self.r)
        self.tally(group, counts)
        return [counts[i] for i in range(width)]

    def row_parts(self, int32_t row, double members=0.0):
        """Per term (raw, normalised, multiplier) of one row under the normalisers of the latest ``best`` or ``score_rows``."""
        cdef double parts[3 * TERMS]
        self.check_capacity()
        self.columns.check_row(row)
        self.weigh_row(row, members, parts)
        return [(parts[3 * i], parts[3 * i + 1], parts[3 * i + 2]) for i in range(self.r.term_count)]

    cdef int check_own_classes(self) except -1:
        if self.r.lender != NULL:
            raise RuntimeError("a ranking that was made of another judges host classes as that one does")
        return 0

    cdef int check_capacity(self) except -1:
        if self.r.capacity != self.r.fleet.capacity:
            raise RuntimeError("the columns moved: make a new ranking")
        borrow(&self.r)
        return 0

    def judge(self, int32_t[::1] rows):
        """The first stage that refuses each of ``rows`` (uint8), computed without the trees."""
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
        value_rows(&self.r)
        result = np.zeros(n, np.float64)
        cdef double[::1] view = result
        add_nothing(&self.r)
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
        """Assert that stages, counts and trees are what a fresh look at every row gives. For tests. O(rows)."""
        self.refresh()
        if self.r.held:
            check_rows(&self.r)
        else:
            check_index(&self.r)
