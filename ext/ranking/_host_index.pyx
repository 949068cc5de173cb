"""The host index as an object: the columns that it tracks and the memory that it takes. ``host_index.h`` is the index itself."""

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from .._fleet cimport Columns
from ._state cimport SOURCE_COLUMN, TRACKED, hostler_bytes_of_lists, hostler_index_free, hostler_slot_of, shared_t

cdef enum:
    COUNTED_FROM = 4096    # on 1,000 hosts the upkeep cost 6 us a decision more than searches; on 10,000 it costs less


cdef class HostIndex:
    """What all rankings of a fleet search together: its rows by class and by the values of the columns that the rankings read."""

    def __cinit__(self):
        memset(&self.s, 0, sizeof(shared_t))
        self.s.index.seen = -1

    def __dealloc__(self):
        hostler_index_free(&self.s.index)

    def __init__(self, Columns columns not None, *, int64_t held_room=0, int64_t counted_from=COUNTED_FROM):
        """``held_room``: bytes that rankings with rows of their own may take together. ``counted_from``: rows from which on the counts
        of refused rows are kept by list of rules."""
        self.columns = columns
        self.s.index.counted_from = counted_from
        self.s.held_room = held_room

    cdef bint track(self, needs, bounds, terms) except -1:
        """Have the index keep every column that a ranking reads. False if there are too many."""
        cdef int32_t i
        wanted = {need[0] for need in needs} | {~bound[0] for bound in bounds}
        wanted |= {~term["column"] for term in terms if term["source"] == SOURCE_COLUMN}
        new = [source for source in sorted(wanted) if hostler_slot_of(&self.s.index, source) < 0]
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
        return self.s.index.bytes + hostler_bytes_of_lists(self.s.index.counts) + self.s.held_bytes

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
