"""Many placements in one call where some take of nested providers: what trees have a candidate, and scores by devices, are brought up
to date between two decisions. nested_batch_py.py is the pure-Python twin."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from ._devices cimport MOST
from ._fleet cimport BUILDING, Columns
from ._host_scores cimport HostScores
from ._provider_trees cimport SOME, UNSURE, TreeCounts, slot_t
from ._shapes cimport Shapes
from .ranking._ranking cimport Ranking
from .ranking._state cimport NOT_A_HOST, STAGES, ranking_t

cdef extern from "draws.h":
    uint64_t hostler_word(uint64_t seed, uint64_t number) noexcept nogil

cdef extern from "ranking/beside.h" nogil:
    ctypedef struct beside_t "ranking_beside_t":
        const int32_t* without
        const int32_t* rows
        const double* members
        int64_t without_count, count
    uint8_t stage_of "ranking_stage_of"(ranking_t* r, int64_t row)
    int decide_beside "ranking_decide_beside"(ranking_t* r, const beside_t* b, int32_t wanted, uint64_t seed)

cdef enum:
    NAMED_ROW = 1          # bits of a mark: the log names the row; its tree was judged
    JUDGED_TREE = 2
    DECIDED = 0            # whether it is clear what a guest takes
    UNDECIDED = 1


cdef struct rows_t:        # rows that are set aside, one decision long
    int32_t* rows
    int64_t room


cdef class NestedShape:
    """A request that takes of nested providers, or is weighed by devices, on a fleet whose providers stay as they are.

    ``root``: the root's row of each row. ``ranking`` reads ``known``, uint8[capacity], whether each root's tree has a candidate, as
    ``counts`` tell (both None: it takes of the root alone); and ``values``, float64[capacity], as ``scores`` say them (or both None).
    Both arrays are of version ``seen`` of the columns. ``guest``: the shape of what it takes of the root. ``on_root``: uint8, by slot
    of ``counts``, whether the root is to fill it; a guest of another way is left undecided. ``device_slot``: the slot, if any, in whose
    place a guest takes the devices that ``scores`` choose; -1: none.

    ``kinds``: int32[capacity, devices + 2], guests of each kind on each root, which ``scores`` read; None: they read none. ``kind``: that
    of its own guests, -1 where it is not known before they are placed.

    ``searched``: a ranking like ``ranking`` that does not read ``known``, of whose rows those that it refuses, by stage ``stage``, are set
    aside, unless the request was decided more than ``often`` times on end within ``patience`` changes each; None: always ``ranking``. The
    latter may be None until then. ``asked``: the version at which it was decided last, -1: never; ``soon``: how often on end.

    ValueError for arrays that differ in length, slots that there are not, and parts of another fleet.
    """

    cdef Ranking ranking, searched
    cdef Columns columns
    cdef TreeCounts counts
    cdef HostScores scores
    cdef uint8_t stage
    cdef const int32_t[::1] root
    cdef uint8_t[::1] known
    cdef double[::1] values
    cdef const uint8_t[::1] on_root
    cdef const int32_t[:, ::1] kinds
    cdef int32_t guest, device_slot, kind
    cdef int64_t patience, often
    cdef readonly int64_t seen, asked, soon

    def __init__(self, Ranking ranking, const int32_t[::1] root not None, int32_t guest, int64_t seen, *,
                 TreeCounts counts=None, uint8_t[::1] known=None, const uint8_t[::1] on_root=None, HostScores scores=None,
                 double[::1] values=None, int32_t device_slot=-1, const int32_t[:, ::1] kinds=None, int32_t kind=-1,
                 Ranking searched=None, uint8_t stage=0, int64_t patience=0, int64_t often=0, int64_t asked=-1, int64_t soon=0):
        if ranking is None and (searched is None or soon > often):
            raise ValueError("a ranking is needed")
        if searched is not None and (counts is None or not 1 <= stage < NOT_A_HOST or searched.r.shuffle):
            raise ValueError("a ranking that is searched needs counts and their stage, and does not shuffle")
        cdef Columns columns = searched.columns if ranking is None else ranking.columns
        cdef int64_t capacity = columns.c.capacity
        if (scores is None) != (values is None) or (counts is None) != (known is None) or (counts is None) != (on_root is None):
            raise ValueError("scores need values, and counts what is known and on roots, and the reverse")
        if searched is not None and searched.columns is not columns:
            raise ValueError("parts of another fleet")
        if (counts is not None and counts.columns is not columns) or (scores is not None and scores.columns is not columns):
            raise ValueError("parts of another fleet")
        if (root.shape[0] < columns.c.rows or (known is not None and known.shape[0] != capacity)
                or (values is not None and values.shape[0] != capacity)):
            raise ValueError("a value for each row is needed")
        if counts is not None and on_root.shape[0] != counts.slot_count:
            raise ValueError("a mark for each slot is needed")
        if device_slot >= 0 and (counts is None or device_slot >= counts.slot_count or scores is None or on_root[device_slot]
                                 or counts.slots[device_slot].needs != 1
                                 or counts.needs[counts.slots[device_slot].first_need].resource != scores.device):
            raise ValueError("a slot for devices asks for devices alone, of other rows than the root")
        if kinds is not None and (scores is None or kinds.shape[0] != capacity or kinds.shape[1] != scores.width + 2):
            raise ValueError("kinds of guests need scores, and a number for each row and kind")
        if kind < -1:
            raise ValueError("a kind is a number from 0 on")
        columns.check_shape(guest)
        self.kinds, self.kind = kinds, kind
        self.ranking, self.counts, self.scores, self.known, self.values = ranking, counts, scores, known, values
        self.root, self.on_root, self.guest, self.device_slot = root, on_root, guest, device_slot
        self.searched, self.stage, self.columns = searched, stage, columns
        self.seen, self.patience, self.often, self.asked, self.soon = seen, patience, often, asked, soon

    cdef int64_t places(self) noexcept:
        """Rows that the way of a guest has."""
        return 0 if self.counts is None else self.counts.filled

    cdef int check(self) except -1:
        for ranking in (self.ranking, self.searched):
            if ranking is not None:
                (<Ranking>ranking).check_capacity()
                (<Ranking>ranking).reserve_top(1)
        if self.root.shape[0] < self.columns.c.rows:
            raise ValueError("a root for each row is needed")
        if self.counts is not None:
            self.counts.check()
        if self.scores is not None:
            self.scores.check()
        return 0

    cdef bint is_host(self, int32_t row) noexcept nogil:
        cdef int32_t number = self.columns.c.class_of[row]
        cdef ranking_t* r = &self.ranking.r if self.searched is None else &self.searched.r
        return number < r.class_count and r.class_stage[number] != NOT_A_HOST

    cdef bint scored(self, int32_t row) noexcept nogil:
        """Whether `scores` know the host class of a row."""
        return self.scores.rule.mix.size == 0 or self.columns.c.class_of[row] < self.scores.rule.mix.nodes

    cdef const int32_t* kinds_on(self, int32_t row, const int32_t* none) noexcept nogil:
        """Guests of each kind on a root; `none` if the scores read none."""
        if self.kinds is None:
            return none
        return &self.kinds[row, 0]

    cdef int catch_up(self, Columns columns, uint8_t[::1] marks) except -1:
        """Bring the arrays up to date with the log. 0 if that cannot be done here, and what was done holds."""
        cdef int64_t at, first = self.seen - columns.c.log_base, last = columns.c.log_length, n = columns.c.rows
        cdef int32_t row, top
        cdef int32_t none[MOST + 2]
        cdef uint64_t taken
        cdef int answer
        cdef double value
        cdef bint sure = True
        if first < 0 or first > last:
            return 0
        columns.reserve_log(last - first)
        first = self.seen - columns.c.log_base       # the log may have been cut
        last = columns.c.log_length
        if first < 0:
            return 0
        for at in range(MOST + 2):
            none[at] = 0
        for at in range(first, last):
            row = columns.c.log[at]
            if 0 <= row < n:
                marks[row] |= NAMED_ROW
        for at in range(first, last):
            row = columns.c.log[at]
            if row < 0 or row >= n:
                continue
            top = self.root[row]
            if top < 0 or top >= n or marks[top] & JUDGED_TREE:
                continue
            marks[top] |= JUDGED_TREE
            answer = SOME if self.counts is None else self.counts.judge(top, NULL)
            if answer == UNSURE:
                sure = False
                break
            value = 0.0
            if self.scores is not None and self.is_host(top):
                if not self.scored(top):
                    sure = False
                    break
                value = self.scores.score(top, self.kinds_on(top, none), &taken)
            if ((self.counts is not None and self.known[top] != answer)
                    or (self.scores is not None and self.values[top] != value)):
                if self.counts is not None:
                    self.known[top] = <uint8_t>answer
                if self.scores is not None:
                    self.values[top] = value
                if not marks[top] & NAMED_ROW:
                    columns.touch(top)
        for at in range(first, last):
            row = columns.c.log[at]
            if 0 <= row < n:
                marks[row] = 0
                top = self.root[row]
                if 0 <= top < n:
                    marks[top] = 0
        if sure:
            self.seen = columns.c.log_base + columns.c.log_length
        return sure

    cdef Ranking asks(self):
        """The ranking to be asked now; None if it is there no more. `catch_up` was called."""
        cdef int64_t version = self.columns.c.log_base + self.columns.c.log_length
        if self.searched is None:
            return self.ranking
        if self.asked >= 0 and version - self.asked <= self.patience:
            self.soon += 1
        else:
            self.soon = 0
        self.asked = version
        return self.ranking if self.soon > self.often else self.searched

    cdef int decide(self, Ranking ranking, uint64_t seed, int64_t* counts, rows_t* aside) except -1:
        """Have a ranking of `asks`, which has caught up, decide; `counts`: rows by the stage that refuses them. `aside` is used up."""
        cdef beside_t b
        cdef int64_t moved[STAGES]
        cdef int64_t tree, trees, i
        cdef int32_t row
        cdef uint8_t stage
        cdef int32_t* grown
        if ranking is not self.searched:
            ranking.decide(-1, 1, seed)
            memcpy(counts, ranking.r.counts, STAGES * sizeof(int64_t))
            return 0
        trees = self.counts.starts.shape[0] - 1
        if aside.room < trees:
            grown = <int32_t*>realloc(aside.rows, trees * sizeof(int32_t))
            if grown == NULL:
                raise MemoryError
            aside.rows, aside.room = grown, trees
        for i in range(STAGES):
            moved[i] = 0
        b.without, b.rows, b.members = aside.rows, NULL, NULL
        b.without_count = b.count = 0
        for tree in range(trees):
            if self.counts.starts[tree] == self.counts.starts[tree + 1]:
                continue
            row = self.root[self.counts.rows[self.counts.starts[tree]]]
            if self.known[row]:
                continue
            stage = stage_of(&ranking.r, row)
            if stage == NOT_A_HOST:
                continue
            if stage == 0:
                aside.rows[b.without_count] = row
                b.without_count += 1
            if stage == 0 or stage > self.stage:
                moved[stage] -= 1
                moved[self.stage] += 1
        if decide_beside(&ranking.r, &b, 1, seed):
            raise RuntimeError("a tree has two places")
        ranking.tally(-1, counts)
        for i in range(STAGES):
            counts[i] += moved[i]
        return 0

    cdef int way_of(self, int32_t row, int32_t* way) noexcept nogil:
        """Where a guest on a root takes what it takes elsewhere: rows by place of a slot, -1 for the root itself. UNDECIDED or DECIDED."""
        cdef int32_t none[MOST + 2]
        cdef int32_t i, d, at = 0
        cdef int64_t k
        cdef uint64_t taken = 0
        cdef const slot_t* slot
        if self.counts is None:
            return DECIDED
        if self.counts.judge(row, way) != SOME:
            return UNDECIDED
        for i in range(self.counts.slot_count):
            for k in range(self.counts.slots[i].count):
                if (way[at] == row) != self.on_root[i]:
                    return UNDECIDED
                at += 1
        if self.device_slot < 0:
            return DECIDED
        for i in range(MOST + 2):
            none[i] = 0
        if not self.scored(row):
            return UNDECIDED
        self.scores.score(row, self.kinds_on(row, none), &taken)
        at = 0
        for i in range(self.counts.slot_count):
            slot = &self.counts.slots[i]
            if i != self.device_slot:
                at += slot.count
                continue
            k = 0
            for d in range(self.scores.width):
                if (taken >> d) & 1:
                    if k == slot.count:
                        return UNDECIDED
                    way[at + k] = self.scores.below[row, d]
                    k += 1
            if k != slot.count:
                return UNDECIDED
            at += slot.count
        return DECIDED

    cdef void charge(self, Columns columns, const int32_t* way, int sign) noexcept nogil:
        """Take (sign -1: give back) what a guest takes of other rows than the root."""
        cdef int32_t i, j, row, at = 0, before
        cdef int64_t cell, room, k
        cdef const slot_t* slot
        cdef bint known
        for i in range(0 if self.counts is None else self.counts.slot_count):
            slot = &self.counts.slots[i]
            for k in range(slot.count):
                row = way[at]
                at += 1
                if self.on_root[i]:
                    continue
                for j in range(slot.first_need, slot.first_need + slot.needs):
                    cell = self.counts.needs[j].resource * columns.c.capacity + row
                    columns.c.used[cell] += sign * self.counts.needs[j].amount
                    room = columns.c.limit[cell] - columns.c.used[cell]
                    columns.c.avail[cell] = room if room < columns.c.max_unit[cell] else columns.c.max_unit[cell]
                known = False
                for before in range(at - 1):
                    known = known or way[before] == row
                if not known:
                    columns.c.generation[row] += 1
                    columns.touch(row)


def place(Columns columns not None, Shapes shapes not None, list nested not None, int32_t nested_from, uint8_t[::1] marks not None,
          int32_t[::1] which, uint64_t[:, ::1] uuids, int32_t[::1] projects, int32_t[::1] users, bint building, uint64_t seed,
          uint64_t sequence, int32_t[::1] out_row, int32_t[::1] out_consumer, double[::1] out_score, int64_t[:, ::1] out_counts,
          int32_t[:, ::1] out_way, int32_t[:, ::1] kinds=None):
    """Place guest i, of request shape ``which[i]``, or of shape ``which[i] - nested_from`` of ``nested``, one after the other, each
    seeing the claims before it; as ``batch.place``, without server groups.

    ``marks``: uint8[capacity], all 0. ``out_way[i]``: of a guest of a nested shape, the rows that fill the slots of its counts, in
    their order. ``kinds``: int32[capacity, kinds], guests of each kind on each root, which are counted on; guests of plain shapes are of
    kind 0, and one of a kind that is not known is left undecided. Nested shapes read this array or none. Returns (guests that were processed, whether the next one is left undecided rather than its uuid in use).
    """
    cdef Py_ssize_t i, n = which.shape[0], width = out_counts.shape[1]
    cdef int64_t counts[STAGES]
    cdef int32_t row, guest
    cdef uint8_t flags = BUILDING if building else 0
    cdef NestedShape shape
    cdef Ranking ranking
    cdef rows_t aside
    aside.rows, aside.room = NULL, 0
    check_batch(columns, shapes, marks, which, uuids, projects, users, out_row, out_consumer, out_score, out_counts, out_way)
    if kinds is not None and (kinds.shape[0] != columns.c.capacity or kinds.shape[1] < 2):
        raise ValueError("kinds of guests of another fleet")
    for i in range(n):
        if which[i] < nested_from:
            shapes.check(which[i])
            continue
        if which[i] - nested_from >= len(nested) or not isinstance(nested[which[i] - nested_from], NestedShape):
            raise IndexError("shape out of range")
        shape = <NestedShape>nested[which[i] - nested_from]
        shape.check()
        if shape.columns is not columns:
            raise ValueError("a shape of another fleet")
        if shape.places() > out_way.shape[1]:
            raise ValueError("no room for the way of a guest")
        check_kinds(shape, kinds)
    columns.reserve_consumers(n)
    for i in range(n):
        out_row[i] = out_consumer[i] = -1
        out_score[i] = 0.0
    try:
        for i in range(n):
            columns.reserve_log(1 + out_way.shape[1])
            if columns.consumers.find(uuids[i, 0], uuids[i, 1]) >= 0:
                return i, False
            shape = None
            if which[i] >= nested_from:
                shape = <NestedShape>nested[which[i] - nested_from]
                if not shape.catch_up(columns, marks):
                    return i, True
                columns.reserve_log(1 + out_way.shape[1])
                ranking = shape.asks()
                if ranking is None:
                    return i, True
                ranking.sync()
            else:
                ranking = shapes.ready(which[i])
            if ranking.r.shared != NULL and ranking.r.shared.failed:
                ranking.r.shared.failed = False
                raise MemoryError
            if shape is None:
                ranking.decide(-1, 1, hostler_word(seed, sequence + i))
                shapes.note(which[i], ranking)
                memcpy(&out_counts[i, 0], ranking.r.counts, width * sizeof(int64_t))
            else:
                shape.decide(ranking, hostler_word(seed, sequence + i), counts, &aside)
                memcpy(&out_counts[i, 0], counts, width * sizeof(int64_t))
            if ranking.r.found == 0:
                continue
            row = ranking.r.top_row[0]
            if shape is not None and ((kinds is not None and shape.kind < 0) or shape.way_of(row, &out_way[i, 0]) == UNDECIDED):
                return i, True
            guest = shapes.sizes[shapes.shapes[which[i]].size].guest if shape is None else shape.guest
            out_consumer[i] = columns.add(uuids[i, 0], uuids[i, 1], row, guest, projects[i], users[i], -1, flags)
            out_row[i], out_score[i] = row, ranking.r.top_score[0]
            if shape is not None:
                shape.charge(columns, &out_way[i, 0], 1)
            if kinds is not None:
                kinds[row, 0 if shape is None else shape.kind] += 1
    except BaseException:
        take_back(columns, nested, nested_from, which, out_row, out_consumer, out_way, kinds)
        raise
    finally:
        free(aside.rows)
    return n, False


cdef int check_batch(Columns columns, Shapes shapes, uint8_t[::1] marks, int32_t[::1] which, uint64_t[:, ::1] uuids,
                     int32_t[::1] projects, int32_t[::1] users, int32_t[::1] out_row, int32_t[::1] out_consumer, double[::1] out_score,
                     int64_t[:, ::1] out_counts, int32_t[:, ::1] out_way) except -1:
    cdef Py_ssize_t n = which.shape[0]
    if (uuids.shape[0] != n or uuids.shape[1] != 2 or projects.shape[0] != n or users.shape[0] != n or out_row.shape[0] != n
            or out_consumer.shape[0] != n or out_score.shape[0] != n or out_counts.shape[0] != n or out_counts.shape[1] > STAGES
            or out_counts.shape[1] < 1 or out_way.shape[0] != n or out_way.shape[1] < 1 or marks.shape[0] != columns.c.capacity):
        raise ValueError("batch columns differ in length")
    if shapes.columns is not columns:
        raise ValueError("shapes of another fleet")
    return 0


cdef int check_kinds(NestedShape shape, int32_t[:, ::1] kinds) except -1:
    if kinds is None:
        if shape.kinds is not None:
            raise ValueError("a shape reads kinds of guests that are not counted")
    elif shape.kind >= kinds.shape[1] or (shape.kinds is not None and &shape.kinds[0, 0] != &kinds[0, 0]):
        raise ValueError("kinds of guests that a shape does not read")
    return 0


cdef int take_back(Columns columns, list nested, int32_t nested_from, int32_t[::1] which, int32_t[::1] out_row, int32_t[::1] out_consumer,
                   int32_t[:, ::1] out_way, int32_t[:, ::1] kinds) except -1:
    """Undo the claims of guests, the last one first."""
    cdef Py_ssize_t i
    for i in range(which.shape[0] - 1, -1, -1):
        if out_consumer[i] < 0:
            continue
        columns.reserve_log(1 + out_way.shape[1])
        if which[i] >= nested_from:
            (<NestedShape>nested[which[i] - nested_from]).charge(columns, &out_way[i, 0], -1)
        if kinds is not None:
            kinds[out_row[i], (<NestedShape>nested[which[i] - nested_from]).kind if which[i] >= nested_from else 0] -= 1
        columns.drop(out_consumer[i])
    return 0
