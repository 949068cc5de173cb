"""Contract of the host index: what all rankings of a fleet search together."""

from .._fleet cimport Columns
from ._state cimport shared_t

cdef class HostIndex:
    cdef shared_t s
    cdef readonly Columns columns

    cdef bint track(self, needs, bounds, terms) except -1
