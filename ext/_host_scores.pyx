"""Scores of hosts by their devices for one request, read from the columns of a fleet as they are.

The rules are those of _devices.pyx; devices_py.py is the pure-Python twin of both.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

import numpy as np

from ._devices cimport FRAGMENTATION, MOST, NO_ROOM, check_shape, fragments, mix_t, pick, score_node, set_rule
from ._fleet cimport Columns


cdef class KeptFragments:
    """The fragmentation of each host as it was seen last, by row, and what it was computed of."""

    def __cinit__(self, int64_t capacity, int32_t width):
        cdef int64_t row
        self.capacity, self.width = capacity, width
        self.lost = <double*>malloc(max(capacity, 1) * sizeof(double))
        self.cpu = <int64_t*>malloc(max(capacity, 1) * sizeof(int64_t))
        self.host_class = <int32_t*>malloc(max(capacity, 1) * sizeof(int32_t))
        self.idle = <int32_t*>malloc(max(capacity * width, 1) * sizeof(int32_t))
        if self.lost == NULL or self.cpu == NULL or self.host_class == NULL or self.idle == NULL:
            raise MemoryError
        for row in range(capacity):
            self.host_class[row] = NOT_KEPT

    def __dealloc__(self):
        free(self.lost)
        free(self.cpu)
        free(self.host_class)
        free(self.idle)

    cdef double of(self, mix_t* mix, int32_t row, int32_t host_class, int64_t cpu, const int32_t* idle) noexcept nogil:
        cdef int32_t* known = self.idle + <int64_t>row * self.width
        if (self.host_class[row] != host_class or self.cpu[row] != cpu
                or memcmp(known, idle, self.width * sizeof(int32_t)) != 0):
            self.lost[row] = fragments(mix, host_class, cpu, idle, self.width)
            self.host_class[row], self.cpu[row] = host_class, cpu
            memcpy(known, idle, self.width * sizeof(int32_t))
        return self.lost[row]


cdef class HostScores:
    """Scores of hosts for one request, read from the columns as they are.

    ``below``: int32[capacity, devices], rows of the devices of each host, -1 where there are fewer; ``device``, ``cpu``: resource
    classes of a device's thousandths, on its own row, and of the host's CPUs, of which one is ``cpu_milli`` thousandths; ``allowed``:
    uint8[typical requests, host classes]; ``shape``: (cpu, milli, count) of the request; ``key``: of its random choices; ``beside``: scores
    of another request made of the same arrays, which share what fragmentation hosts have. The rest as in ``score``.

    IndexError for a resource class that there is not; ValueError for arrays that differ in length or that name rows that there are
    not; RuntimeError if the columns were reallocated since.
    """

    def __init__(self, Columns columns not None, int policy, double largest_cpu, double largest_gpu,
                 const int64_t[:, ::1] typical not None, const double[::1] share not None, const uint8_t[:, ::1] allowed not None,
                 const int32_t[:, ::1] below not None, int32_t device, int32_t cpu, int64_t cpu_milli, tuple shape not None,
                 uint64_t key=0, HostScores beside=None):
        cdef Py_ssize_t i, j
        if self.columns is not None:
            raise RuntimeError("scores are made once")
        if not (0 <= device < columns.c.classes and 0 <= cpu < columns.c.classes):
            raise IndexError("resource class out of range")
        if below.shape[0] != columns.c.capacity or below.shape[1] > MOST:
            raise ValueError("the rows of devices differ in length from the columns")
        for i in range(below.shape[0]):
            for j in range(below.shape[1]):
                if not -1 <= below[i, j] < columns.c.rows:
                    raise ValueError("a device's row is out of range")
        if cpu_milli < 0:
            raise ValueError("a CPU has no fewer than 0 thousandths")
        set_rule(&self.rule, policy, largest_cpu, largest_gpu, typical, share, allowed, allowed.shape[1])
        self.asked.cpu, self.asked.milli, self.asked.count = shape
        check_shape(self.asked.cpu, self.asked.milli, self.asked.count, below.shape[1])
        self.below, self.allowed, self.kept = below, allowed, (typical, share)
        self.device, self.cpu, self.cpu_milli, self.key = device, cpu, cpu_milli, key
        self.width, self.capacity = <int32_t>below.shape[1], columns.c.capacity
        if beside is not None:
            if not self.alike(beside, columns):
                raise ValueError("scores beside others have the same arrays and rule")
            self.fragments = beside.fragments
        elif policy == FRAGMENTATION:
            self.fragments = KeptFragments(self.capacity, self.width)
        self.columns = columns

    cdef bint alike(self, HostScores other, Columns columns) noexcept:
        """Whether another's hosts have the same fragmentation at all times."""
        cdef mix_t* mine = &self.rule.mix
        cdef mix_t* its = &other.rule.mix
        cdef bint empty = self.width == 0 or self.capacity == 0
        return (columns is other.columns and self.rule.policy == other.rule.policy and self.capacity == other.capacity
                and self.width == other.width and self.device == other.device and self.cpu == other.cpu
                and self.cpu_milli == other.cpu_milli and mine.size == its.size and mine.nodes == its.nodes
                and mine.shapes == its.shapes and mine.share == its.share and mine.allowed == its.allowed
                and (empty or &self.below[0, 0] == &other.below[0, 0]))

    cdef int check(self) except -1:
        if self.columns is None or self.columns.c.capacity != self.capacity:
            raise RuntimeError("the columns moved: make new scores")
        return 0

    cdef double score(self, int32_t row, const int32_t* tags, uint64_t* taken) noexcept nogil:
        """The score of a row whose host class the mix knows, 0 where the request does not fit; in `taken` the devices that it would take
        there."""
        cdef int32_t idle[MOST]
        cdef int32_t d, gpu
        cdef int64_t number = self.columns.c.class_of[row], room, value
        cdef int64_t cpu = self.columns.c.avail[self.cpu * self.capacity + row] * self.cpu_milli
        cdef double before = 0.0
        taken[0] = 0
        if self.asked.count > self.width:
            return 0.0
        for d in range(self.width):
            gpu = self.below[row, d]
            room = -1 if gpu < 0 else max(self.columns.c.avail[self.device * self.capacity + gpu], 0)
            idle[d] = <int32_t>room
        # What does not fit is told without it.
        if self.rule.policy == FRAGMENTATION and cpu >= self.asked.cpu and (
                self.asked.count == 0 or pick(self.rule.policy, &self.asked, idle, self.width, self.key, row)):
            before = self.fragments.of(&self.rule.mix, row, <int32_t>number, cpu, idle)
        value = score_node(&self.rule, &self.asked, number, row, cpu, idle, tags, self.width, before, self.key, taken)
        if value == NO_ROOM:
            taken[0] = 0
            return 0.0
        return <double>value

    def of(self, const int32_t[::1] rows not None, const int32_t[:, ::1] tags=None):
        """(scores, devices as bits) of rows, as ``score`` says them; ``tags``: [rows, devices + 2], all 0 if None. O(rows * devices *
        typical requests)."""
        cdef int32_t none[MOST + 2]
        cdef const int32_t* tag_row = none
        cdef Py_ssize_t i, n = rows.shape[0]
        self.check()
        if tags is not None and (tags.shape[0] != n or tags.shape[1] != self.width + 2):
            raise ValueError("tags and rows differ in length")
        for i in range(n):
            self.columns.check_row(rows[i])
            if self.rule.mix.size and not 0 <= self.columns.c.class_of[rows[i]] < self.rule.mix.nodes:
                raise ValueError("a host class that the typical requests do not know")
        for i in range(MOST + 2):
            none[i] = 0
        scores, masks = np.zeros(n, np.float64), np.zeros(n, np.uint64)
        cdef double[::1] out = scores
        cdef uint64_t[::1] devices = masks
        with nogil:
            for i in range(n):
                if tags is not None:
                    tag_row = &tags[i, 0]
                out[i] = self.score(rows[i], tag_row, &devices[i])
        return scores, masks
