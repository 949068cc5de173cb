"""Which rules alone keep rows out, and by how much. ``near_misses.h`` judges blocks of rows, of which ``near_blocks.h``
keeps what they say until a row changes."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free

from ._fleet cimport Columns, columns_t

cdef extern from "near_blocks.h" nogil:
    enum:
        NEAR_STAGES
    int64_t NEAR_HIDDEN
    ctypedef struct near_need_t:
        int32_t stage, resource
        bint units
        int64_t amount
    ctypedef struct near_bound_t:
        int32_t stage, column
        double low, high
    ctypedef struct near_mask_t:
        int32_t stage
        const uint8_t* passes
    ctypedef struct near_rules_t:
        const int64_t* class_word
        int64_t class_count
        const uint8_t* considered
        const near_need_t* needs
        const near_bound_t* bounds
        const near_mask_t* masks
        int32_t need_count, bound_count, mask_count
        int32_t split_stage, split_to, split_column
        double now, within
        int64_t beats
        const uint8_t* split
    ctypedef struct near_short_t:
        int64_t count, nearest
        int32_t row
    ctypedef struct near_state_t:
        int32_t slot_count
        int16_t slot_of[512]
        int16_t stage_of[512]
        int64_t block_count
    ctypedef struct near_found_t:
        int64_t passing, least
        int32_t first, nearest
        int64_t alone[512]
        int32_t alone_first[512]
        near_short_t* shorts
    void near_number_stages(near_state_t* s, const near_rules_t* r)
    int64_t near_blocks_of(int64_t rows)
    int near_reserve_found(near_state_t* s, const near_rules_t* r)
    int near_reserve_could(near_state_t* s)
    void near_free(near_state_t* s)
    int64_t near_bytes(const near_state_t* s, const near_rules_t* r)
    void near_find(const columns_t* c, const near_rules_t* r, near_state_t* s, near_found_t* found)
    bint near_could_pass(const columns_t* c, const near_rules_t* r, near_state_t* s)

HIDDEN = NEAR_HIDDEN


cdef class Rules:
    """What judges rows, each rule under the number of its stage, which is within [1, 511]. What it found is kept by blocks of 256 rows:
    while these rules are in use, rows whose columns or masks change must be logged.

    ``class_words[k]``: by host class, 2**32 for each stage that refuses it plus their sum, or HIDDEN for rows that are not considered.
    ``needs``: (resource class index, amount, stage, units: min_unit and step_size refuse, too); ``bounds``: (column, low, high, stage),
    those of one stage one after the other; ``masks``: (uint8 array of capacity, 0: refused, stage); ``considered``: uint8 of capacity,
    None for all rows; ``split``: (stage, uint8 by host class, stage that rows of the classes that are not 0 count for where the first alone
    refuses them, column, now, within): one more rule refuses those of the stage's rows that are of a class with 2, or whose value of the
    column is farther than ``within`` from ``now`` (NaN is near, and everything if ``now`` is NaN).

    ValueError for a stage outside [1, 511], an array of another length or dtype, or without class words; IndexError for a resource class
    or column that there is not; OverflowError for an amount beyond int64; RuntimeError if the columns were reallocated since.
    """

    cdef near_rules_t r
    cdef near_state_t state
    cdef Columns columns
    cdef near_need_t* needs
    cdef near_bound_t* bounds
    cdef near_mask_t* masks
    cdef tuple arrays
    cdef list stages
    cdef int64_t capacity

    def __dealloc__(self):
        near_free(&self.state)
        free(self.needs)
        free(self.bounds)
        free(self.masks)

    def __init__(self, Columns columns not None, const int64_t[::1] class_words not None, needs=(), bounds=(), masks=(),
                 const uint8_t[::1] considered=None, split=None):
        cdef const uint8_t[::1] passes
        cdef const uint8_t[::1] classes
        cdef int32_t i
        cdef columns_t* c = &columns.c
        if self.columns is not None:
            raise RuntimeError("rules are made once")
        if class_words.shape[0] == 0:
            raise ValueError("class words are missing")
        self.columns, self.stages, self.capacity = columns, [need[2] for need in needs], c.capacity
        for stage in (*self.stages, *(bound[3] for bound in bounds), *(mask[1] for mask in masks)):
            if not 1 <= stage < NEAR_STAGES:
                raise ValueError("a stage must be within [1, 511]")
        self.needs = <near_need_t*>calloc(max(len(needs), 1), sizeof(near_need_t))
        self.bounds = <near_bound_t*>calloc(max(len(bounds), 1), sizeof(near_bound_t))
        self.masks = <near_mask_t*>calloc(max(len(masks), 1), sizeof(near_mask_t))
        if self.needs == NULL or self.bounds == NULL or self.masks == NULL:
            raise MemoryError
        for i, (resource, amount, stage, units) in enumerate(needs):
            if not 0 <= resource < c.classes:
                raise IndexError("resource class out of range")
            self.needs[i] = near_need_t(stage, resource, units, amount)
        for i, (column, low, high, stage) in enumerate(bounds):
            if not 0 <= column < columns.arrays[1].shape[0]:
                raise IndexError("column out of range")
            self.bounds[i] = near_bound_t(stage, column, low, high)
        for i, (array, stage) in enumerate(masks):
            passes = array
            if passes.shape[0] != c.capacity:
                raise ValueError("a mask has one entry per row")
            self.masks[i].stage = stage
            self.masks[i].passes = &passes[0]
        if considered is not None and considered.shape[0] != c.capacity:
            raise ValueError("a mask has one entry per row")
        self.r.class_word, self.r.class_count = &class_words[0], class_words.shape[0]
        if considered is not None:
            self.r.considered = &considered[0]
        self.r.needs, self.r.bounds, self.r.masks = self.needs, self.bounds, self.masks
        self.r.need_count, self.r.bound_count, self.r.mask_count = <int32_t>len(needs), <int32_t>len(bounds), <int32_t>len(masks)
        if split is not None:
            stage, classes, to, column, now, within = split
            if not 0 <= column < columns.arrays[1].shape[0]:
                raise IndexError("column out of range")
            if classes.shape[0] != class_words.shape[0] or not 1 <= to < NEAR_STAGES:
                raise ValueError("a split has one entry per class and a stage within [1, 511]")
            self.r.split_stage, self.r.split_to, self.r.split = stage, to, &classes[0]
            self.r.split_column, self.r.now, self.r.within = column, now, within
        self.arrays = class_words, considered, [mask[0] for mask in masks], split
        self.state.block_count = near_blocks_of(self.capacity)
        near_number_stages(&self.state, &self.r)

    cdef int check(self) except -1:
        if self.columns is None or self.columns.c.capacity != self.capacity:
            raise RuntimeError("the columns moved: make new rules")
        return 0

    def set_time(self, double now, double within, int64_t beats):
        """Give the split another time, and how far from it is near; without a split it changes nothing. ``beats``: a number that is
        another one where values of its column may have changed that were not logged. O(1)."""
        if within != self.r.within:
            near_free(&self.state)
        self.r.now, self.r.within, self.r.beats = now, within, beats

    @property
    def nbytes(self):
        """Bytes of what is kept of blocks."""
        return near_bytes(&self.state, &self.r)

    def find(self):
        """(rows that no rule refuses, the first of them or -1, fewest rules that refuse a row or -1, the first such row or -1, alone,
        shorts). ``alone``: {stage: (rows that it alone refuses, the first of them)}. ``shorts``: {stage of a need: three times (rows
        that it alone refuses, one of them, amount)}: rows of which too little is left, the one with most and what is left; rows whose
        unit rules refuse, and the greatest amount that they allow; rows of which both is true, and the greatest max_unit. The first
        row of equals. O(rows) the first time, then O(blocks + rows of the blocks of changed rows)."""
        cdef near_found_t found
        cdef int32_t i
        self.check()
        if near_reserve_found(&self.state, &self.r) < 0:
            raise MemoryError
        found.shorts = <near_short_t*>calloc(max(3 * self.r.need_count, 1), sizeof(near_short_t))
        if found.shorts == NULL:
            raise MemoryError
        try:
            with nogil:
                near_find(&self.columns.c, &self.r, &self.state, &found)
            alone = {
                self.state.stage_of[i]: (found.alone[i], found.alone_first[i])
                for i in range(self.state.slot_count) if found.alone[i]
            }
            shorts = {}
            for i in range(self.r.need_count):
                shorts[self.stages[i]] = tuple([
                    (found.shorts[k].count, found.shorts[k].row, found.shorts[k].nearest) for k in range(3 * i, 3 * i + 3)
                ])
        finally:
            free(found.shorts)
        return found.passing, found.first, found.least, found.nearest, alone, shorts

    def could_pass(self):
        """Whether a row passes if nothing of it is used: needs are held against its limit and its unit rules. O(rows) the first time
        that none does, then as ``find``."""
        cdef bint could
        self.check()
        if near_reserve_could(&self.state) < 0:
            raise MemoryError
        with nogil:
            could = near_could_pass(&self.columns.c, &self.r, &self.state)
        return could
