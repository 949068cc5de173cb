"""The ranking kernel: exact best hosts for one compiled request signature, without looking at every host.

Per signature it keeps each row's verdict (the first stage that refuses it), the row's exact score under *stored* normalisers,
and tournament trees: one per end of each weigher's range (so the normalisers over the passing rows are always known exactly)
and one over the stored scores. While the true normalisers equal the stored ones, the best row is the score tree's leader.
When they have drifted, a row's true score differs from the stored one by at most `slack`, the sum of the greatest change of each
term over its range; the search visits only subtrees whose stored best plus slack reaches the best true score found. Rows that
changed are taken from the fleet's change log, so a decision costs the changes since the last one and a descent.
Stored scores are renewed once the searches have cost as much as a renewal would.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from ._fleet cimport RAM_ALLOCATION_RATIO, Columns
from ._ranking_decide cimport add_nothing, decide, tally
from ._ranking_index cimport count_again, decide_by_index, slot_of, sync_index, tally_by_index
from ._ranking_scores cimport (
    borrow, find_columns, formula_value, group_raw, multiplier_of, norm, raw_of, set_range, stage_of, stored_score, true_score,
)
from ._ranking_state cimport (
    DELTA_PERP, DOT_PRODUCT, FANOUT, HOSTLER_ASSERT, NOT_A_HOST, RULES, SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, SOURCE_PACKING, SOURCE_ROW, STAGES,
    TERMS, TRACKED, bound_t, hostler_index, hostler_index_free, mask_t, need_t, ranking_t, shared_t, term_t, way_t,
)
from ._ranking_sync cimport sync, value_rows
from ._ranking_trees cimport side_value, slot


cdef uint8_t filter_stage(int stage) except 0:
    if not 0 < stage < NOT_A_HOST:
        raise ValueError("a filter's stage must be within [1, 254]")
    return <uint8_t>stage


cdef void lay_levels(ranking_t* r) noexcept nogil:
    """Lay out the trees over all rows that there is room for."""
    cdef int64_t size = r.capacity
    while True:
        size = (size + FANOUT - 1) // FANOUT
        r.level_start[r.levels] = r.nodes
        r.level_size[r.levels] = size
        r.nodes += size
        r.levels += 1
        if size == 1:
            return


cdef int64_t held_bytes(ranking_t* r) noexcept nogil:
    """Bytes of rows of the ranking's own."""
    cdef int64_t by_row = 10 + 4 * r.shuffle
    cdef int32_t i
    for i in range(r.term_count):
        by_row += 8 * (r.terms[i].source == SOURCE_PACKING)
    return r.capacity * by_row + (r.side_count + 1) * r.nodes * 9


cdef void let_go(ranking_t* r) noexcept nogil:
    """Give up rows of the ranking's own."""
    if r.shared != NULL and r.held:
        r.shared.held_bytes -= held_bytes(r)
    if r.shared == NULL or r.counts != r.shared.counts:
        free(r.counts)
    r.counts = NULL if r.shared == NULL else r.shared.counts
    free(r.stage)
    free(r.score)
    free(r.aside)
    free(r.ties)
    free(r.best)
    free(r.leader)
    r.stage = r.aside = r.leader = NULL
    r.score = r.best = NULL
    r.ties = NULL
    r.held = False


cdef bint hold(ranking_t* r) noexcept nogil:
    """Let the ranking have rows of its own, to be filled. False if there is no memory for them."""
    r.stage = <uint8_t*>malloc(r.capacity)
    r.score = <double*>malloc(r.capacity * sizeof(double))
    r.aside = <uint8_t*>calloc(r.capacity, 1)
    r.ties = <int32_t*>malloc(r.capacity * sizeof(int32_t) if r.shuffle else 1)
    r.best = <double*>malloc((r.side_count + 1) * r.nodes * sizeof(double))
    r.leader = <uint8_t*>malloc((r.side_count + 1) * r.nodes)
    r.counts = <int64_t*>calloc(STAGES, sizeof(int64_t))
    if (r.stage == NULL or r.score == NULL or r.aside == NULL or r.ties == NULL or r.best == NULL or r.leader == NULL
            or r.counts == NULL):
        let_go(r)
        return False
    memset(r.stage, NOT_A_HOST, r.capacity)
    r.seen = -1
    r.held = True
    if r.shared != NULL:
        r.shared.held_bytes += held_bytes(r)
    return True


cdef int weigh_ways(way_t* way, ranking_t* r, bint held) noexcept nogil:
    """Count a decision, and compare what either way of deciding costs: to catch up with all changes since the latest decision, some
    two visits of a node each, or to search. 1: rows of its own are worth their upkeep, -1: those that are held are not, 0: neither."""
    cdef int64_t version = r.fleet.log_base + r.fleet.log_length, gap = version - way.asked
    way.asked = version
    way.asks += 1
    if way.asks <= 2:
        way.gap = 16 * gap
        return 0
    way.gap += (16 * gap - way.gap) // 8
    if held:
        if way.gap > 4 * 8 * way.visited + 64:
            way.spent = 0
            return -1
        return 0
    if way.gap > 8 * way.visited:
        way.spent = 0
        return 0
    way.spent += way.visited
    if way.spent > r.fleet.rows // 4 + 64 and r.shared.held_bytes + held_bytes(r) <= r.shared.held_room:
        way.spent = 0
        return 1
    return 0


cdef void choose_way(ranking_t* r) noexcept nogil:
    """Keep rows of its own or not."""
    cdef int chosen = weigh_ways(&r.way, r, r.held)
    if chosen < 0:
        let_go(r)
    elif chosen > 0:
        hold(r)


cdef class HostIndex:
    """What all rankings of a fleet search together: its rows by class and by the values of the columns that the rankings read."""

    def __cinit__(self):
        memset(&self.s, 0, sizeof(shared_t))
        self.s.index.seen = -1

    def __dealloc__(self):
        hostler_index_free(&self.s.index)

    def __init__(self, Columns columns not None, *, int64_t held_room=0):
        """``held_room``: bytes that rankings with rows of their own may take together."""
        self.columns = columns
        self.s.held_room = held_room

    cdef bint track(self, needs, bounds, terms) except -1:
        """Have the index keep every column that a ranking reads. False if there are too many."""
        cdef int32_t i
        wanted = {need[0] for need in needs} | {~bound[0] for bound in bounds}
        wanted |= {~term["column"] for term in terms if term["source"] == SOURCE_COLUMN}
        new = [source for source in sorted(wanted) if slot_of(&self.s.index, source) < 0]
        if self.s.index.width + len(new) > TRACKED:
            return False
        if new:
            hostler_index_free(&self.s.index)
        for source in new:
            self.s.index.source[self.s.index.width] = source
            self.s.index.width += 1
        return True

    @property
    def nbytes(self):
        """Bytes that the index holds, and the rows of rankings beside it."""
        return self.s.index.bytes + self.s.held_bytes

    @property
    def held_room(self):
        """Bytes that rankings with rows of their own may take together."""
        return self.s.held_room

    @held_room.setter
    def held_room(self, int64_t room):
        self.s.held_room = room

    @property
    def statistics(self):
        """(builds, nodes visited by the latest decision)."""
        return self.s.index.builds, self.s.query.visited


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
        let_go(&self.r)
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
        self.compile_filters(needs, bounds, masks)
        self.compile_terms(terms)
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
        """Replace the verdicts by class (they grow as new host classes appear)."""
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
        """A ranking that differs from this one in the verdicts by class alone, and searches the same index; None if this one searches
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
        """Change-log version that the verdicts stand for, -1 before the first decision."""
        return self.r.seen if self.r.held else self.r.shared.index.seen

    cdef void sync(self) noexcept nogil:
        """Catch up with the change log. `check_capacity` was called."""
        borrow(&self.r)
        if self.r.shared != NULL:
            choose_way(&self.r)
        if self.r.held:
            sync(&self.r)
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
            decide(&self.r, self.columns.groups, group, wanted, seed)
        else:
            decide_by_index(&self.r, self.columns.groups, group, wanted, seed)

    cdef void tally(self, int32_t group, int64_t* out) noexcept nogil:
        """Rows by first refusing stage for a guest of server group `group`, int64[STAGES]. `decide` was called for the same group."""
        if self.r.held:
            tally(&self.r, self.columns.groups, group, out)
        else:
            tally_by_index(&self.r, self.columns.groups, group, out)

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
        if not self.r.held:
            find_columns(&self.r)
            if sync_index(&self.r) < 0:
                raise MemoryError
            count_again(&self.r)
        else:
            self.catch_up()
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
        value_rows(&self.r)
        result = []
        for i in range(r.term_count):
            t = &r.terms[i]
            if t.source == SOURCE_GROUP:
                raw = group_raw(t, members)
            else:
                raw = raw_of(r, t, row)
            result.append((raw, norm(raw, t.low, t.range), multiplier_of(r, t, row)))
        return result

    cdef int check_own_classes(self) except -1:
        if self.r.lender != NULL:
            raise RuntimeError("a ranking that was made of another judges host classes as that one does")
        return 0

    cdef int check_capacity(self) except -1:
        if self.r.capacity != self.r.fleet.capacity:
            raise RuntimeError("the columns moved: make the ranking anew")
        borrow(&self.r)
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
        """Assert that verdicts, counts and trees are what a fresh look at every row gives. For tests. O(rows)."""
        cdef ranking_t* r = &self.r
        cdef int64_t row, node, child
        cdef int32_t side, level
        cdef double value, greatest
        self.refresh()
        if not r.held:
            self.check_index()
            return
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

    cdef int check_index(self) except -1:
        cdef ranking_t* r = &self.r
        cdef hostler_index* index = &r.shared.index
        cdef int64_t row, place
        cdef int32_t w, source
        assert index.rows == r.fleet.rows and index.seen == r.fleet.log_base + r.fleet.log_length, "rows of the index"
        for row in range(index.rows):
            place = index.place_of[row]
            assert index.row_at[place] == row, f"place of row {row}"
            assert index.class_at[place] == r.fleet.class_of[row], f"class of row {row}"
            assert not index.aside[row], f"row {row} left aside"
            for w in range(index.width):
                source = index.source[w]
                value = r.fleet.host[~source * r.capacity + row] if source < 0 else r.fleet.avail[source * r.capacity + row]
                assert index.values[(place // FANOUT * index.width + w) * FANOUT + place % FANOUT] == value, f"values of row {row}"
        return 0
