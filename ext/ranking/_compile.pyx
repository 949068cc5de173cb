"""Filters and weighers of one request signature, from Python values to C structures.

``arrays`` keeps alive what the pointers lead to; ``columns`` is the number of host columns of the fleet.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc

import numpy as np

from .._fleet cimport RAM_ALLOCATION_RATIO
from ._state cimport (
    DELTA_PERP, DOT_PRODUCT, NOT_A_HOST, SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, SOURCE_PACKING, SOURCE_ROW, bound_t, mask_t,
    need_t, ranking_t, term_t,
)


cdef uint8_t filter_stage(int stage) except 0:
    if not 0 < stage < NOT_A_HOST:
        raise ValueError("a filter's stage must be within [1, 254]")
    return <uint8_t>stage


cdef int compile_filters(ranking_t* r, Py_ssize_t columns, dict arrays, needs, bounds, masks) except -1:
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
        passes = arrays["mask", r.mask_count] = mask
        if passes.shape[0] != r.capacity:
            raise ValueError("a mask has one entry per row")
        r.masks[r.mask_count].passes = &passes[0]
        r.masks[r.mask_count].stage = filter_stage(stage)
        r.mask_count += 1
    return 0


cdef int compile_formula(ranking_t* r, Py_ssize_t columns, dict arrays, term_t* t, term) except -1:
    cdef double[::1] values
    if not DOT_PRODUCT <= term["formula"] <= DELTA_PERP:
        raise ValueError("unknown formula")
    if columns <= RAM_ALLOCATION_RATIO:
        raise IndexError("column out of range")
    t.formula = term["formula"]
    t.wish.asked[0], t.wish.asked[1] = term["asked"]
    t.wish.weight[0] = t.wish.weight[1] = 1.0
    t.by_load = term.get("by_load", False)
    r.packing = True
    r.by_load = r.by_load or t.by_load
    values = arrays["values", r.term_count] = np.zeros(r.capacity)
    t.values = &values[0]
    return 0


cdef int compile_terms(ranking_t* r, Py_ssize_t columns, dict arrays, terms) except -1:
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
            values = arrays["values", r.term_count] = term["values"]
            if values.shape[0] == 0:
                raise ValueError("values are missing")
            t.values = &values[0]
        if t.source == SOURCE_ROW and values.shape[0] != r.capacity:
            raise ValueError("row values have one entry per row")
        if t.source == SOURCE_PACKING:
            compile_formula(r, columns, arrays, t, term)
        if term.get("multipliers") is not None:
            values = arrays["multipliers", r.term_count] = term["multipliers"]
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
