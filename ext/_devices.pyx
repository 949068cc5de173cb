"""Scores nodes by the devices (GPUs) on them and fills them: thousandths of devices and of CPUs in, numbers out.

No names and no policies: a rule is a number of constants.py. devices_py.py is the pure-Python twin.
"""

from libc.math cimport exp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

import numpy as np


cdef inline uint64_t mixed(uint64_t word) noexcept nogil:
    word = (word ^ (word >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    word = (word ^ (word >> 27)) * <uint64_t>0x94D049BB133111EB
    return word ^ (word >> 31)


cdef inline uint64_t draw(uint64_t key, int64_t row, int64_t device) noexcept nogil:
    """A pseudorandom 53-bit number for a row of one request, and for a device of it (-1: the row itself)."""
    cdef uint64_t word = key + <uint64_t>(row + 1) * <uint64_t>0x9E3779B97F4A7C15
    return mixed(mixed(word) + <uint64_t>(device + 2) * <uint64_t>0xD1B54A32D192ED03) >> 11


cdef double fragments(mix_t* mix, int64_t node, int64_t cpu, const int32_t* idle, int32_t width) noexcept nogil:
    """Expected thousandths of idle devices that a typical request cannot use, summed in a fixed order, by kind."""
    cdef double kinds[6]   # lacks both, lacks devices, lacks CPU, no device wanted, nor enough CPU, no access
    cdef int64_t i, total = 0, milli, count, below, fitting, kind, amount
    cdef int32_t d
    for d in range(width):
        if idle[d] > 0:
            total += idle[d]
    if total == 0:
        return 0.0
    for i in range(6):
        kinds[i] = 0.0
    for i in range(mix.size):
        milli, count = mix.shapes[3 * i + 1], mix.shapes[3 * i + 2]
        amount = total
        if count == 0 or milli == 0:
            kind = 3 if cpu >= mix.shapes[3 * i] else 4
        elif not mix.allowed[i * mix.nodes + node]:
            kind = 5
        else:
            below = fitting = 0
            for d in range(width):
                if idle[d] >= milli:
                    fitting += 1
                elif idle[d] > 0:
                    below += idle[d]
            if fitting < count:
                kind = 1 if cpu >= mix.shapes[3 * i] else 0
            elif cpu < mix.shapes[3 * i]:
                kind = 2
            else:
                kind, amount = 1, below
        kinds[kind] += mix.share[i] * <double>amount
    return kinds[0] + kinds[1] + kinds[2] + kinds[3] + kinds[4] + kinds[5]


cdef uint64_t pick(int32_t policy, shape_t* asked, const int32_t* idle, int32_t width, uint64_t key,
                   int64_t row) noexcept nogil:
    """The devices that a request takes, as bits; 0 if there are too few."""
    cdef uint64_t taken = 0, best_draw = 0, drawn
    cdef int64_t n
    cdef int32_t d, best
    for n in range(asked.count):
        best = -1
        for d in range(width):
            if idle[d] < asked.milli or (taken >> d) & 1:
                continue
            if policy == RANDOM and asked.milli < WHOLE:
                drawn = draw(key, row, d)
                if best < 0 or drawn > best_draw:
                    best, best_draw = d, drawn
            elif best < 0 or (asked.milli < WHOLE and idle[d] < idle[best]):
                best = d
        if best < 0:
            return 0
        taken |= <uint64_t>1 << best
    return taken


cdef inline int64_t gained(double before, double after) noexcept nogil:
    return <int64_t>(100.0 / (1.0 + exp(-(before - after) / 1000.0)))


cdef int64_t by_fragmentation(rule_t* rule, shape_t* asked, int64_t node, int64_t cpu, const int32_t* idle,
                              int32_t width, double before, uint64_t* taken) noexcept nogil:
    cdef int32_t left[MOST]
    cdef int32_t d, e
    cdef int64_t score, best = NO_ROOM
    cdef bint tried
    for d in range(width):
        left[d] = idle[d]
    if not (asked.count == 1 and asked.milli < WHOLE):
        for d in range(width):
            if (taken[0] >> d) & 1:
                left[d] -= <int32_t>asked.milli
        return gained(before, fragments(&rule.mix, node, cpu - asked.cpu, left, width))
    for d in range(width):
        if idle[d] < asked.milli:
            continue
        tried = False      # equal devices are equally good
        for e in range(d):
            tried |= idle[e] == idle[d]
        if tried:
            continue
        left[d] -= <int32_t>asked.milli
        score = gained(before, fragments(&rule.mix, node, cpu - asked.cpu, left, width))
        left[d] = idle[d]
        if score > best:
            best = score
            taken[0] = <uint64_t>1 << d
    return best


cdef int64_t by_packing(shape_t* asked, const int32_t* idle, int32_t width, uint64_t taken) noexcept nogil:
    cdef int32_t d, best
    cdef int64_t whole = 0, devices = 0, free = 0, used = 0, n
    cdef uint64_t seen = 0
    for d in range(width):
        devices += idle[d] >= 0
        whole += idle[d] >= WHOLE
    if whole == devices:
        return max(33 - whole, whole)
    for n in range(asked.count):
        best = -1
        for d in range(width):
            if idle[d] >= asked.milli and not (seen >> d) & 1 and (best < 0 or idle[d] < idle[best]):
                best = d
        seen |= <uint64_t>1 << best
        free += idle[best] >= WHOLE
        used += idle[best] * 100 // WHOLE
    if free > 0:
        return max(50 - free, 33)
    return max(100 - used // 10, 50)


cdef inline int64_t tag_of(shape_t* asked) noexcept nogil:
    """0 without devices, 1 for a share of one, else 1 more than the number of whole ones."""
    if asked.count == 0:
        return 0
    return 1 if asked.count == 1 and asked.milli < WHOLE else asked.count + 1


cdef int64_t by_clustering(rule_t* rule, shape_t* asked, int64_t idle_milli, const int32_t* tags,
                           int32_t width) noexcept nogil:
    cdef int64_t full = <int64_t>rule.largest_gpu, base, rest = 25 * (full - idle_milli), tag = tag_of(asked), t
    cdef bint same = tags[tag] > 0, other = False
    base = rest // full
    if rest < 0 and rest % full:
        base -= 1
    for t in range(1, width + 2):
        other |= t != tag and tags[t] > 0
    if same:
        return base + (50 if other else 75)
    return base if other else base + 25


cdef int64_t score_node(rule_t* rule, shape_t* asked, int64_t node, int64_t row, int64_t cpu, const int32_t* idle,
                        const int32_t* tags, int32_t width, double before, uint64_t key,
                        uint64_t* taken) noexcept nogil:
    """The node's score, and in ``taken`` the devices; NO_ROOM if the devices or CPUs are too few."""
    cdef int64_t free = 0, milli = asked.milli * asked.count
    cdef double c, g
    cdef int32_t d
    taken[0] = 0
    if cpu < asked.cpu:
        return NO_ROOM
    if asked.count > 0:
        taken[0] = pick(rule.policy, asked, idle, width, key, row)
        if taken[0] == 0:
            return NO_ROOM
    if rule.policy == RANDOM:
        return <int64_t>draw(key, row, -1)
    if rule.policy == FRAGMENTATION:
        return by_fragmentation(rule, asked, node, cpu, idle, width, before, taken)
    for d in range(width):
        if idle[d] > 0:
            free += idle[d]
    if rule.policy == BEST_FIT:
        c, g = 0.5 * <double>(cpu - asked.cpu) / rule.largest_cpu, 0.5 * <double>(free - milli) / rule.largest_gpu
        return <int64_t>(100.0 * (1.0 - (c + g)))
    if rule.policy == DOT_PRODUCT:
        c = (<double>cpu / rule.largest_cpu) * (<double>asked.cpu / rule.largest_cpu)
        g = (<double>free / rule.largest_gpu) * (<double>milli / rule.largest_gpu)
        return <int64_t>(100.0 * (1.0 - (c + g) / 2.0))
    if asked.count == 0:
        return 0
    if rule.policy == PACKING:
        return by_packing(asked, idle, width, taken[0])
    return by_clustering(rule, asked, free, tags, width)


cdef int set_rule(rule_t* rule, int policy, double largest_cpu, double largest_gpu, const int64_t[:, ::1] typical,
                  const double[::1] share, const uint8_t[:, ::1] allowed, Py_ssize_t nodes) except -1:
    if not BEST_FIT <= policy <= RANDOM:
        raise ValueError(f"no rule {policy}")
    if typical.shape[1] != 3 or share.shape[0] != typical.shape[0] or allowed.shape[0] != typical.shape[0]:
        raise ValueError("typical requests differ in length")
    if allowed.shape[1] != nodes:
        raise ValueError("arrays of nodes differ in length")
    if not (largest_cpu > 0 and largest_gpu >= 1):
        raise ValueError("sizes must be positive")
    rule.policy, rule.largest_cpu, rule.largest_gpu = policy, largest_cpu, largest_gpu
    rule.mix.size, rule.mix.nodes = typical.shape[0], nodes
    if typical.shape[0]:
        rule.mix.shapes, rule.mix.share = <int64_t*>&typical[0, 0], <double*>&share[0]
        if nodes:
            rule.mix.allowed = <uint8_t*>&allowed[0, 0]
    return 0


cdef int check_nodes(Py_ssize_t n, const int32_t[::1] rows, const int32_t[:, ::1] idle,
                     const int32_t[:, ::1] tags) except -1:
    if not (rows.shape[0] == n and idle.shape[0] == n and tags.shape[0] == n and tags.shape[1] == idle.shape[1] + 2):
        raise ValueError("arrays of nodes differ in length")
    if idle.shape[1] > MOST:
        raise ValueError(f"a node has more than {MOST} devices")
    return 0


cdef int check_shape(int64_t cpu, int64_t milli, int64_t count, Py_ssize_t width) except -1:
    if cpu < 0 or milli < 0 or not 0 <= count <= MOST or (count > 0 and milli == 0):
        raise ValueError("a request must ask for a positive share of each of its devices")
    return 0


def score(int policy, double largest_cpu, double largest_gpu, const int64_t[:, ::1] typical, const double[::1] share,
          const uint8_t[:, ::1] typical_allowed, const int32_t[::1] rows, const int64_t[::1] cpu,
          const int32_t[:, ::1] idle, const int32_t[:, ::1] tags, tuple shape, uint64_t key):
    """Scores of nodes for one request (cpu, milli, count), float64, 0 where it does not fit; and the devices that it
    would take there, as bits. O(nodes * devices * typical)."""
    cdef rule_t rule
    cdef shape_t asked
    cdef Py_ssize_t n = cpu.shape[0], node
    cdef int32_t width = <int32_t>idle.shape[1]
    cdef int32_t nothing = -1
    cdef uint64_t taken
    cdef int64_t value
    cdef double before = 0.0
    set_rule(&rule, policy, largest_cpu, largest_gpu, typical, share, typical_allowed, n)
    check_nodes(n, rows, idle, tags)
    asked.cpu, asked.milli, asked.count = shape
    check_shape(asked.cpu, asked.milli, asked.count, width)
    scores, masks = np.zeros(n, np.float64), np.zeros(n, np.uint64)
    cdef double[::1] out = scores
    cdef uint64_t[::1] devices = masks
    cdef const int32_t* row
    for node in range(n):
        if asked.count > width:
            break
        row = &idle[node, 0] if width else &nothing
        if policy == FRAGMENTATION:
            before = fragments(&rule.mix, node, cpu[node], row, width)
        value = score_node(&rule, &asked, node, rows[node], cpu[node], row, &tags[node, 0], width, before, key, &taken)
        if value != NO_ROOM:
            out[node], devices[node] = <double>value, taken
    return scores, masks


def fragmentation(const int64_t[:, ::1] typical, const double[::1] share, const uint8_t[:, ::1] typical_allowed,
                  const int64_t[::1] cpu, const int32_t[:, ::1] idle):
    """Fragmentation of each node in thousandths of devices, float64. O(nodes * devices * typical)."""
    cdef rule_t rule
    cdef Py_ssize_t n = cpu.shape[0], node
    cdef int32_t width = <int32_t>idle.shape[1]
    set_rule(&rule, 0, 1.0, 1.0, typical, share, typical_allowed, n)
    if idle.shape[0] != n or width > MOST:
        raise ValueError("arrays of nodes differ in length")
    amounts = np.zeros(n, np.float64)
    cdef double[::1] out = amounts
    if width:
        for node in range(n):
            out[node] = fragments(&rule.mix, node, cpu[node], &idle[node, 0], width)
    return amounts


cdef struct fleet_t:
    int64_t nodes, resources
    int32_t width
    int32_t* rows
    int64_t* cpu           # [node]
    int64_t* room          # [resource][node]
    int32_t* idle          # [node][width]
    int32_t* tags          # [node][width + 2]
    double* lost           # [node] fragmentation


cdef int64_t judge(rule_t* rule, fleet_t* fleet, shape_t* asked, const int64_t* needs, uint8_t allowed, int64_t node,
                   uint64_t key, uint64_t* taken) noexcept nogil:
    """The node's score for a request, NO_ROOM if it is refused there."""
    cdef int64_t r
    if not allowed or asked.count > fleet.width:
        return NO_ROOM
    for r in range(fleet.resources):
        if fleet.room[r * fleet.nodes + node] < needs[r]:
            return NO_ROOM
    return score_node(rule, asked, node, fleet.rows[node], fleet.cpu[node], &fleet.idle[node * fleet.width],
                      &fleet.tags[node * (fleet.width + 2)], fleet.width, fleet.lost[node], key, taken)


cdef void charge(rule_t* rule, fleet_t* fleet, shape_t* asked, const int64_t* needs, int64_t node,
                 uint64_t taken) noexcept nogil:
    cdef int64_t r
    cdef int32_t d
    fleet.cpu[node] -= asked.cpu
    for r in range(fleet.resources):
        fleet.room[r * fleet.nodes + node] -= needs[r]
    for d in range(fleet.width):
        if (taken >> d) & 1:
            fleet.idle[node * fleet.width + d] -= <int32_t>asked.milli
    fleet.tags[node * (fleet.width + 2) + tag_of(asked)] += 1
    fleet.lost[node] = fragments(&rule.mix, node, fleet.cpu[node], &fleet.idle[node * fleet.width], fleet.width)


cdef int64_t best_node(rule_t* rule, fleet_t* fleet, const int64_t* kept, uint64_t key) noexcept nogil:
    """The first node with the best score; -1 if none has room."""
    cdef int64_t node, best = -1, best_score = NO_ROOM, value
    for node in range(fleet.nodes):
        value = kept[node]
        if value > NO_ROOM and rule.policy == RANDOM:
            value = <int64_t>draw(key, fleet.rows[node], -1)
        if value > best_score:
            best, best_score = node, value
    return best


def place(int policy, double largest_cpu, double largest_gpu, const int64_t[:, ::1] typical, const double[::1] share,
          const uint8_t[:, ::1] typical_allowed, const int32_t[::1] rows, int64_t[::1] cpu, int64_t[:, ::1] room,
          int32_t[:, ::1] idle, int32_t[:, ::1] tags, const uint8_t[:, ::1] allowed, const int64_t[:, ::1] shapes,
          const int64_t[:, ::1] needs, const int32_t[::1] asked_of, const uint64_t[::1] keys):
    """Place requests one after the other on the best node each, the first of equals; the node arrays are used up.

    ``shapes``: [shape][cpu, milli, count]; ``needs``: [shape][resource] of ``room`` [resource][node]; ``allowed``:
    [shape][node]; ``asked_of`` names each request's shape. Returns nodes (-1: refused), devices as bits, and the whole
    fleet's fragmentation after each. Scores are kept per shape, and only changed nodes scored again: amortised
    O(nodes) comparisons a request.
    """
    cdef rule_t rule
    cdef fleet_t fleet
    cdef shape_t asked
    cdef Py_ssize_t n = cpu.shape[0], p = asked_of.shape[0], s = shapes.shape[0], r = room.shape[0]
    cdef Py_ssize_t i, j, logged = 0
    cdef int64_t node, which
    cdef uint64_t taken = 0
    cdef double total
    set_rule(&rule, policy, largest_cpu, largest_gpu, typical, share, typical_allowed, n)
    check_nodes(n, rows, idle, tags)
    if room.shape[1] != n or allowed.shape[0] != s or allowed.shape[1] != n or needs.shape[0] != s \
            or needs.shape[1] != r or shapes.shape[1] != 3 or keys.shape[0] != p:
        raise ValueError("arrays of requests differ in length")
    for i in range(s):
        check_shape(shapes[i, 0], shapes[i, 1], shapes[i, 2], idle.shape[1])
    for i in range(p):
        if not 0 <= asked_of[i] < s:
            raise ValueError(f"no shape {asked_of[i]}")
    chosen, masks, fragmented = np.full(p, -1, np.int32), np.zeros(p, np.uint64), np.zeros(p, np.float64)
    if n == 0 or p == 0:
        return chosen, masks, fragmented
    cdef int32_t[::1] out = chosen
    cdef uint64_t[::1] devices = masks
    cdef double[::1] measured = fragmented
    cdef int64_t[:, ::1] kept = np.full((s, n), NO_ROOM, np.int64)
    cdef int64_t[::1] seen = np.full(s, -1, np.int64), log = np.empty(p, np.int64), stamp = np.full(n, -1, np.int64)
    cdef double[::1] lost = np.zeros(n, np.float64)
    cdef int32_t nothing = -1
    cdef int64_t no_room = 0
    fleet.nodes, fleet.resources, fleet.width = n, r, <int32_t>idle.shape[1]
    fleet.rows, fleet.cpu, fleet.tags, fleet.lost = <int32_t*>&rows[0], &cpu[0], &tags[0, 0], &lost[0]
    fleet.room = &room[0, 0] if r else &no_room
    fleet.idle = &idle[0, 0] if fleet.width else &nothing
    cdef const int64_t* need
    with nogil:
        for node in range(n):
            lost[node] = fragments(&rule.mix, node, cpu[node], &fleet.idle[node * fleet.width], fleet.width)
        for i in range(p):
            which = asked_of[i]
            asked.cpu, asked.milli, asked.count = shapes[which, 0], shapes[which, 1], shapes[which, 2]
            need = &needs[which, 0] if r else &no_room
            if seen[which] < 0:
                for node in range(n):
                    kept[which, node] = judge(&rule, &fleet, &asked, need, allowed[which, node], node, keys[i], &taken)
            else:
                for j in range(seen[which], logged):
                    node = log[j]
                    if stamp[node] == i:   # changed more than once since
                        continue
                    stamp[node] = i
                    kept[which, node] = judge(&rule, &fleet, &asked, need, allowed[which, node], node, keys[i], &taken)
            seen[which] = logged
            node = best_node(&rule, &fleet, &kept[which, 0], keys[i])
            if node >= 0:
                judge(&rule, &fleet, &asked, need, 1, node, keys[i], &taken)
                out[i], devices[i] = <int32_t>node, taken
                charge(&rule, &fleet, &asked, need, node, taken)
                log[logged] = node
                logged += 1
            total = 0.0
            for node in range(n):
                total += lost[node]
            measured[i] = total
    return chosen, masks, fragmented
