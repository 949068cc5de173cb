"""NUMA cells and guests as plain numbers, to the kernel's blocks and back; every number is checked before it is
used."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint16_t, uint64_t, INT32_MAX
from libc.string cimport memcpy, memset

from ._numa_rules cimport (
    CPU_RATIO, CPU_USAGE, HEAD, MEMORY, MEMORY_USAGE, MOST_CELLS, MOST_CPUS, MOST_PAGES, MOST_WORDS, PAGES_USED, PINNED,
    RAM_RATIO, cell_at, cell_t, cpu_is_free, data_at, dedicated_mask, has_bit, numa_lowest, pages_at, pinned_mask, ratio,
    set_bit, shape_t, shared_mask, want_t,
)

cdef int64_t MOST = <int64_t>1 << 42      # amounts of memory, pages and CPUs: exact as doubles, also in KiB
cdef int64_t MOST_KB = <int64_t>1 << 60   # pages times their size
cdef int64_t MOST_SIZE = <int64_t>1 << 30


@cython.final
@cython.auto_pickle(False)
cdef class Reader:
    """Reads numbers from an array and checks them; every count is checked before it sizes an allocation."""

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
    cdef list out = []
    cdef uint64_t left
    cdef int32_t word
    for word in range(cell.words):
        left = mask[word]
        while left:
            out.append(((cell.first_word + word) << 6) + numa_lowest(left))
            left &= left - 1
    return out


cdef list edge_cpus(const cell_t* cell):
    """CPUs for which ``parsed`` spans the same words."""
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


cdef list changing(const shape_t* shape, const int64_t* state):
    """The numbers of ``written`` that do not belong to the shape."""
    cdef const cell_t* cell
    cdef const int64_t* own
    cdef int32_t place, index
    cdef list out = [], pinned
    for place in range(shape.cells):
        cell = cell_at(shape, place)
        own = state + cell.state
        pinned = cpu_list(pinned_mask(cell, state), cell)
        out += [own[MEMORY], own[MEMORY_USAGE], own[CPU_USAGE], len(pinned), *pinned]
        own = pages_at(cell, state, 0)
        out += [own[index] for index in range(3 * cell.pages)]
    return out


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


cdef int walk(const int64_t[::1] words, const shape_t* shape, int64_t* state, int32_t sign, bint apply) except -1:
    """Check, or apply, the argument of ``NumaTable.consume`` (sign 1) or ``release`` (-1)."""
    cdef Reader reader = Reader(words)
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


cdef int32_t read_wants(const int64_t[::1] words, want_t* wants) except -1:
    """Fill ``wants`` (room for MOST_CELLS), in the form of ``NumaTable.compile``; the number of guest cells."""
    cdef Reader reader = Reader(words)
    cdef want_t* want
    cdef int32_t index, cells
    if words.shape[0] % 8 or not 0 < words.shape[0] <= 8 * MOST_CELLS:
        raise ValueError(f"a guest has 1 .. {MOST_CELLS} NUMA cells")
    cells = <int32_t>(words.shape[0] // 8)
    memset(wants, 0, MOST_CELLS * sizeof(want_t))
    for index in range(cells):
        want = &wants[index]
        want.memory = reader.take(0, MOST, "memory")
        want.pagesize = reader.take(-3, MOST_SIZE, "page size")
        want.shared = <int32_t>reader.take(0, INT32_MAX // 2, "number of CPUs")
        want.pinned = <int32_t>reader.take(0, INT32_MAX // 2, "number of CPUs")
        want.spare = <int32_t>reader.take(0, 1, "number of spare CPUs")
        want.is_pinned = <int32_t>reader.take(0, 1, "flag")
        want.is_floating = <int32_t>reader.take(0, 1, "flag")
        want.threads = <int32_t>reader.take(0, 2, "thread policy")
    return cells
