"""The NUMA kernel: which hosts a guest's NUMA cells fit, where, and what they take there. Numbers in, numbers out.

This keeps the state of many hosts; the rules are in _numa_rules.pxd, the forms of numbers in _numa_forms.pyx. The tests
compare it with placement/numa/fit.py and usage.py (Nova 33 hardware.py).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, INT32_MAX
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from ._numa_forms cimport changing, check_state, cpu_list, parsed, read_wants, walk, written
from ._numa_rules cimport (
    CPU_RATIO, MOST_CELLS, RAM_RATIO, THREADS_ISOLATE, cell_at, cell_fits, cell_t, claim_siblings, first_bits,
    first_permutation, fit_masks, matched, pack_cell, pack_t, page_size, prefer, ratio, shape_t, want_t,
)

cdef int64_t MOST_ARENA = <int64_t>1 << 32


@cython.auto_pickle(False)
cdef class NumaProgram:
    """A guest's NUMA cells, compiled. Made by ``NumaTable.compile``."""


@cython.auto_pickle(False)
cdef class NumaTable:
    """NUMA state per host row. A row costs 8 bytes, with NUMA cells 16 bytes more, and per cell 24, 8 per 64 CPU ids
    that the cell spans and 24 per page size; the rest is shared by hosts of one shape."""

    def __cinit__(self, int64_t capacity=0):
        self.shape_blocks, self.shape_rows, self.free_shapes = [], [], []
        self.shape_ids, self.free_states = {}, {}
        self.reserve_rows(capacity)

    def __dealloc__(self):
        free(self.shape_of)
        free(self.start)
        free(self.arena)
        free(self.shapes)

    @property
    def rows(self):
        """Rows allocated. O(1)."""
        return self.capacity

    @property
    def nbytes(self):
        """Bytes held, shapes included. O(shapes)."""
        cdef int64_t blocks = sum(len(block) for block in self.shape_blocks if block is not None)
        return blocks + 8 * self.arena_room + 8 * self.capacity + 8 * self.shape_room

    @property
    def shape_count(self):
        """Different shapes in use. O(1)."""
        return len(self.shape_ids)

    # rows

    def set_row(self, int64_t row, const int64_t[::1] words, double cpu_ratio, double ram_ratio):
        """Set a row's topology; the table grows to hold the row. ValueError, and nothing changed, if a number is out of
        range.

        ``words``: number of cells; per cell id, 1 if it has a socket, socket, memory, memory usage, CPU usage, counts
        of shared, dedicated and pinned CPUs, cores and page sizes; then these CPUs, per core the number of its CPUs and
        them, per page size KiB, total, used and reserved pages. O(words).
        """
        cdef tuple block_and_state
        if row < 0:
            raise IndexError(f"row {row}")
        if not (cpu_ratio == cpu_ratio and ram_ratio == ram_ratio):
            raise ValueError("an allocation ratio is not a number")
        block_and_state = parsed(words, cpu_ratio, ram_ratio)
        self.reserve_rows(row + 1)
        self.put(row, <bytes>block_and_state[0], <const int64_t*>PyBytes_AS_STRING(<bytes>block_and_state[1]))

    def clear_row(self, int64_t row):
        """The row has no NUMA cells; the table grows to hold it. O(1)."""
        if row < 0:
            raise IndexError(f"row {row}")
        self.reserve_rows(row + 1)
        self.drop(row)

    def get_row(self, int64_t row):
        """The argument of ``set_row``, with all changes since, as a list of numbers; None without NUMA cells.
        O(words)."""
        if not self.has_row(row):
            return None
        return written(self.shapes[self.shape_of[row]], self.arena + self.start[row])

    def shape_block(self, int64_t row):
        """The same object for rows that differ only in what ``state_words`` gives; None without NUMA cells. O(1)."""
        return self.shape_blocks[self.shape_of[row]] if self.has_row(row) else None

    def state_words(self, int64_t row):
        """The variable state of a row with NUMA cells: per cell memory, memory usage, CPU usage, number of pinned CPUs
        and these, per page size total, used and reserved pages. O(words)."""
        self.need_row(row)
        return changing(self.shapes[self.shape_of[row]], self.arena + self.start[row])

    def has_row(self, int64_t row):
        """Whether the row has NUMA cells. O(1)."""
        if row < 0:
            raise IndexError(f"row {row}")
        return row < self.capacity and self.shape_of[row] >= 0

    def ratios(self, int64_t row):
        """(CPU, RAM) allocation ratio of a row with NUMA cells. O(1)."""
        self.need_row(row)
        return ratio(self.arena + self.start[row], CPU_RATIO), ratio(self.arena + self.start[row], RAM_RATIO)

    def copy_row(self, int64_t row, NumaTable source not None, int64_t source_row):
        """Make ``row`` equal to a row of ``source``. O(shape) to look up the shape."""
        cdef bytes state
        if row < 0:
            raise IndexError(f"row {row}")
        if not source.has_row(source_row):
            self.clear_row(row)
            return
        self.reserve_rows(row + 1)
        shape = source.shape_of[source_row]
        words = source.shapes[shape].state_words
        state = PyBytes_FromStringAndSize(<char*>(source.arena + source.start[source_row]), 8 * words)
        self.put(row, <bytes>source.shape_blocks[shape], <const int64_t*>PyBytes_AS_STRING(state))

    def same_row(self, int64_t row, NumaTable other not None, int64_t other_row):
        """Whether a row is equal to a row of ``other``, also in that neither has NUMA cells. O(words of the shape)."""
        if not self.has_row(row) or not other.has_row(other_row):
            return self.has_row(row) == other.has_row(other_row)
        shape = self.shape_of[row]
        if <bytes>self.shape_blocks[shape] != <bytes>other.shape_blocks[other.shape_of[other_row]]:
            return False
        words = self.shapes[shape].state_words
        return memcmp(self.arena + self.start[row], other.arena + other.start[other_row], 8 * words) == 0

    def need_row(self, int64_t row):
        """ValueError unless the row has NUMA cells."""
        if not self.has_row(row):
            raise ValueError(f"row {row} has no NUMA cells")

    cdef int reserve_rows(self, int64_t rows) except -1:
        cdef int64_t room = max(rows, min(2 * self.capacity, self.capacity + (1 << 20)))
        cdef void* block
        if rows <= self.capacity:
            return 0
        if room > INT32_MAX:
            raise ValueError(f"{rows} rows are too many")
        block = realloc(self.shape_of, room * sizeof(int32_t))
        if block == NULL:
            raise MemoryError
        self.shape_of = <int32_t*>block
        block = realloc(self.start, room * sizeof(uint32_t))
        if block == NULL:
            raise MemoryError
        self.start = <uint32_t*>block
        memset(self.shape_of + self.capacity, -1, (room - self.capacity) * sizeof(int32_t))
        memset(self.start + self.capacity, 0, (room - self.capacity) * sizeof(uint32_t))
        self.capacity = room
        return 0

    cdef int64_t take_state(self, int64_t words) except -1:
        """Space for a state: a freed one of the same size, or a new one."""
        cdef list freed = <list>self.free_states.get(words)
        cdef int64_t start = self.arena_fill, room = self.arena_room
        cdef void* block
        if freed:
            return freed.pop()
        if start + words > room:
            room = max(start + words, room + room // 8 + 64)
            if room > MOST_ARENA:
                raise MemoryError("the NUMA arena is full")
            block = realloc(self.arena, 8 * room)
            if block == NULL:
                raise MemoryError
            self.arena = <int64_t*>block
            self.arena_room = room
        self.arena_fill = start + words
        return start

    cdef int put(self, int64_t row, bytes block, const int64_t* state) except -1:
        """Give ``row`` the shape ``block`` and a copy of ``state``. On failure the row is as it was."""
        cdef const shape_t* shape = <const shape_t*>PyBytes_AS_STRING(block)
        cdef int64_t words = shape.state_words
        cdef int32_t known = self.intern(block)
        cdef int32_t before = self.shape_of[row]
        self.shape_rows[known] += 1
        if before >= 0 and self.shapes[before].state_words == words:
            self.forget(before)
        else:
            try:
                start = self.take_state(words)
            except BaseException:
                self.forget(known)
                raise
            self.drop(row)
            self.start[row] = <uint32_t>start
        self.shape_of[row] = known
        memcpy(self.arena + self.start[row], state, 8 * words)
        return 0

    cdef int drop(self, int64_t row) except -1:
        cdef int32_t shape = self.shape_of[row]
        if shape >= 0:
            self.free_states.setdefault(self.shapes[shape].state_words, []).append(self.start[row])
            self.shape_of[row] = -1
            self.forget(shape)
        return 0

    cdef int32_t intern(self, bytes block) except -1:
        """The id of a shape that ``parsed`` has made."""
        cdef int32_t room
        cdef void* memory
        known = self.shape_ids.get(block)
        if known is not None:
            return known
        if self.free_shapes:
            known = self.free_shapes.pop()
        else:
            known = len(self.shape_blocks)
            if known >= self.shape_room:
                room = max(16, 2 * self.shape_room)
                memory = realloc(self.shapes, room * sizeof(void*))
                if memory == NULL:
                    raise MemoryError
                self.shapes = <const shape_t**>memory
                self.shape_room = room
            self.shape_blocks.append(None)
            self.shape_rows.append(0)
        self.shape_blocks[known] = block
        self.shapes[<int32_t>known] = <const shape_t*>PyBytes_AS_STRING(block)
        self.shape_ids[block] = known
        return known

    cdef int forget(self, int32_t shape) except -1:
        """Drop one reference to the shape; the last one frees it."""
        self.shape_rows[shape] -= 1
        if self.shape_rows[shape] == 0:
            del self.shape_ids[self.shape_blocks[shape]]
            self.shape_blocks[shape] = None
            self.shapes[shape] = NULL
            self.free_shapes.append(shape)
        return 0

    # decisions

    def compile(self, const int64_t[::1] words, bint packing=False, bint limited=True, bint needs_smt=False):
        """A request. ``words``: per guest cell memory, page size (KiB; 0 none, -1 small, -2 large, -3 any), CPUs that
        float, CPUs that are pinned, spare CPUs for emulator threads, 1 if its policy is dedicated or mixed, 1 if it is
        shared or mixed, thread policy (0 any, 1 require, 2 isolate). ``packing``: fill used cells first. ``limited``:
        allocation ratios bind."""
        cdef NumaProgram program = NumaProgram.__new__(NumaProgram)
        program.cells = read_wants(words, program.wants)
        program.packing, program.limited, program.needs_smt = packing, limited, needs_smt
        return program

    cdef bint fits(self, NumaProgram program, int32_t row) noexcept nogil:
        """Whether the request fits the row, 0 <= row < capacity. O(guest cells * host cells) checks of a pair."""
        cdef int32_t order[MOST_CELLS]
        cdef uint64_t masks[MOST_CELLS]
        cdef const shape_t* shape
        cdef const int64_t* state
        cdef int32_t index
        if self.shape_of[row] < 0:
            return False
        shape = self.shapes[self.shape_of[row]]
        state = self.arena + self.start[row]
        if shape.cells < program.cells or (program.needs_smt and not shape.smt):
            return False
        if program.cells == 1:
            for index in range(shape.cells):
                if cell_fits(shape, cell_at(shape, index), state, &program.wants[0], program.limited):
                    return True
            return False
        for index in range(shape.cells):
            order[index] = index
        if not fit_masks(shape, state, program.wants, program.cells, program.limited, order, masks):
            return False
        return matched(masks, 0, program.cells, first_bits(shape.cells))

    def mask(self, NumaProgram program not None, const int32_t[::1] rows, uint8_t[::1] out):
        """``out[row]`` = 1 if the request fits the row, else 0, for each of ``rows``; IndexError for a row beyond
        ``out``. O(rows * guest cells * host cells), without the interpreter lock."""
        cdef Py_ssize_t index
        check_rows(rows, out.shape[0])
        with nogil:
            for index in range(rows.shape[0]):
                out[rows[index]] = self.judged(program, rows[index])

    def judge(self, NumaProgram program not None, const int32_t[::1] rows, uint8_t[::1] out):
        """``out[i]`` = 1 if the request fits ``rows[i]``, else 0. O(rows * guest cells * host cells), without the
        interpreter lock."""
        cdef Py_ssize_t index
        check_rows(rows, INT32_MAX)
        if out.shape[0] != rows.shape[0]:
            raise ValueError("one verdict per row")
        with nogil:
            for index in range(rows.shape[0]):
                out[index] = self.judged(program, rows[index])

    cdef inline bint judged(self, NumaProgram program, int32_t row) noexcept nogil:
        return row < self.capacity and self.fits(program, row)

    def fit(self, NumaProgram program not None, int64_t row, const int64_t[:, ::1] devices):
        """Where the request goes: None, or per guest cell (host cell id, page size or 0, host CPUs by guest CPU,
        emulator CPUs, CPUs that become pinned, whether Nova charges it). ``devices``: NUMA node and free PCI devices;
        the request asks for none of them. O(guest cells * host cells) checks of a pair, O((guest cells * host cells) **
        2) steps to match them."""
        cdef int32_t order[MOST_CELLS]
        cdef int32_t chosen[MOST_CELLS]
        cdef uint64_t masks[MOST_CELLS]
        cdef int64_t near[MOST_CELLS]
        cdef const shape_t* shape
        cdef const int64_t* state
        cdef int32_t index, guest
        cdef Py_ssize_t entry
        if devices.shape[1] != 2:
            raise ValueError("devices are pairs of node and count")
        if not self.has_row(row):
            return None
        shape = self.shapes[self.shape_of[row]]
        state = self.arena + self.start[row]
        if shape.cells < program.cells or (program.needs_smt and not shape.smt):
            return None
        for index in range(shape.cells):
            near[index] = 0
            for entry in range(devices.shape[0]):
                if devices[entry, 0] == cell_at(shape, index).id:
                    near[index] += devices[entry, 1]
        prefer(shape, state, program.wants, program.cells, program.packing, near, order)
        if not fit_masks(shape, state, program.wants, program.cells, program.limited, order, masks):
            return None
        if not first_permutation(masks, program.cells, shape.cells, chosen):
            return None
        return [self.placed(program, row, guest, order[chosen[guest]]) for guest in range(program.cells)]

    def placed(self, NumaProgram program not None, int64_t row, int32_t guest, int32_t host):
        """One entry of ``fit``. (Internal: the guest cell is known to fit the host cell.)"""
        cdef pack_t pack
        cdef const shape_t* shape = self.shapes[self.shape_of[row]]
        cdef const int64_t* state = self.arena + self.start[row]
        cdef const cell_t* cell = cell_at(shape, host)
        cdef const want_t* want = &program.wants[guest]
        cdef bint charges = cell.pages > 0
        cdef int32_t index
        pack_cell(shape, cell, state, want, &pack)
        if want.threads == THREADS_ISOLATE and not claim_siblings(shape, cell, state, &pack):
            charges = False
        return (
            cell.id,
            page_size(shape, cell, state, want),
            [pack.cpus[index] for index in range(pack.count)],
            [pack.emulator] if pack.emulators else [],
            cpu_list(pack.used, cell),
            charges,
        )

    def consume(self, int64_t row, const int64_t[::1] words):
        """Charge a row. ``words``: per host cell its id, memory, CPUs that float, page size or 0, number of CPUs that
        become pinned and these. ValueError, and nothing changed, if a cell is unknown or named twice, or a CPU is not
        free. O(words)."""
        self.change(row, words, 1)

    def release(self, int64_t row, const int64_t[::1] words):
        """Undo ``consume``. ValueError, and nothing changed, if a cell is unknown or named twice, or a CPU is not
        pinned."""
        self.change(row, words, -1)

    def change(self, int64_t row, const int64_t[::1] words, int32_t sign):
        """``consume`` or ``release``: everything is checked before anything changes."""
        cdef const shape_t* shape
        self.need_row(row)
        shape = self.shapes[self.shape_of[row]]
        walk(words, shape, self.arena + self.start[row], sign, False)
        walk(words, shape, self.arena + self.start[row], sign, True)

    # snapshots

    def to_arrays(self):
        """All rows as arrays, the same for equal tables whatever their history: ``shape_of`` int32 per row (-1 none) up
        to the last row with NUMA cells, ``shapes`` (in the form of ``set_row``) and ``shape_ends``, ``states``.
        O(rows)."""
        cdef int64_t row, words
        cdef const shape_t* shape
        cdef dict ids = {}
        cdef list shapes = [], ends = [], states = []
        cdef int64_t rows = self.capacity
        while rows > 0 and self.shape_of[rows - 1] < 0:
            rows -= 1
        shape_of = np.full(rows, -1, np.int32)
        for row in range(rows):
            if self.shape_of[row] < 0:
                continue
            shape = self.shapes[self.shape_of[row]]
            if self.shape_of[row] not in ids:
                ids[self.shape_of[row]] = len(ids)
                shapes += written(shape, NULL)
                ends.append(len(shapes))
            shape_of[row] = ids[self.shape_of[row]]
            words = shape.state_words
            states.append(PyBytes_FromStringAndSize(<char*>(self.arena + self.start[row]), 8 * words))
        return {
            "shape_of": shape_of,
            "shapes": np.array(shapes, np.int64),
            "shape_ends": np.array(ends, np.int64),
            "states": np.frombuffer(b"".join(states), np.int64),
        }

    @staticmethod
    def from_arrays(dict arrays not None):
        """The table that ``to_arrays`` was called on. ValueError if the arrays are damaged. O(rows)."""
        cdef const int32_t[::1] shape_of = np.ascontiguousarray(arrays["shape_of"], np.int32)
        cdef const int64_t[::1] shapes = np.ascontiguousarray(arrays["shapes"], np.int64)
        cdef const int64_t[::1] ends = np.ascontiguousarray(arrays["shape_ends"], np.int64)
        cdef const int64_t[::1] states = np.ascontiguousarray(arrays["states"], np.int64)
        cdef NumaTable table = NumaTable(shape_of.shape[0])
        cdef list blocks = []
        cdef int64_t row, begin = 0, index, at = 0, words
        cdef const shape_t* shape
        for index in range(ends.shape[0]):
            if not begin <= ends[index] <= shapes.shape[0]:
                raise ValueError("shape ends are out of order")
            blocks.append(parsed(shapes[begin:ends[index]], 1.0, 1.0)[0])
            begin = ends[index]
        for row in range(shape_of.shape[0]):
            if shape_of[row] == -1:
                continue
            if not 0 <= shape_of[row] < len(blocks):
                raise ValueError(f"row {row} has an unknown shape")
            block = <bytes>blocks[shape_of[row]]
            shape = <const shape_t*>PyBytes_AS_STRING(<bytes>block)
            words = shape.state_words
            if at + words > states.shape[0]:
                raise ValueError("states are missing")
            check_state(shape, &states[at])
            table.put(row, <bytes>block, &states[at])
            at += words
        if at != states.shape[0]:
            raise ValueError("there are more states than rows")
        return table

    def check(self):
        """AssertionError if the table is inconsistent. O(rows)."""
        cdef int64_t row
        counts = [0] * len(self.shape_blocks)
        spans = []
        for row in range(self.capacity):
            if self.shape_of[row] >= 0:
                assert self.shape_blocks[self.shape_of[row]] is not None
                counts[self.shape_of[row]] += 1
                spans.append((self.start[row], self.shapes[self.shape_of[row]].state_words))
                check_state(self.shapes[self.shape_of[row]], self.arena + self.start[row])
        assert counts == self.shape_rows
        assert sorted(self.shape_ids.values()) == [known for known, block in enumerate(self.shape_blocks) if block is not None]
        for words, freed in self.free_states.items():
            spans += [(start, words) for start in freed]
        spans.sort()
        assert sum(words for _, words in spans) == self.arena_fill <= self.arena_room
        for (start, words), (following, _) in zip(spans, spans[1:]):
            assert start + words == following


cdef int check_rows(const int32_t[::1] rows, int64_t end) except -1:
    cdef Py_ssize_t index
    cdef int32_t low = 0, high = -1
    with nogil:
        for index in range(rows.shape[0]):
            low = min(low, rows[index])
            high = max(high, rows[index])
    if low < 0 or high >= end:
        raise IndexError("row out of range")
    return 0
