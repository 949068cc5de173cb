/* Near misses of all rows, put together from what each block of rows says. Blocks in which nothing has changed since they
 * were judged are not looked at again: a question costs the blocks of the changed rows, and a look at each block's summary.
 */
#ifndef HOSTLER_NEAR_BLOCKS_H
#define HOSTLER_NEAR_BLOCKS_H

#include <stdlib.h>

#include "near_misses.h"

enum {
    NEAR_UNKNOWN, /* a block that is to be judged */
    NEAR_NO,
    NEAR_YES,
};

/* A block: the first of its rows that pass, and that fewest rules refuse; -1: none. */
typedef struct {
    int64_t passing;
    int32_t least; /* fewest rules that refuse a row; INT32_MAX: no row is considered */
    int32_t first, nearest;
    uint8_t known; /* NEAR_UNKNOWN or NEAR_YES */
    near_clock_t clock;
} near_block_t;

/* Which blocks are known, of the rows as they were at a version of the change log. */
typedef struct {
    int64_t seen, rows;
} near_seen_t;

typedef struct {
    int32_t slot_count;
    int16_t slot_of[NEAR_STAGES]; /* by stage that may refuse a row alone, -1 for the others; slots rise with stages */
    int16_t stage_of[NEAR_STAGES];
    int64_t block_count; /* of the capacity */
    near_seen_t found, could;
    near_block_t *blocks;
    int32_t *alone;       /* [block_count][slot_count] rows that the stage alone refuses */
    int32_t *alone_first; /* [block_count][slot_count] the first of them */
    near_short_t *shorts; /* [block_count][need_count][3]: too little is left; unit rules; both */
    uint8_t *passable;    /* [block_count] whether a row could pass if nothing of it was used */
    int64_t yes;          /* a block that was NEAR_YES */
} near_state_t;

/* All rows together; `alone` and `alone_first` are by slot. */
typedef struct {
    int64_t passing, least; /* least: -1: no row is considered */
    int32_t first, nearest;
    int64_t alone[NEAR_STAGES];
    int32_t alone_first[NEAR_STAGES];
    near_short_t *shorts; /* [need_count][3] */
} near_found_t;

static inline void near_free(near_state_t *s) {
    free(s->blocks);
    free(s->alone);
    free(s->alone_first);
    free(s->shorts);
    free(s->passable);
    s->blocks = NULL;
    s->alone = s->alone_first = NULL;
    s->shorts = NULL;
    s->passable = NULL;
}

/* Give each stage that may refuse a row alone a slot. */
static inline void near_number_stages(near_state_t *s, const near_rules_t *r) {
    uint8_t may[NEAR_STAGES] = {0};
    for (int32_t k = 0; k < r->need_count; k++) {
        may[r->needs[k].stage] = 1;
    }
    for (int32_t k = 0; k < r->bound_count; k++) {
        may[r->bounds[k].stage] = 1;
    }
    for (int32_t k = 0; k < r->mask_count; k++) {
        may[r->masks[k].stage] = 1;
    }
    for (int64_t k = 0; k < r->class_count; k++) {
        int64_t stage = r->class_word[k] - NEAR_ONE;
        if (stage >= 0 && stage < NEAR_STAGES) {
            may[stage] = 1;
        }
    }
    if (r->split != NULL) {
        may[r->split_to] = 1;
    }
    s->slot_count = 0;
    for (int32_t stage = 0; stage < NEAR_STAGES; stage++) {
        s->slot_of[stage] = may[stage] ? (int16_t)s->slot_count : -1;
        if (may[stage]) {
            s->stage_of[s->slot_count++] = (int16_t)stage;
        }
    }
}

static inline int64_t near_blocks_of(int64_t rows) {
    return (rows + NEAR_BLOCK - 1) / NEAR_BLOCK;
}

/* Room for what `near_find` keeps. Returns -1 if memory is short. */
static inline int near_reserve_found(near_state_t *s, const near_rules_t *r) {
    if (s->blocks != NULL) {
        return 0;
    }
    size_t blocks = (size_t)s->block_count, slots = blocks * (size_t)s->slot_count + 1, shorts = blocks * 3 * (size_t)r->need_count + 1;
    s->blocks = calloc(blocks, sizeof(near_block_t));
    s->alone = calloc(slots, sizeof(int32_t));
    s->alone_first = calloc(slots, sizeof(int32_t));
    s->shorts = calloc(shorts, sizeof(near_short_t));
    if (s->blocks == NULL || s->alone == NULL || s->alone_first == NULL || s->shorts == NULL) {
        near_free(s);
        return -1;
    }
    s->found.seen = -1;
    return 0;
}

static inline int near_reserve_could(near_state_t *s) {
    if (s->passable == NULL) {
        s->passable = calloc((size_t)s->block_count, 1);
        s->could.seen = -1;
    }
    return s->passable == NULL ? -1 : 0;
}

static inline int64_t near_bytes(const near_state_t *s, const near_rules_t *r) {
    int64_t of_block = (int64_t)sizeof(near_block_t) + 8 * s->slot_count + 3 * r->need_count * (int64_t)sizeof(near_short_t);
    return s->block_count * ((s->blocks != NULL ? of_block : 0) + (s->passable != NULL));
}

/* Forget the blocks of rows that have changed since. `known`: their marks, a `stride` of bytes apart. */
static inline void near_forget_changed(const columns_t *c, near_seen_t *seen, uint8_t *known, size_t stride, int64_t block_count) {
    int64_t start = seen->seen - c->log_base, rows = c->rows;
    if (seen->seen < 0 || start < 0 || start > c->log_length || c->log_length - start > rows) {
        for (int64_t block = 0; block < block_count; block++) {
            known[(size_t)block * stride] = NEAR_UNKNOWN;
        }
        start = c->log_length;
    }
    for (int64_t at = start; at < c->log_length; at++) {
        HOSTLER_ASSERT_INDEX(c->log[at] / NEAR_BLOCK, block_count);
        known[(size_t)(c->log[at] / NEAR_BLOCK) * stride] = NEAR_UNKNOWN;
    }
    if (rows != seen->rows) {
        int64_t first = (rows < seen->rows ? rows : seen->rows) / NEAR_BLOCK;
        for (int64_t block = first; block < block_count; block++) {
            known[(size_t)block * stride] = NEAR_UNKNOWN;
        }
    }
    seen->seen = c->log_base + c->log_length;
    seen->rows = rows;
}

/* Take in a row of a block that one rule alone refuses, and no need. */
static inline void near_take_alone(const columns_t *c, const near_rules_t *r, near_state_t *s, int64_t at, int32_t stage, int64_t row) {
    for (int32_t k = 0; k < r->need_count; k++) {
        if (r->needs[k].stage == stage) {
            return;
        }
    }
    if (r->split != NULL && stage == r->split_stage && r->split[c->class_of[row]]) {
        stage = r->split_to;
    }
    HOSTLER_ASSERT_INDEX(stage, NEAR_STAGES);
    HOSTLER_ASSERT_INDEX(s->slot_of[stage], s->slot_count);
    at += s->slot_of[stage];
    if (s->alone[at]++ == 0) {
        s->alone_first[at] = (int32_t)row;
    }
}

/* Judge the rows of a block. */
static inline void near_judge_block(const columns_t *c, const near_rules_t *r, near_state_t *s, int64_t block) {
    int64_t word[NEAR_BLOCK], row = block * NEAR_BLOCK;
    int64_t n = c->rows - row < NEAR_BLOCK ? c->rows - row : NEAR_BLOCK;
    int64_t slots = block * s->slot_count;
    near_block_t *b = &s->blocks[block];
    near_short_t *shorts = s->shorts + block * 3 * r->need_count;
    *b = (near_block_t){.least = INT32_MAX, .first = -1, .nearest = -1, .known = NEAR_YES, .clock = {.now = r->now, .oldest = INFINITY, .beats = r->beats}};
    memset(s->alone + slots, 0, (size_t)s->slot_count * sizeof(int32_t));
    memset(shorts, 0, 3 * (size_t)r->need_count * sizeof(near_short_t));
    near_judge(c, r, row, n, word);
    int64_t least = near_least(word, n);
    if (least >= NEAR_HIDDEN) {
        return;
    }
    if (r->split != NULL) {
        near_add_split(c, r, row, n, word, (least / NEAR_ONE + 2) * NEAR_ONE, &b->clock);
        least = near_least(word, n);
    }
    b->least = (int32_t)(least / NEAR_ONE);
    b->nearest = near_first(word, b->least * NEAR_ONE, (b->least + 1) * NEAR_ONE, row);
    if (b->least > 1) {
        return;
    }
    b->passing = near_count(word, 0, NEAR_ONE, n);
    b->first = b->passing ? b->nearest : -1;
    int64_t alone = near_count(word, NEAR_ONE, 2 * NEAR_ONE, n);
    for (int32_t k = 0; k < r->need_count && alone; k++) {
        int64_t tag = NEAR_ONE + r->needs[k].stage, count = near_count(word, tag, tag + 1, n);
        if (count) {
            int64_t at = slots + s->slot_of[r->needs[k].stage];
            s->alone_first[at] = near_first(word, tag, tag + 1, row);
            s->alone[at] = (int32_t)count;
            near_take_shorts(c, &r->needs[k], word, row, n, shorts + 3 * k);
            alone -= count;
        }
    }
    for (int64_t i = 0; i < n && alone; i++) {
        if (word[i] >= NEAR_ONE && word[i] < 2 * NEAR_ONE) {
            near_take_alone(c, r, s, slots, (int32_t)(word[i] - NEAR_ONE), row + i);
        }
    }
}

/* Add a block to what is found so far. */
static inline void near_take_block(const near_rules_t *r, const near_state_t *s, int64_t block, near_found_t *found) {
    const near_block_t *b = &s->blocks[block];
    const near_short_t *shorts = s->shorts + block * 3 * r->need_count;
    if (b->least < found->least) {
        found->least = b->least;
        found->nearest = b->nearest;
    }
    if (b->least > 1) {
        return;
    }
    found->first = found->first < 0 ? b->first : found->first;
    found->passing += b->passing;
    for (int32_t slot = 0; slot < s->slot_count; slot++) {
        int32_t count = s->alone[block * s->slot_count + slot];
        if (count && found->alone[slot] == 0) {
            found->alone_first[slot] = s->alone_first[block * s->slot_count + slot];
        }
        found->alone[slot] += count;
    }
    for (int32_t k = 0; k < 3 * r->need_count; k++) {
        near_short_t *total = &found->shorts[k];
        if (shorts[k].count && (total->count == 0 || shorts[k].nearest > total->nearest)) {
            total->nearest = shorts[k].nearest;
            total->row = shorts[k].row;
        }
        total->count += shorts[k].count;
    }
}

/* All of `found`, of which `shorts` are zero; room is reserved. O(rows of the blocks that changed + rows / 256). */
static inline void near_find(const columns_t *c, const near_rules_t *r, near_state_t *s, near_found_t *found) {
    found->passing = 0;
    found->least = INT32_MAX;
    found->first = found->nearest = -1;
    memset(found->alone, 0, (size_t)s->slot_count * sizeof(int64_t));
    near_forget_changed(c, &s->found, &s->blocks[0].known, sizeof(near_block_t), s->block_count);
    for (int64_t block = 0; block < near_blocks_of(c->rows); block++) {
        if (s->blocks[block].known == NEAR_UNKNOWN || !near_holds(&s->blocks[block].clock, r)) {
            near_judge_block(c, r, s, block);
        }
        near_take_block(r, s, block, found);
    }
    found->least = found->least == INT32_MAX ? -1 : found->least;
}

/* Whether a row of a block passes if nothing of it is used: the needs are held against its limit and its unit rules. */
static inline int near_could_block(const columns_t *c, const near_rules_t *r, int64_t block) {
    int64_t word[NEAR_BLOCK], row = block * NEAR_BLOCK;
    int64_t n = c->rows - row < NEAR_BLOCK ? c->rows - row : NEAR_BLOCK;
    near_rules_t others = *r;
    others.need_count = 0;
    near_judge(c, &others, row, n, word);
    for (int32_t k = 0; k < r->need_count; k++) {
        near_add_need(word, c->limit + r->needs[k].resource * c->capacity + row, r->needs[k].amount, n, NEAR_ONE);
    }
    for (int32_t k = 0; k < r->need_count && near_least(word, n) == 0; k++) {
        int64_t at = r->needs[k].resource * c->capacity + row;
        for (int64_t i = 0; i < n; i++) {
            word[i] += word[i] == 0 && !near_suits(c, &r->needs[k], at + i) ? NEAR_ONE : 0;
        }
    }
    return near_least(word, n) == 0;
}

/* Whether a row passes if nothing of it is used; room is reserved. O(rows of the blocks that changed + rows / 256) where
 * none does, and after the first time. */
static inline int near_could_pass(const columns_t *c, const near_rules_t *r, near_state_t *s) {
    int64_t blocks = near_blocks_of(c->rows);
    near_forget_changed(c, &s->could, s->passable, 1, s->block_count);
    if (s->yes < blocks && s->passable[s->yes] == NEAR_YES) {
        return 1;
    }
    for (int64_t block = 0; block < blocks; block++) {
        if (s->passable[block] == NEAR_UNKNOWN) {
            s->passable[block] = near_could_block(c, r, block) ? NEAR_YES : NEAR_NO;
        }
        if (s->passable[block] == NEAR_YES) {
            s->yes = block;
            return 1;
        }
    }
    return 0;
}

#endif
