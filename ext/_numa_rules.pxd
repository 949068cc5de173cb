"""The NUMA rules of the kernel: a guest's cells against one host's, on flat blocks, without the interpreter.

Hosts of one model share a *shape*, one flat block; a host's *state* is a few words. Memory is in MiB, page sizes in
KiB, CPUs are ids below 1024. Rules as in placement/numa/fit.py (Nova 33 hardware.py NUMA fit). Whether a guest fits
depends on no order: guest cells fit if they can be matched to different host cells. A fit is the first permutation in
order of preference; it is found by fixing one guest cell after the other while the rest can still be matched, so
permutations are never enumerated.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint64_t
from libc.string cimport memset

cdef extern from *:
    """
    #define numa_popcount(word) __builtin_popcountll(word)
    #define numa_lowest(word) __builtin_ctzll(word)
    """
    int numa_popcount(uint64_t word) nogil
    int numa_lowest(uint64_t word) nogil

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


# ---- views of a block and a state


cdef inline const cell_t* cell_at(const shape_t* shape, int32_t index) noexcept nogil:
    return <const cell_t*>(shape + 1) + index


cdef inline const int64_t* data_at(const shape_t* shape, int32_t offset) noexcept nogil:
    return <const int64_t*>shape + offset


cdef inline const uint64_t* shared_mask(const shape_t* shape, const cell_t* cell) noexcept nogil:
    return <const uint64_t*>data_at(shape, cell.masks)


cdef inline const uint64_t* dedicated_mask(const shape_t* shape, const cell_t* cell) noexcept nogil:
    return <const uint64_t*>data_at(shape, cell.masks + cell.words)


cdef inline const uint64_t* core_mask(const shape_t* shape, const cell_t* cell) noexcept nogil:
    return <const uint64_t*>data_at(shape, cell.masks + 2 * cell.words)


cdef inline const uint64_t* pinned_mask(const cell_t* cell, const int64_t* state) noexcept nogil:
    return <const uint64_t*>(state + cell.state + PINNED)


cdef inline const int64_t* pages_at(const cell_t* cell, const int64_t* state, int64_t index) noexcept nogil:
    return state + cell.state + PINNED + cell.words + 3 * index


cdef inline double ratio(const int64_t* state, int32_t which) noexcept nogil:
    return (<const double*>state)[which]


cdef inline bint has_bit(const uint64_t* mask, int32_t bit) noexcept nogil:
    return (mask[bit >> 6] >> (bit & 63)) & 1


cdef inline void set_bit(uint64_t* mask, int32_t bit) noexcept nogil:
    mask[bit >> 6] |= <uint64_t>1 << (bit & 63)


# ---- one guest cell on one host cell


cdef inline bint pages_hold(int64_t memory_kb, int64_t size, int64_t room) noexcept nogil:
    return memory_kb <= room * size and memory_kb % size == 0


cdef inline int64_t free_pages(const int64_t* pages) noexcept nogil:
    return pages[PAGES_TOTAL] - pages[PAGES_USED] - pages[PAGES_RESERVED]


cdef inline int64_t page_size(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want) noexcept nogil:
    """The page size in KiB for the guest's memory; 0: the host cell knows no page sizes; -1: it does not fit."""
    cdef int64_t memory_kb = want.memory << 10
    cdef int64_t room, size
    cdef const int64_t* sizes = data_at(shape, cell.sizes)
    cdef const int64_t* largest_first = sizes + cell.pages
    cdef const int64_t* pages
    cdef int32_t place, first = 0, end = cell.pages
    if want.pagesize == 0:
        if cell.pages == 0:
            room = state[cell.state + MEMORY]
            if want.is_pinned:
                room -= state[cell.state + MEMORY_USAGE]
            return 0 if want.memory <= room else -1
        pages = pages_at(cell, state, cell.smallest)
        room = free_pages(pages) if want.is_pinned else pages[PAGES_TOTAL]
        size = sizes[cell.smallest]
        return size if pages_hold(memory_kb, size, room) else -1
    if want.pagesize == -1:
        first = end - 1 if end else 0
    elif want.pagesize == -2:
        end -= 1
    for place in range(first, end):
        size = sizes[largest_first[place]]
        if want.pagesize > 0 and size != want.pagesize:
            continue
        if pages_hold(memory_kb, size, free_pages(pages_at(cell, state, largest_first[place]))):
            return size
    return -1


cdef inline int32_t count_free(const shape_t* shape, const cell_t* cell, const int64_t* state,
                               const uint64_t* among) noexcept nogil:
    """Dedicated CPUs of the cell that are in ``among`` and that no guest holds."""
    cdef const uint64_t* dedicated = dedicated_mask(shape, cell)
    cdef const uint64_t* pinned = pinned_mask(cell, state)
    cdef int32_t word, count = 0
    for word in range(cell.words):
        count += numa_popcount(dedicated[word] & among[word] & ~pinned[word])
    return count


cdef inline bint cpu_is_free(const uint64_t* dedicated, const uint64_t* pinned, int32_t bit) noexcept nogil:
    return has_bit(dedicated, bit) and not has_bit(pinned, bit)


cdef inline void count_cores(const shape_t* shape, const cell_t* cell, const int64_t* state, int32_t* cores) noexcept nogil:
    """``cores[k]``: cores with at least ``k`` free threads, for k in 1 .. cell.threads."""
    cdef const uint16_t* core = <const uint16_t*>data_at(shape, cell.core_list)
    cdef const uint64_t* dedicated = dedicated_mask(shape, cell)
    cdef const uint64_t* pinned = pinned_mask(cell, state)
    cdef int32_t index, thread, count, base = cell.first_word << 6
    memset(cores, 0, (cell.threads + 1) * sizeof(int32_t))
    for index in range(cell.cores):
        count = 0
        for thread in range(core[0]):
            if cpu_is_free(dedicated, pinned, core[1 + thread] - base):
                count += 1
                cores[count] += 1
        core += 1 + core[0]


cdef inline bint packs(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want) noexcept nogil:
    """Whether ``pack`` would succeed, by counting."""
    cdef int32_t cores[MOST_CPUS + 1]
    cdef int32_t width, known
    if cell.threads == 0 or (want.pinned == 0 and (want.spare or want.threads == THREADS_ISOLATE)):
        return False
    known = count_free(shape, cell, state, core_mask(shape, cell))
    if want.threads == THREADS_ANY:
        return known >= want.pinned + want.spare
    if want.threads == THREADS_ISOLATE and cell.threads > 1 and not cell.legacy:
        return False
    count_cores(shape, cell, state, cores)
    if want.threads == THREADS_ISOLATE:
        return cores[cell.threads] >= want.pinned and known - want.pinned * cell.threads >= want.spare
    for width in range(2, cell.threads + 1):
        if cores[width] and width * cores[width] >= want.pinned and known >= want.pinned + want.spare:
            return True
    return False


cdef inline bint cell_fits(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want,
                           bint limited) noexcept nogil:
    cdef int64_t usage
    if want.is_pinned and want.pinned + want.spare > cell.pcpus:
        return False
    if want.is_floating:
        if want.shared > cell.cpus:
            return False
        if limited:
            usage = state[cell.state + CPU_USAGE] + want.shared
            if usage > cell.cpus * ratio(state, CPU_RATIO):
                return False
            usage = state[cell.state + MEMORY_USAGE] + want.memory
            if usage > state[cell.state + MEMORY] * ratio(state, RAM_RATIO):
                return False
    if page_size(shape, cell, state, want) < 0:
        return False
    if want.is_pinned:
        if count_free(shape, cell, state, dedicated_mask(shape, cell)) < want.pinned + want.spare:
            return False
        return packs(shape, cell, state, want)
    return True


# ---- matching guest cells to host cells


cdef inline bint augment(const uint64_t* fits, int32_t guest, uint64_t allowed, uint64_t* seen, int32_t* owner) noexcept nogil:
    """Find a host cell for ``guest``, moving earlier guests to other cells where that helps."""
    cdef uint64_t left = fits[guest] & allowed & ~seen[0]
    cdef int32_t host
    while left:
        host = numa_lowest(left)
        seen[0] |= <uint64_t>1 << host
        if owner[host] < 0 or augment(fits, owner[host], allowed, seen, owner):
            owner[host] = guest
            return True
        left = fits[guest] & allowed & ~seen[0]
    return False


cdef inline bint matched(const uint64_t* fits, int32_t first, int32_t guests, uint64_t allowed) noexcept nogil:
    """Whether guests ``first .. guests - 1`` can have different host cells out of ``allowed``."""
    cdef int32_t owner[MOST_CELLS]
    cdef uint64_t seen
    cdef int32_t guest
    memset(owner, -1, sizeof(owner))
    for guest in range(first, guests):
        seen = 0
        if not augment(fits, guest, allowed, &seen, owner):
            return False
    return True


cdef inline bint same_want(const want_t* one, const want_t* other) noexcept nogil:
    return (one.memory == other.memory and one.pagesize == other.pagesize and one.shared == other.shared
            and one.pinned == other.pinned and one.spare == other.spare and one.is_pinned == other.is_pinned
            and one.is_floating == other.is_floating and one.threads == other.threads)


cdef inline bint fit_masks(const shape_t* shape, const int64_t* state, const want_t* wants, int32_t guests, bint limited,
                           const int32_t* order, uint64_t* fits) noexcept nogil:
    """``fits[g]``: bit k is set if guest cell g fits host cell ``order[k]``. False as soon as one fits nowhere."""
    cdef int32_t guest, place
    for guest in range(guests):
        if guest and same_want(&wants[guest], &wants[guest - 1]):
            fits[guest] = fits[guest - 1]
            continue
        fits[guest] = 0
        for place in range(shape.cells):
            if cell_fits(shape, cell_at(shape, order[place]), state, &wants[guest], limited):
                fits[guest] |= <uint64_t>1 << place
        if fits[guest] == 0:
            return False
    return True


cdef inline uint64_t first_bits(int32_t count) noexcept nogil:
    return ~<uint64_t>0 if count >= 64 else (<uint64_t>1 << count) - 1


cdef inline bint before(const shape_t* shape, const int64_t* state, bint pinned, bint packing, const int64_t* devices,
                        int32_t one, int32_t other) noexcept nogil:
    """Whether host cell ``one`` is preferred to ``other``: devices, then CPUs, then memory; equal ones keep their
    order."""
    cdef const cell_t* a = cell_at(shape, one)
    cdef const cell_t* b = cell_at(shape, other)
    cdef int64_t left = devices[one], right = devices[other]
    if left != right:
        return left < right
    if pinned:
        left = count_free(shape, a, state, dedicated_mask(shape, a))
        right = count_free(shape, b, state, dedicated_mask(shape, b))
    else:
        left = -state[a.state + CPU_USAGE]
        right = -state[b.state + CPU_USAGE]
    if left == right:
        left = state[a.state + MEMORY] - state[a.state + MEMORY_USAGE]
        right = state[b.state + MEMORY] - state[b.state + MEMORY_USAGE]
    if left != right:
        return left < right if packing else left > right
    return False


cdef inline void prefer(const shape_t* shape, const int64_t* state, const want_t* wants, int32_t guests, bint packing,
                        const int64_t* devices, int32_t* order) noexcept nogil:
    """Host cells in order of preference, a stable insertion sort; as they are if there are no more of them than guest
    cells."""
    cdef int32_t index, place
    for index in range(shape.cells):
        place = index
        if shape.cells > guests:
            while place > 0 and before(shape, state, wants[0].is_pinned, packing, devices, index, order[place - 1]):
                order[place] = order[place - 1]
                place -= 1
        order[place] = index


cdef inline bint first_permutation(const uint64_t* fits, int32_t guests, int32_t hosts, int32_t* chosen) noexcept nogil:
    """The first permutation of host cells that all guest cells fit, ``chosen[g]`` = place in order."""
    cdef uint64_t allowed = first_bits(hosts), left
    cdef int32_t guest, place
    if not matched(fits, 0, guests, allowed):
        return False
    for guest in range(guests):
        left = fits[guest] & allowed
        while True:
            place = numa_lowest(left)
            if matched(fits, guest + 1, guests, allowed & ~(<uint64_t>1 << place)):
                break
            left &= left - 1
        chosen[guest] = place
        allowed &= ~(<uint64_t>1 << place)
    return True


# ---- which CPUs


cdef inline int32_t take_threads(const shape_t* shape, const cell_t* cell, const int64_t* state, int32_t at_least, int32_t at_most,
                                 int32_t count, pack_t* pack) noexcept nogil:
    """Fill ``pack`` with the first ``count`` free threads, up to ``at_most`` of each core that has ``at_least``; how
    many."""
    cdef const uint16_t* core = <const uint16_t*>data_at(shape, cell.core_list)
    cdef const uint64_t* dedicated = dedicated_mask(shape, cell)
    cdef const uint64_t* pinned = pinned_mask(cell, state)
    cdef int32_t index, thread, spare, found, base = cell.first_word << 6
    pack.count = 0
    for index in range(cell.cores):
        spare = 0
        for thread in range(core[0]):
            spare += cpu_is_free(dedicated, pinned, core[1 + thread] - base)
        found = 0
        if spare >= at_least:
            for thread in range(core[0]):
                if found < at_most and pack.count < count and cpu_is_free(dedicated, pinned, core[1 + thread] - base):
                    pack.cpus[pack.count] = core[1 + thread]
                    pack.count += 1
                    found += 1
        core += 1 + core[0]
    return pack.count


cdef inline void take_emulator(const shape_t* shape, const cell_t* cell, const int64_t* state, bint whole_cores,
                               pack_t* pack) noexcept nogil:
    """The first free thread that is not taken; with ``whole_cores`` on a core of which no thread is taken."""
    cdef const uint16_t* core = <const uint16_t*>data_at(shape, cell.core_list)
    cdef const uint64_t* dedicated = dedicated_mask(shape, cell)
    cdef const uint64_t* pinned = pinned_mask(cell, state)
    cdef int32_t index, thread, bit, base = cell.first_word << 6
    cdef bint touched
    for index in range(cell.cores):
        touched = False
        for thread in range(core[0]):
            touched = touched or has_bit(pack.used, core[1 + thread] - base)
        for thread in range(core[0]):
            bit = core[1 + thread] - base
            if (whole_cores and touched) or has_bit(pack.used, bit) or not cpu_is_free(dedicated, pinned, bit):
                continue
            pack.emulator = core[1 + thread]
            pack.emulators = 1
            set_bit(pack.used, bit)
            return
        core += 1 + core[0]


cdef inline void pack_cell(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want,
                           pack_t* pack) noexcept nogil:
    """Which CPUs the guest cell gets, given that it fits."""
    cdef int32_t cores[MOST_CPUS + 1]
    cdef int32_t index, width = 1, base = cell.first_word << 6
    memset(pack.used, 0, sizeof(pack.used))
    pack.count = 0
    pack.emulators = 0
    if not want.is_pinned or want.pinned == 0:
        return
    if want.threads == THREADS_ISOLATE:
        take_threads(shape, cell, state, cell.threads, 1, want.pinned, pack)
    else:
        count_cores(shape, cell, state, cores)
        width = cell.threads
        while width > 0 and not (cores[width] and width * cores[width] >= want.pinned):
            width -= 1
        if width > 0:
            take_threads(shape, cell, state, width, width, want.pinned, pack)
        else:
            take_threads(shape, cell, state, 1, cell.threads, want.pinned, pack)
    for index in range(pack.count):
        set_bit(pack.used, pack.cpus[index] - base)
    if want.spare:
        take_emulator(shape, cell, state, want.threads == THREADS_ISOLATE, pack)


cdef inline bint claim_siblings(const shape_t* shape, const cell_t* cell, const int64_t* state, pack_t* pack) noexcept nogil:
    """Add the free siblings of the CPUs in ``pack.used``. False if one is not free, where Nova, which takes all,
    fails."""
    cdef const uint16_t* core = <const uint16_t*>data_at(shape, cell.core_list)
    cdef const uint64_t* dedicated = dedicated_mask(shape, cell)
    cdef const uint64_t* pinned = pinned_mask(cell, state)
    cdef int32_t index, thread, bit, base = cell.first_word << 6
    cdef bint touched, whole = True
    for index in range(cell.cores):
        touched = False
        for thread in range(core[0]):
            touched = touched or has_bit(pack.used, core[1 + thread] - base)
        if touched:
            for thread in range(core[0]):
                bit = core[1 + thread] - base
                if cpu_is_free(dedicated, pinned, bit):
                    set_bit(pack.used, bit)
                else:
                    whole = False
        core += 1 + core[0]
    return whole
