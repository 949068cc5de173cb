"""Declarations of the C functions of the ranking kernel that ``_ranking.pyx`` calls."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from .._fleet cimport group_t
from ._state cimport ranking_t, term_t, way_t

cdef extern from "ranking/upkeep.h" nogil:
    bint hold "ranking_hold"(ranking_t* r)
    void let_go "ranking_let_go"(ranking_t* r)
    int64_t held_bytes "ranking_held_bytes"(ranking_t* r)
    void lay_levels "ranking_lay_levels"(ranking_t* r)
    int weigh_ways "ranking_weigh_ways"(way_t* way, ranking_t* r, bint held)
    void choose_way "ranking_choose_way"(ranking_t* r)

cdef extern from "ranking/rows.h" nogil:
    void borrow "ranking_borrow"(ranking_t* r)
    void find_columns "ranking_find_columns"(ranking_t* r)
    double raw_of "ranking_raw_of"(ranking_t* r, term_t* t, int64_t row)
    double multiplier_of "ranking_multiplier_of"(ranking_t* r, term_t* t, int64_t row)
    double group_raw "ranking_group_raw"(term_t* t, double members)
    double norm "ranking_norm"(double value, double low, double span)
    double true_score "ranking_true_score"(ranking_t* r, int64_t row, double members)
    uint8_t stage_of "ranking_stage_of"(ranking_t* r, int64_t row)
    void set_range "ranking_set_range"(term_t* t, double low, double high)

cdef extern from "ranking/sync.h" nogil:
    int sync_rows "ranking_sync"(ranking_t* r)
    void value_rows "ranking_value_rows"(ranking_t* r)

cdef extern from "ranking/decide.h" nogil:
    void add_nothing "ranking_add_nothing"(ranking_t* r)
    void decide_by_rows "ranking_decide"(ranking_t* r, group_t* groups, int32_t group, int32_t wanted, uint64_t seed)
    void tally_by_rows "ranking_tally"(ranking_t* r, group_t* groups, int32_t group, int64_t* out)

cdef extern from "ranking/by_index.h" nogil:
    void count_again "ranking_count_again"(ranking_t* r)
    int sync_index "ranking_sync_index"(ranking_t* r)
    void decide_by_index "ranking_decide_by_index"(ranking_t* r, group_t* groups, int32_t group, int32_t wanted, uint64_t seed)
    void tally_by_index "ranking_tally_by_index"(ranking_t* r, group_t* groups, int32_t group, int64_t* out)
