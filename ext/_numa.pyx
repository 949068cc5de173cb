"""The NUMA kernel: which hosts a guest's NUMA cells fit, where, and what they take there. Numbers in, numbers out.

Rules as in placement/_numa_fit.py and _numa_usage.py (Nova 33 hardware.py), which the tests hold it against. A verdict needs no
order: guest cells fit if they can be matched to different host cells. A fit is the first permutation in order of preference; it is
found by fixing one guest cell after the other while the rest can still be matched, so permutations are never enumerated.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, INT32_MAX
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

cdef extern from *:
    """
    #define numa_popcount(word) __builtin_popcountll(word)
    #define numa_lowest(word) __builtin_ctzll(word)
    """
    int numa_popcount(uint64_t word) nogil
    int numa_lowest(uint64_t word) nogil

cdef int64_t MOST = <int64_t>1 << 42      # amounts of memory, pages and CPUs: exact as doubles, also in KiB
cdef int64_t MOST_KB = <int64_t>1 << 60   # pages times their size
cdef int64_t MOST_SIZE = <int64_t>1 << 30
cdef int64_t MOST_ARENA = <int64_t>1 << 32


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


cdef int64_t page_size(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want) noexcept nogil:
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


cdef void count_cores(const shape_t* shape, const cell_t* cell, const int64_t* state, int32_t* cores) noexcept nogil:
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


cdef bint packs(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want) noexcept nogil:
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


cdef bint cell_fits(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want,
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


cdef bint augment(const uint64_t* fits, int32_t guest, uint64_t allowed, uint64_t* seen, int32_t* owner) noexcept nogil:
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


cdef bint matched(const uint64_t* fits, int32_t first, int32_t guests, uint64_t allowed) noexcept nogil:
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


cdef bint fit_masks(const shape_t* shape, const int64_t* state, const want_t* wants, int32_t guests, bint limited,
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


cdef bint before(const shape_t* shape, const int64_t* state, NumaProgram program, const int64_t* devices, int32_t one,
                 int32_t other) noexcept nogil:
    """Whether host cell ``one`` is preferred to ``other``: devices, then CPUs, then memory; equal ones keep their order."""
    cdef const cell_t* a = cell_at(shape, one)
    cdef const cell_t* b = cell_at(shape, other)
    cdef int64_t left = devices[one], right = devices[other]
    if left != right:
        return left < right
    if program.wants[0].is_pinned:
        left = count_free(shape, a, state, dedicated_mask(shape, a))
        right = count_free(shape, b, state, dedicated_mask(shape, b))
    else:
        left = -state[a.state + CPU_USAGE]
        right = -state[b.state + CPU_USAGE]
    if left == right:
        left = state[a.state + MEMORY] - state[a.state + MEMORY_USAGE]
        right = state[b.state + MEMORY] - state[b.state + MEMORY_USAGE]
    if left != right:
        return left < right if program.packing else left > right
    return False


cdef void prefer(const shape_t* shape, const int64_t* state, NumaProgram program, const int64_t* devices,
                 int32_t* order) noexcept nogil:
    """Host cells in order of preference, a stable insertion sort."""
    cdef int32_t index, place
    for index in range(shape.cells):
        place = index
        if shape.cells > program.cells:
            while place > 0 and before(shape, state, program, devices, index, order[place - 1]):
                order[place] = order[place - 1]
                place -= 1
        order[place] = index


cdef bint first_permutation(const uint64_t* fits, int32_t guests, int32_t hosts, int32_t* chosen) noexcept nogil:
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


cdef int32_t take_threads(const shape_t* shape, const cell_t* cell, const int64_t* state, int32_t at_least, int32_t at_most,
                          int32_t count, pack_t* pack) noexcept nogil:
    """Fill ``pack`` with the first ``count`` free threads: up to ``at_most`` of each core that has ``at_least``. Returns how many."""
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


cdef void take_emulator(const shape_t* shape, const cell_t* cell, const int64_t* state, bint whole_cores,
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


cdef void pack_cell(const shape_t* shape, const cell_t* cell, const int64_t* state, const want_t* want,
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


cdef bint claim_siblings(const shape_t* shape, const cell_t* cell, const int64_t* state, pack_t* pack) noexcept nogil:
    """Add the free siblings of the CPUs in ``pack.used``. False if Nova, which takes all of them, would take one that is not free."""
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


# ---- reading a topology


@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    """Takes checked numbers from an array; every count is checked before anything is allocated by it."""

    cdef const int64_t[::1] words
    cdef Py_ssize_t at

    def __cinit__(self, const int64_t[::1] words):
        self.words = words
        self.at = 0

    cdef int64_t take(self, int64_t least, int64_t most, str what) except? -1:
        cdef int64_t value
        if self.at >= self.words.shape[0]:
            raise ValueError("numbers are missing")
        value = self.words[self.at]
        if not least <= value <= most:
            raise ValueError(f"{what} {value} is not in {least} .. {most}")
        self.at += 1
        return value

    cdef int skip_cpus(self, int64_t count, int32_t* low, int32_t* high) except -1:
        cdef int64_t index
        cdef int32_t cpu
        for index in range(count):
            cpu = <int32_t>self.take(0, MOST_CPUS - 1, "CPU id")
            low[0] = min(low[0], cpu)
            high[0] = max(high[0], cpu)
        return 0

    cdef int32_t read_mask(self, int64_t count, int32_t base, uint64_t* mask) except -1:
        cdef int64_t index
        cdef int32_t bit, distinct = 0
        for index in range(count):
            bit = <int32_t>self.take(0, MOST_CPUS - 1, "CPU id") - base
            distinct += not has_bit(mask, bit)
            set_bit(mask, bit)
        return distinct


cdef int64_t core_words(int64_t threads, int64_t cores) noexcept nogil:
    return (threads + cores + 3) // 4


cdef tuple parsed(const int64_t[::1] words, double cpu_ratio, double ram_ratio):
    """A topology in numbers as (shape block, state): bytes each. The form is that of ``NumaTable.set_row``."""
    cdef Reader reader = Reader(words)
    cdef int64_t cells = reader.take(1, MOST_CELLS, "number of NUMA cells")
    cdef int64_t data = 2 + 8 * cells, state = HEAD, cores, threads, index
    cdef int64_t counts[5]
    cdef int32_t low, high, first, span, place
    cdef list spans = []
    cdef const cell_t* unused = NULL
    for place in range(cells):
        for index in range(6):
            reader.take(-MOST, MOST, "number")
        for index in range(5):
            counts[index] = reader.take(0, MOST_CPUS if index < 4 else MOST_PAGES, "count")
        low, high, threads = MOST_CPUS, -1, 0
        reader.skip_cpus(counts[0] + counts[1] + counts[2], &low, &high)
        for index in range(counts[3]):
            cores = reader.take(0, MOST_CPUS, "number of siblings")
            reader.skip_cpus(cores, &low, &high)
            threads += cores
        for index in range(4 * counts[4]):
            reader.take(0, MOST, "pages")
        first = low >> 6 if high >= 0 else 0
        span = (high >> 6) - first + 1 if high >= 0 else 0
        spans.append((first, span, threads))
        data += 3 * span + core_words(threads, counts[3]) + 2 * counts[4]
        state += PINNED + span + 3 * counts[4]
    if reader.at != words.shape[0]:
        raise ValueError("there are more numbers than the topology has")
    cdef bytes block = PyBytes_FromStringAndSize(NULL, 8 * data)
    cdef bytes image = PyBytes_FromStringAndSize(NULL, 8 * state)
    memset(PyBytes_AS_STRING(block), 0, 8 * data)
    memset(PyBytes_AS_STRING(image), 0, 8 * state)
    cdef shape_t* shape = <shape_t*>PyBytes_AS_STRING(block)
    cdef int64_t* values = <int64_t*>PyBytes_AS_STRING(image)
    shape.cells = <int32_t>cells
    shape.state_words = <int32_t>state
    shape.block_words = <int32_t>data
    (<double*>values)[CPU_RATIO] = cpu_ratio
    (<double*>values)[RAM_RATIO] = ram_ratio
    fill(Reader(words), shape, values, spans)
    return block, image


cdef int fill(Reader reader, shape_t* shape, int64_t* state, list spans) except -1:
    cdef int32_t data = 2 + 8 * shape.cells, used = HEAD, place, other
    cdef int32_t span, first
    cdef int64_t threads
    cdef cell_t* cell
    reader.take(1, MOST_CELLS, "number of NUMA cells")
    for place in range(shape.cells):
        first, span, threads = spans[place]
        cell = <cell_t*>cell_at(shape, place)
        cell.first_word, cell.words = first, span
        cell.state = used
        cell.masks = data
        cell.core_list = data + 3 * span
        cell.id = <int32_t>reader.take(0, INT32_MAX, "NUMA cell id")
        for other in range(place):
            if cell_at(shape, other).id == cell.id:
                raise ValueError(f"two NUMA cells have id {cell.id}")
        cell.has_socket = <int32_t>reader.take(0, 1, "socket flag")
        cell.socket = <int32_t>reader.take(0, INT32_MAX, "socket")
        state[used + MEMORY] = reader.take(0, MOST, "memory")
        state[used + MEMORY_USAGE] = reader.take(-MOST, MOST, "memory usage")
        state[used + CPU_USAGE] = reader.take(-MOST, MOST, "CPU usage")
        fill_cpus(reader, shape, cell, state, threads)
        fill_pages(reader, shape, cell, state)
        shape.smt |= cell.threads > 1
        data = cell.sizes + 2 * cell.pages
        used += PINNED + span + 3 * cell.pages
    return 0


cdef int fill_cpus(Reader reader, shape_t* shape, cell_t* cell, int64_t* state, int64_t threads) except -1:
    cdef int64_t shared = reader.take(0, MOST_CPUS, "count"), dedicated = reader.take(0, MOST_CPUS, "count")
    cdef int64_t pinned = reader.take(0, MOST_CPUS, "count"), cores = reader.take(0, MOST_CPUS, "count"), count
    cdef uint64_t* masks = <uint64_t*>data_at(shape, cell.masks)
    cdef uint64_t* known = masks + 2 * cell.words
    cdef uint16_t* core = <uint16_t*>data_at(shape, cell.core_list)
    cdef uint64_t before[MOST_WORDS]
    cdef int32_t base = cell.first_word << 6, index, bit, word
    cell.pages = <int32_t>reader.take(0, MOST_PAGES, "count")
    cell.cpus = reader.read_mask(shared, base, masks)
    cell.pcpus = reader.read_mask(dedicated, base, masks + cell.words)
    reader.read_mask(pinned, base, <uint64_t*>(state + cell.state + PINNED))
    cell.legacy = 1
    for word in range(cell.words):
        if masks[word] != masks[cell.words + word]:
            cell.legacy = 0
    cell.cores = <int32_t>cores
    cell.sizes = cell.core_list + <int32_t>core_words(threads, cores)
    for index in range(cores):
        memcpy(before, known, 8 * cell.words)
        count = reader.take(0, MOST_CPUS, "number of siblings")
        if reader.read_mask(count, base, known) != count:
            raise ValueError("a CPU is on two cores")
        core[0] = <uint16_t>count
        cell.threads = max(cell.threads, <int32_t>count)
        core += 1
        for bit in range(64 * cell.words):
            if has_bit(known, bit) and not has_bit(before, bit):
                core[0] = <uint16_t>(base + bit)
                core += 1
    return 0


cdef int fill_pages(Reader reader, shape_t* shape, cell_t* cell, int64_t* state) except -1:
    cdef int64_t* sizes = <int64_t*>data_at(shape, cell.sizes)
    cdef int64_t* largest_first = sizes + cell.pages
    cdef int64_t* pages
    cdef int32_t index, field, place
    for index in range(cell.pages):
        sizes[index] = reader.take(1, MOST_SIZE, "page size")
        pages = <int64_t*>pages_at(cell, state, index)
        for field in range(3):
            pages[field] = reader.take(0, MOST_KB // sizes[index], "pages")
        place = index
        while place > 0 and sizes[largest_first[place - 1]] < sizes[index]:
            largest_first[place] = largest_first[place - 1]
            place -= 1
        largest_first[place] = index
        if place > 0 and sizes[largest_first[place - 1]] == sizes[index]:
            raise ValueError(f"page size {sizes[index]} is there twice")
    cell.smallest = <int32_t>largest_first[cell.pages - 1] if cell.pages else -1
    return 0


cdef list cpu_list(const uint64_t* mask, const cell_t* cell):
    cdef int32_t bit
    return [(cell.first_word << 6) + bit for bit in range(64 * cell.words) if has_bit(mask, bit)]


cdef list edge_cpus(const cell_t* cell):
    """CPUs that make ``parsed`` span the same words."""
    return [cell.first_word << 6, ((cell.first_word + cell.words) << 6) - 1] if cell.words else []


cdef list written(const shape_t* shape, const int64_t* state):
    """The inverse of ``parsed``; without ``state`` a topology that ``parsed`` gives the same shape."""
    cdef const cell_t* cell
    cdef const uint16_t* core
    cdef int32_t place, index, thread
    cdef list out = [shape.cells], shared, dedicated, pinned
    for place in range(shape.cells):
        cell = cell_at(shape, place)
        shared = cpu_list(shared_mask(shape, cell), cell)
        dedicated = cpu_list(dedicated_mask(shape, cell), cell)
        pinned = cpu_list(pinned_mask(cell, state), cell) if state != NULL else edge_cpus(cell)
        out += [cell.id, cell.has_socket, cell.socket]
        out += [state[cell.state + index] for index in range(3)] if state != NULL else [0, 0, 0]
        out += [len(shared), len(dedicated), len(pinned), cell.cores, cell.pages, *shared, *dedicated, *pinned]
        core = <const uint16_t*>data_at(shape, cell.core_list)
        for index in range(cell.cores):
            out += [core[thread] for thread in range(core[0] + 1)]
            core += 1 + core[0]
        for index in range(cell.pages):
            out.append(data_at(shape, cell.sizes)[index])
            out += [pages_at(cell, state, index)[thread] for thread in range(3)] if state != NULL else [0, 0, 0]
    return out


@cython.auto_pickle(False)
cdef class NumaProgram:
    """A guest's NUMA cells, compiled. Made by ``NumaTable.compile``."""


@cython.auto_pickle(False)
cdef class NumaTable:
    """NUMA state per host row. A row costs 8 bytes, with NUMA cells 16 bytes more, and per cell 24, 8 per 64 CPU ids that the cell
    spans and 24 per page size; the rest is shared by hosts of one shape."""

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
        """Set a row's topology; the table grows to hold the row. ValueError, and nothing changed, if a number is out of range.

        ``words``: number of cells; per cell id, 1 if it has a socket, socket, memory, memory usage, CPU usage, counts of shared,
        dedicated and pinned CPUs, cores and page sizes; then these CPUs, per core the number of its CPUs and them, per page size
        KiB, total, used and reserved pages. O(words).
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
        """What ``set_row`` was given, with what has changed since, as a list of numbers; None without NUMA cells. O(words)."""
        if not self.has_row(row):
            return None
        return written(self.shapes[self.shape_of[row]], self.arena + self.start[row])

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
        """Room for a state: a freed one of the same size, or new."""
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
        """One row less has the shape; the last one frees it."""
        self.shape_rows[shape] -= 1
        if self.shape_rows[shape] == 0:
            del self.shape_ids[self.shape_blocks[shape]]
            self.shape_blocks[shape] = None
            self.shapes[shape] = NULL
            self.free_shapes.append(shape)
        return 0

    # decisions

    def compile(self, const int64_t[::1] words, bint packing=False, bint limited=True, bint needs_smt=False):
        """A request. ``words``: per guest cell memory, page size (KiB; 0 none, -1 small, -2 large, -3 any), CPUs that float,
        CPUs that are pinned, spare CPUs for emulator threads, 1 if its policy is dedicated or mixed, 1 if it is shared or mixed,
        thread policy (0 any, 1 require, 2 isolate). ``packing``: fill used cells first. ``limited``: allocation ratios bind."""
        cdef NumaProgram program = NumaProgram.__new__(NumaProgram)
        cdef Reader reader = Reader(words)
        cdef want_t* want
        if words.shape[0] % 8 or not 0 < words.shape[0] <= 8 * MOST_CELLS:
            raise ValueError(f"a guest has 1 .. {MOST_CELLS} NUMA cells")
        memset(program.wants, 0, sizeof(program.wants))
        program.cells = <int32_t>(words.shape[0] // 8)
        program.packing, program.limited, program.needs_smt = packing, limited, needs_smt
        for index in range(program.cells):
            want = &program.wants[<int32_t>index]
            want.memory = reader.take(0, MOST, "memory")
            want.pagesize = reader.take(-3, MOST_SIZE, "page size")
            want.shared = <int32_t>reader.take(0, INT32_MAX // 2, "number of CPUs")
            want.pinned = <int32_t>reader.take(0, INT32_MAX // 2, "number of CPUs")
            want.spare = <int32_t>reader.take(0, 1, "number of spare CPUs")
            want.is_pinned = <int32_t>reader.take(0, 1, "flag")
            want.is_floating = <int32_t>reader.take(0, 1, "flag")
            want.threads = <int32_t>reader.take(0, 2, "thread policy")
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
        """``out[row]`` = 1 if the request fits the row, else 0, for each of ``rows``; IndexError for a row beyond ``out``.
        O(rows * guest cells * host cells), without the interpreter lock."""
        cdef Py_ssize_t index
        cdef int32_t row, low = 0, high = -1
        with nogil:
            for index in range(rows.shape[0]):
                low = min(low, rows[index])
                high = max(high, rows[index])
        if low < 0 or high >= out.shape[0]:
            raise IndexError("row out of range")
        with nogil:
            for index in range(rows.shape[0]):
                row = rows[index]
                out[row] = row < self.capacity and self.fits(program, row)

    def fit(self, NumaProgram program not None, int64_t row, const int64_t[:, ::1] devices):
        """Where the request goes: None, or per guest cell (host cell id, page size or 0, host CPUs by guest CPU, emulator CPUs,
        CPUs that become pinned, whether Nova charges it). ``devices``: NUMA node and free PCI devices; none of them is asked for.
        O(guest cells * host cells) checks of a pair, O((guest cells * host cells) ** 2) steps to match them."""
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
        prefer(shape, state, program, near, order)
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
        """Charge a row. ``words``: per host cell its id, memory, CPUs that float, page size or 0, number of CPUs that become
        pinned and these. ValueError, and nothing changed, if a cell is unknown or named twice, or a CPU is not free. O(words)."""
        self.change(row, words, 1)

    def release(self, int64_t row, const int64_t[::1] words):
        """Undo ``consume``. ValueError, and nothing changed, if a cell is unknown or named twice, or a CPU is not pinned."""
        self.change(row, words, -1)

    def change(self, int64_t row, const int64_t[::1] words, int32_t sign):
        """Both of the above: all is checked before anything changes."""
        cdef const shape_t* shape
        self.need_row(row)
        shape = self.shapes[self.shape_of[row]]
        walk(Reader(words), shape, self.arena + self.start[row], sign, False)
        walk(Reader(words), shape, self.arena + self.start[row], sign, True)

    # snapshots

    def to_arrays(self):
        """All rows as arrays, the same for equal tables whatever their history: ``shape_of`` int32 per row (-1 none) up to the last
        row with NUMA cells, ``shapes`` (in the form of ``set_row``) and ``shape_ends``, ``states``. O(rows)."""
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
        """The table that gave ``to_arrays``. ValueError if the arrays are damaged. O(rows)."""
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
        """AssertionError if the table contradicts itself. O(rows)."""
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


cdef int check_state(const shape_t* shape, const int64_t* state) except -1:
    """ValueError if a number is out of the range that ``parsed`` allows."""
    cdef int32_t place, index, field
    cdef const cell_t* cell
    cdef int64_t most
    if not (ratio(state, CPU_RATIO) == ratio(state, CPU_RATIO) and ratio(state, RAM_RATIO) == ratio(state, RAM_RATIO)):
        raise ValueError("an allocation ratio is not a number")
    for place in range(shape.cells):
        cell = cell_at(shape, place)
        for field in range(3):
            if not (0 if field == MEMORY else -MOST) <= state[cell.state + field] <= MOST:
                raise ValueError("a NUMA cell's amount is out of range")
        for index in range(cell.pages):
            most = MOST_KB // data_at(shape, cell.sizes)[index]
            for field in range(3):
                if not 0 <= pages_at(cell, state, index)[field] <= min(most, MOST):
                    raise ValueError("a NUMA cell's pages are out of range")
    return 0


cdef int walk(Reader reader, const shape_t* shape, int64_t* state, int32_t sign, bint apply) except -1:
    """Check, or apply, what ``consume`` and ``release`` are given."""
    cdef int64_t memory, shared, size, count, id
    cdef const cell_t* cell
    cdef int32_t place
    cdef uint64_t seen = 0
    while reader.at < reader.words.shape[0]:
        id = reader.take(0, INT32_MAX, "NUMA cell id")
        memory = reader.take(0, MOST, "memory")
        shared = reader.take(0, INT32_MAX, "number of CPUs")
        size = reader.take(0, MOST_SIZE, "page size")
        count = reader.take(0, MOST_CPUS, "number of CPUs")
        place = 0
        while place < shape.cells and cell_at(shape, place).id != id:
            place += 1
        if place == shape.cells or seen >> place & 1:
            raise ValueError(f"NUMA cell {id} is " + ("unknown" if place == shape.cells else "named twice"))
        seen |= <uint64_t>1 << place
        cell = cell_at(shape, place)
        change_cpus(reader, shape, cell, state, count, sign, apply)
        add(state + cell.state + MEMORY_USAGE, sign * memory, MOST, apply)
        add(state + cell.state + CPU_USAGE, sign * shared, MOST, apply)
        for place in range(cell.pages):
            if size and data_at(shape, cell.sizes)[place] == size:
                add(<int64_t*>pages_at(cell, state, place) + PAGES_USED, sign * ((memory << 10) // size),
                    min(MOST, MOST_KB // size), apply)
    return 0


cdef int add(int64_t* amount, int64_t change, int64_t most, bint apply) except -1:
    """Usage never falls below zero."""
    if amount[0] + change > most:
        raise ValueError("usage is out of range")
    if apply:
        amount[0] = max(<int64_t>0, amount[0] + change)
    return 0


cdef int change_cpus(Reader reader, const shape_t* shape, const cell_t* cell, int64_t* state, int64_t count, int32_t sign,
                     bint apply) except -1:
    cdef const uint64_t* dedicated = dedicated_mask(shape, cell)
    cdef uint64_t* pinned = <uint64_t*>pinned_mask(cell, state)
    cdef uint64_t named[MOST_WORDS]
    cdef int64_t index
    cdef int32_t cpu, bit
    memset(named, 0, sizeof(named))
    for index in range(count):
        cpu = <int32_t>reader.take(0, MOST_CPUS - 1, "CPU id")
        bit = cpu - (cell.first_word << 6)
        if apply:
            pinned[bit >> 6] ^= <uint64_t>1 << (bit & 63)
        elif not 0 <= bit < 64 * cell.words or has_bit(named, bit):
            raise ValueError(f"CPU {cpu} of NUMA cell {cell.id} is not there or named twice")
        elif sign > 0 and not cpu_is_free(dedicated, pinned, bit):
            raise ValueError(f"CPU {cpu} of NUMA cell {cell.id} is not free")
        elif sign < 0 and not has_bit(pinned, bit):
            raise ValueError(f"CPU {cpu} of NUMA cell {cell.id} is not pinned")
        else:
            set_bit(named, bit)
    return 0
