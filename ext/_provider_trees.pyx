"""Whether provider trees have a candidate for requests whose slots do not compete for a provider's amounts, but for those of equal
slots; and the first candidate of a tree. provider_trees_py.py is the pure-Python twin."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free

import numpy as np

from ._fleet cimport Columns, columns_t

cdef class TreeCounts:
    """A query on the trees of a fleet.

    ``root``, ``tree_of``: the root's row and the tree of each row (-1: none); ``rows``: all rows by tree, the root first; ``starts``:
    where each tree begins, and the end; ``unsure``: by tree, whether sharing providers serve it, None: no tree. ``slots``: (needs,
    traits, member, outcast, tree, collective, apart, count), where needs are (resource class, amount, units) and the masks, uint8 by
    host class or None, say which providers have the traits, are in the aggregates asked for, or in a forbidden one. ``roots``: the
    host classes that a root may have, None: all. ``required``: masks of which the providers of collective slots need one host class
    each together.

    IndexError for a resource class that there is not; ValueError for arrays that differ in length, a slot without needs, a count
    below 1 or an amount below 1; RuntimeError if the columns were reallocated since.
    """

    def __dealloc__(self):
        free(self.needs)
        free(self.slots)
        free(self.required)

    def __init__(self, Columns columns not None, const int32_t[::1] root not None, const int32_t[::1] tree_of not None,
                 const int32_t[::1] rows not None, const int64_t[::1] starts not None, const uint8_t[::1] unsure, slots, roots=None,
                 required=()):
        cdef int32_t i, at = 0
        if self.columns is not None:
            raise RuntimeError("a query is made once")
        if starts.shape[0] == 0 or starts[starts.shape[0] - 1] != rows.shape[0]:
            raise ValueError("the starts do not end where the rows do")
        if unsure is not None and unsure.shape[0] != starts.shape[0] - 1:
            raise ValueError("a mark for each tree is needed")
        if tree_of.shape[0] > root.shape[0] or root.shape[0] > columns.c.capacity:
            raise ValueError("arrays of rows differ in length")
        self.capacity, self.kept, self.classes = columns.c.capacity, [], -1
        self.root, self.tree_of, self.rows, self.starts, self.unsure = root, tree_of, rows, starts, unsure
        self.slot_count, self.required_count = <int32_t>len(slots), <int32_t>len(required)
        self.needs = <need_t*>calloc(max(sum([len(slot[0]) for slot in slots]), 1), sizeof(need_t))
        self.slots = <slot_t*>calloc(max(len(slots), 1), sizeof(slot_t))
        self.required = <const uint8_t**>calloc(max(len(required), 1), sizeof(uint8_t*))
        if self.needs == NULL or self.slots == NULL or self.required == NULL:
            raise MemoryError
        for i, (needs, traits, member, outcast, tree, collective, apart, count) in enumerate(slots):
            if not needs or count < 1:
                raise ValueError("a slot needs an amount, and a count of 1 at least")
            self.slots[i].first_need, self.slots[i].needs = at, <int32_t>len(needs)
            for resource, amount, units in needs:
                if not 0 <= resource < columns.c.classes:
                    raise IndexError("resource class out of range")
                if amount < 1:
                    raise ValueError("an amount must be at least 1")
                self.needs[at] = need_t(resource, units, amount)
                at += 1
            self.slots[i].traits, self.slots[i].member = self.mask(traits), self.mask(member)
            self.slots[i].outcast, self.slots[i].tree = self.mask(outcast), tree
            self.slots[i].collective, self.slots[i].apart, self.slots[i].count = collective, apart, count
            self.filled += count
        self.roots = self.mask(roots)
        for i, each in enumerate(required):
            self.required[i] = self.mask(each)
        self.columns = columns

    cdef const uint8_t* mask(self, array) except? NULL:
        cdef const uint8_t[::1] mask
        if array is None:
            return NULL
        mask = array
        if mask.shape[0] == 0 or self.classes not in (-1, mask.shape[0]):
            raise ValueError("masks of host classes differ in length")
        self.classes = mask.shape[0]
        self.kept.append(array)
        return &mask[0]

    cdef int check(self) except -1:
        if self.columns is None or self.columns.c.capacity != self.capacity:
            raise RuntimeError("the columns moved: make a new query")
        return 0

    cdef bint able(self, const slot_t* slot, int32_t row, int32_t tree, int32_t top) noexcept nogil:
        """Whether a provider can fill a slot. ``top``: the host class of the tree's root."""
        cdef const columns_t* c = &self.columns.c
        cdef int32_t number = c.class_of[row], i
        cdef const need_t* need
        cdef int64_t at
        for i in range(slot.needs):
            need = &self.needs[slot.first_need + i]
            at = need.resource * c.capacity + row
            if c.avail[at] < need.amount:
                return False
            if need.units and (c.min_unit[at] > need.amount or need.amount % max(c.step_size[at], 1) != 0):
                return False
        if slot.tree >= 0 and slot.tree != tree:
            return False
        if slot.traits != NULL and not slot.traits[number]:
            return False
        if slot.member != NULL and not (slot.member[number] or (slot.collective and slot.member[top])):
            return False
        return slot.outcast == NULL or not (slot.outcast[number] or (slot.collective and slot.outcast[top]))

    cdef int64_t times(self, const slot_t* slot, int32_t row) noexcept nogil:
        """How many of the equal slots an able provider fills."""
        cdef int64_t most = slot.count, i
        cdef const need_t* need
        if slot.apart:
            return 1
        for i in range(slot.needs):
            need = &self.needs[slot.first_need + i]
            most = min(most, self.columns.c.avail[need.resource * self.columns.c.capacity + row] // need.amount)
        return most

    cdef int judge(self, int32_t row, int32_t* way) noexcept nogil:
        """Whether the tree of a root has a candidate: NONE, SOME or UNSURE. ``way``: where the first one goes, or NULL."""
        cdef const columns_t* c = &self.columns.c
        cdef int32_t tree, i, k, top, member
        cdef int64_t at, end, left, taken, filled = 0
        cdef int64_t choices
        cdef const slot_t* slot
        cdef bint open_choice = False, found
        if row < 0 or row >= self.tree_of.shape[0] or self.root[row] != row or self.tree_of[row] < 0:
            return NONE
        tree, top = self.tree_of[row], c.class_of[row]
        if self.unsure is not None and self.unsure[tree]:
            return UNSURE
        if self.roots != NULL and not self.roots[top]:
            return NONE
        for i in range(self.slot_count):
            slot = &self.slots[i]
            left, choices = slot.count, 0
            for at in range(self.starts[tree], self.starts[tree + 1]):
                member = self.rows[at]
                if not self.able(slot, member, tree, top):
                    continue
                choices += 1
                taken = min(left, self.times(slot, member))
                left -= taken
                if way != NULL:
                    for k in range(taken):
                        way[filled + k] = member
                filled += taken
                if left == 0 and (self.required_count == 0 or not slot.collective or choices > 1):
                    break
            if left > 0:
                return NONE
            if self.required_count > 0 and slot.collective and choices > 1:
                open_choice = True
        for i in range(self.required_count):
            found = False
            for at in range(self.starts[tree], self.starts[tree + 1]):
                member = self.rows[at]
                if not self.required[i][c.class_of[member]]:
                    continue
                for k in range(self.slot_count):
                    if self.slots[k].collective and self.able(&self.slots[k], member, tree, top):
                        found = True
                        break
                if found:
                    break
            if not found:
                return NONE
        return UNSURE if open_choice else SOME

    def having(self, const int32_t[::1] rows not None):
        """uint8[rows]: 0 for a row that is no root or whose tree has no candidate, 1 for one that has, 2 where only a search tells.
        O(providers of the trees)."""
        cdef Py_ssize_t i
        self.check()
        answers = np.empty(rows.shape[0], np.uint8)
        cdef uint8_t[::1] out = answers
        with nogil:
            for i in range(rows.shape[0]):
                out[i] = <uint8_t>self.judge(rows[i], NULL)
        return answers

    def update(self, uint8_t[::1] known not None, const int32_t[::1] changed not None):
        """Bring ``known``, 0 or 1 by row, up to date after changes of some rows: the trees of these are judged again. Returns the roots
        that are not among ``changed`` but whose answer is another one now; None, and nothing is changed, if only a search tells of
        some tree. O(providers of the trees)."""
        cdef Py_ssize_t i, n = self.tree_of.shape[0]
        cdef int32_t top
        cdef int answer = NONE
        self.check()
        if known.shape[0] < n:
            raise ValueError("an answer for each row is needed")
        others = []
        with nogil:
            for i in range(changed.shape[0]):
                if changed[i] < 0 or changed[i] >= n:
                    continue
                top = self.root[changed[i]]
                if top == changed[i]:
                    known[top] |= NAMED
                if known[top] & JUDGED:
                    continue
                answer = self.judge(top, NULL)
                if answer == UNSURE:
                    break
                known[top] |= JUDGED | (OTHER if (known[top] & 1) != answer else 0)
        for i in range(changed.shape[0]):
            if changed[i] < 0 or changed[i] >= n:
                continue
            top = self.root[changed[i]]
            if known[top] & OTHER and answer != UNSURE:
                known[top] ^= 1
                if not known[top] & NAMED:
                    others.append(top)
            known[top] &= 1
        return None if answer == UNSURE else others

    def first(self, int32_t row):
        """(answer, rows): of a root, the answer of ``having`` and, where it is 1, the rows that the first candidate goes to, slot by
        slot in their order, else None. O(providers of the tree)."""
        cdef int answer
        self.check()
        way = np.empty(max(self.filled, 1), np.int32)
        cdef int32_t[::1] out = way
        with nogil:
            answer = self.judge(row, &out[0])
        return answer, (way[: self.filled].tolist() if answer == SOME else None)
