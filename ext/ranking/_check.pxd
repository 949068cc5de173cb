"""Contract of the checks of a ranking."""

from ._state cimport ranking_t

cdef int check_rows(ranking_t* r) except -1
cdef int check_index(ranking_t* r) except -1
