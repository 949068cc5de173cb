"""Contract of the NUMA kernel: the NUMA state of many hosts in flat arrays, and requests compiled against it.

What hosts of one model share is a *shape*: one flat block, interned. What changes is a row's *state*: a few words in one arena.
Memory is in MiB, page sizes in KiB, CPUs are ids below 1024.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef struct cell_t:
    # A host cell's fixed part; offsets are in 8-byte words.
    int32_t id
    int32_t socket
    int32_t has_socket
    int32_t cpus           # shared CPUs
    int32_t pcpus          # dedicated CPUs
    int32_t first_word     # first and number of the 64-CPU words that cover all its CPUs
    int32_t words
    int32_t threads        # most threads of a core, 0: no cores known
    int32_t cores
    int32_t pages          # page sizes
    int32_t smallest       # index of the smallest page size
    int32_t legacy         # shared and dedicated CPUs are the same (vcpu_pin_set)
    int32_t masks          # into the block: words shared, words dedicated, words on some core
    int32_t core_list      # into the block: uint16 per core: threads, then their ascending ids
    int32_t sizes          # into the block: page sizes as reported, then their indexes, largest first
    int32_t state          # into the row's state, see below

cdef struct shape_t:
    # Head of a shape's block; cell_t[cells] and data follow.
    int32_t cells
    int32_t state_words    # of a row with this shape
    int32_t smt            # some core has several threads
    int32_t block_words

cdef enum:
    # A row's state: two doubles, then per cell MEMORY .. PINNED, pinned words, and three words per page size.
    CPU_RATIO = 0
    RAM_RATIO = 1
    HEAD = 2
    MEMORY = 0
    MEMORY_USAGE = 1
    CPU_USAGE = 2
    PINNED = 3
    PAGES_TOTAL = 0
    PAGES_USED = 1
    PAGES_RESERVED = 2

cdef enum:
    MOST_CELLS = 64
    MOST_CPUS = 1024
    MOST_WORDS = 16        # MOST_CPUS / 64
    MOST_PAGES = 16

cdef struct want_t:
    # A guest cell.
    int64_t memory
    int64_t pagesize       # KiB, 0 none, -1 small, -2 large, -3 any
    int32_t shared         # CPUs that float
    int32_t pinned         # CPUs with a host CPU of their own
    int32_t spare          # host CPUs for emulator threads, 0 or 1
    int32_t is_pinned      # policy dedicated or mixed
    int32_t is_floating    # policy shared or mixed
    int32_t threads        # THREADS_*

cdef enum:
    THREADS_ANY = 0
    THREADS_REQUIRE = 1
    THREADS_ISOLATE = 2

cdef struct pack_t:
    # Where a guest cell's CPUs go on a host cell.
    int32_t count
    int32_t emulators
    uint64_t used[MOST_WORDS]      # cpus and emulator CPUs
    int32_t cpus[MOST_CPUS]
    int32_t emulator

cdef class NumaProgram:
    cdef want_t wants[MOST_CELLS]
    cdef int32_t cells
    cdef int32_t packing       # fill used cells first
    cdef int32_t limited       # allocation ratios bind floating CPUs
    cdef int32_t needs_smt     # only hosts with SMT

cdef class NumaTable:
    cdef int32_t* shape_of     # [capacity] -1: no NUMA cells known
    cdef uint32_t* start       # [capacity] into arena
    cdef int64_t capacity
    cdef int64_t* arena        # states
    cdef int64_t arena_room, arena_fill
    cdef const shape_t** shapes
    cdef int32_t shape_room
    cdef list shape_blocks     # bytes or None; shapes[i] points into shape_blocks[i]
    cdef dict shape_ids        # bytes -> shape id
    cdef list shape_rows       # rows per shape
    cdef list free_shapes
    cdef dict free_states      # words -> [start]

    cdef bint fits(self, NumaProgram program, int32_t row) noexcept nogil
    cdef int reserve_rows(self, int64_t rows) except -1
    cdef int64_t take_state(self, int64_t words) except -1
    cdef int32_t intern(self, bytes block) except -1
    cdef int forget(self, int32_t shape) except -1
    cdef int put(self, int64_t row, bytes block, const int64_t* state) except -1
    cdef int drop(self, int64_t row) except -1
