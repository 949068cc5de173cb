"""Contract of the compilation of filters and weighers."""

from ._state cimport ranking_t

cdef int compile_filters(ranking_t* r, Py_ssize_t columns, dict arrays, needs, bounds, masks) except -1
cdef int compile_terms(ranking_t* r, Py_ssize_t columns, dict arrays, terms) except -1
