"""The fleet kernel: claims, releases, the change log, consumers and server groups over the columns that placement/
owns.

Numbers in, numbers out: rows, dense ids and amounts. Callers prove ranges; a debug build checks them again.
"""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memmove, memset

import numpy as np

from ._uuids cimport UuidTable

cdef extern from "debug.h" nogil:
    void HOSTLER_ASSERT_INDEX(int64_t index, int64_t count)

cdef int32_t GROUP_ROOM = 4
cdef int32_t SMALL_GROUP = 16    # below this number rows are searched linearly


cdef inline uint64_t slot_of(int32_t row) noexcept nogil:
    """Where the search for a row begins. The kernel assigns rows, so callers cannot make them collide."""
    return (<uint64_t>row * <uint64_t>0x9E3779B97F4A7C15) >> 32


cdef inline void* grown(void* block, size_t size) except NULL:
    cdef void* result = realloc(block, size if size else 1)
    if result == NULL:
        raise MemoryError
    return result


cdef int check_policy(int32_t policy, int32_t at_most) except -1:
    if policy < NO_POLICY or policy > SOFT_ANTI_AFFINITY:
        raise ValueError("unknown policy")
    if at_most < 1:
        raise ValueError("at_most must be at least 1")
    return 0


cdef class Columns:
    """Pointers into the column arrays, and the state of the kernels (log, shapes, consumers, groups)."""

    def __cinit__(self):
        memset(&self.c, 0, sizeof(columns_t))
        self.free_consumer = -1
        self.consumers = UuidTable()

    def __dealloc__(self):
        cdef int32_t i
        free(self.c.log)
        free(self.shapes)
        free(self.shape_class)
        free(self.shape_amount)
        free(self.uuid_hi)
        free(self.uuid_lo)
        free(self.consumer_row)
        free(self.consumer_shape)
        free(self.consumer_project)
        free(self.consumer_user)
        free(self.consumer_group)
        free(self.consumer_next)
        free(self.consumer_previous)
        free(self.consumer_generation)
        free(self.project_first)
        free(self.project_next)
        free(self.project_previous)
        free(self.consumer_flags)
        for i in range(self.group_fill):
            free(self.groups[i].rows)
            free(self.groups[i].members)
            free(self.groups[i].slots)
        free(self.groups)

    def attach(self, *, int64_t[:, ::1] avail, int64_t[:, ::1] used, int64_t[:, ::1] limit, int64_t[:, ::1] min_unit,
               int64_t[:, ::1] max_unit, int64_t[:, ::1] step_size, double[:, ::1] host, int32_t[::1] class_of,
               int64_t[::1] generation, int32_t[::1] first):
        """Point at the (re)allocated column arrays. All 2-D blocks share their second dimension, the capacity."""
        cdef Py_ssize_t capacity = host.shape[1]
        cdef list blocks = [avail, used, limit, min_unit, max_unit, step_size]
        for block in blocks:
            if block.shape[1] != capacity or block.shape[0] != avail.shape[0]:
                raise ValueError("column blocks differ in shape")
        if class_of.shape[0] != capacity or generation.shape[0] != capacity or first.shape[0] != capacity:
            raise ValueError("columns differ in length")
        if host.shape[0] <= SERVICE_UP or capacity < 1:
            raise ValueError("host block lacks columns")
        if capacity < self.c.rows or avail.shape[0] < self.c.classes:
            raise ValueError("columns may not shrink")
        self.arrays = [blocks, host, class_of, generation, first]
        self.c.capacity = capacity
        self.c.classes = <int32_t>avail.shape[0]
        if avail.shape[0]:
            self.c.avail = &avail[0, 0]
            self.c.used = &used[0, 0]
            self.c.limit = &limit[0, 0]
            self.c.min_unit = &min_unit[0, 0]
            self.c.max_unit = &max_unit[0, 0]
            self.c.step_size = &step_size[0, 0]
        self.c.host = &host[0, 0]
        self.c.class_of = &class_of[0]
        self.c.generation = &generation[0]
        self.c.first = &first[0]

    @property
    def rows(self):
        """Number of row ids handed out."""
        return self.c.rows

    def set_rows(self, int64_t rows):
        """Set the number of rows. Shrinking is for undoing a growth."""
        if rows < 0 or rows > self.c.capacity:
            raise ValueError("rows beyond the capacity")
        self.c.rows = rows

    @property
    def version(self):
        """Number of row changes so far."""
        return self.c.log_base + self.c.log_length

    def changed(self, int64_t since):
        """Rows changed after version ``since`` (with repeats) as int32, or None if the log no longer reaches back so
        far."""
        cdef int64_t i, start = since - self.c.log_base
        if start < 0 or start > self.c.log_length:
            return None
        result = np.empty(self.c.log_length - start, dtype=np.int32)
        cdef int32_t[::1] out = result
        for i in range(self.c.log_length - start):
            out[i] = self.c.log[start + i]
        return result

    def mark_changed(self, int32_t[::1] rows):
        """Log changes that the caller made to the columns of ``rows``."""
        cdef Py_ssize_t i
        for i in range(rows.shape[0]):
            if rows[i] < 0 or rows[i] >= self.c.rows:
                raise IndexError("row out of range")
        self.reserve_log(rows.shape[0])
        for i in range(rows.shape[0]):
            self.touch(rows[i])

    def forget_log(self):
        """Drop the whole log: every derived index must be rebuilt."""
        self.c.log_base += self.c.log_length + 1
        self.c.log_length = 0

    cdef void touch(self, int32_t row) noexcept nogil:
        HOSTLER_ASSERT_INDEX(row, self.c.rows)
        HOSTLER_ASSERT_INDEX(self.c.log_length, self.c.log_capacity)
        self.c.log[self.c.log_length] = row
        self.c.log_length += 1

    cdef int reserve_log(self, int64_t extra) except -1:
        cdef int64_t keep = self.c.capacity + 65536
        cdef int64_t drop
        if self.c.log_length + extra > self.c.log_capacity:
            if self.c.log_length > keep:
                drop = self.c.log_length - keep // 2
                memmove(self.c.log, self.c.log + drop, (self.c.log_length - drop) * sizeof(int32_t))
                self.c.log_base += drop
                self.c.log_length -= drop
            if self.c.log_length + extra > self.c.log_capacity:
                room = max(2 * self.c.log_capacity, self.c.log_length + extra, 1024)
                self.c.log = <int32_t*>grown(self.c.log, room * sizeof(int32_t))
                self.c.log_capacity = room
        return 0

    # shapes

    def add_shape(self, int32_t[::1] classes, int64_t[::1] amounts, double vcpus, double memory_mb, double disk_mb):
        """Register what a consumer takes: ``amounts[i]`` of resource class index ``classes[i]``, and Nova's figures in
        vCPUs, MiB and MiB. Returns the shape id."""
        cdef Py_ssize_t i, n = classes.shape[0]
        if amounts.shape[0] != n:
            raise ValueError("classes and amounts differ in length")
        for i in range(n):
            if classes[i] < 0 or classes[i] >= self.c.classes:
                raise IndexError("resource class out of range")
        cdef int64_t room
        if self.shape_count == self.shape_capacity:
            room = max(16, 2 * <int64_t>self.shape_capacity)
            self.shapes = <shape_t*>grown(self.shapes, room * sizeof(shape_t))
            self.shape_capacity = <int32_t>room
        if self.shape_fill + n > self.shape_room:
            room = max(64, 2 * <int64_t>self.shape_room + n)
            self.shape_class = <int32_t*>grown(self.shape_class, room * sizeof(int32_t))
            self.shape_amount = <int64_t*>grown(self.shape_amount, room * sizeof(int64_t))
            self.shape_room = <int32_t>room
        cdef shape_t* s = &self.shapes[self.shape_count]
        s.start = self.shape_fill
        s.count = <int32_t>n
        s.vcpus = vcpus
        s.memory_mb = memory_mb
        s.disk_mb = disk_mb
        for i in range(n):
            self.shape_class[self.shape_fill + i] = classes[i]
            self.shape_amount[self.shape_fill + i] = amounts[i]
        self.shape_fill += <int32_t>n
        self.shape_count += 1
        return self.shape_count - 1

    def shape(self, int32_t shape):
        """(classes, amounts, vcpus, memory_mb, disk_mb) of a shape."""
        self.check_shape(shape)
        cdef shape_t s = self.shapes[shape]
        classes = [self.shape_class[s.start + i] for i in range(s.count)]
        amounts = [self.shape_amount[s.start + i] for i in range(s.count)]
        return classes, amounts, s.vcpus, s.memory_mb, s.disk_mb

    def check_shape(self, int32_t shape):
        if shape < 0 or shape >= self.shape_count:
            raise IndexError("shape out of range")

    cdef bint fits(self, int32_t row, int32_t shape) noexcept nogil:
        cdef shape_t* s = &self.shapes[shape]
        cdef int64_t at, amount
        cdef int32_t i
        for i in range(s.start, s.start + s.count):
            at = self.shape_class[i] * self.c.capacity + row
            amount = self.shape_amount[i]
            if self.c.avail[at] < amount or amount < self.c.min_unit[at] or (
                    self.c.step_size[at] > 1 and amount % self.c.step_size[at]):
                return False
        return True

    cdef void take(self, int32_t row, int32_t shape, int sign, uint8_t flags) noexcept nogil:
        HOSTLER_ASSERT_INDEX(row, self.c.rows)
        HOSTLER_ASSERT_INDEX(shape, self.shape_count)
        cdef shape_t* s = &self.shapes[shape]
        cdef columns_t* c = &self.c
        cdef int64_t at, room
        cdef int32_t i
        for i in range(s.start, s.start + s.count):
            HOSTLER_ASSERT_INDEX(self.shape_class[i], c.classes)
            at = self.shape_class[i] * c.capacity + row
            c.used[at] += sign * self.shape_amount[i]
            room = c.limit[at] - c.used[at]
            c.avail[at] = room if room < c.max_unit[at] else c.max_unit[at]
        cdef double* host = c.host + row
        cdef int64_t n = c.capacity
        if not flags & UNCOUNTED:
            host[FREE_RAM_MB * n] -= sign * s.memory_mb
            host[FREE_DISK_MB * n] -= sign * s.disk_mb
            host[VCPUS_USED * n] += sign * s.vcpus
            host[FREE_VCPUS * n] = host[VCPUS_TOTAL * n] * host[CPU_ALLOCATION_RATIO * n] - host[VCPUS_USED * n]
            if not flags & NOT_INSTANCE:
                host[NUM_INSTANCES * n] += sign
            if flags & BUILDING:
                host[NUM_IO_OPS * n] += sign
        c.generation[row] += 1
        self.touch(row)

    # consumers

    cdef int reserve_consumers(self, int64_t extra) except -1:
        cdef int64_t need = self.consumer_count + extra
        cdef int64_t room
        self.consumers.reserve(extra)
        if need <= self.consumer_capacity:
            return 0
        if need > 2000000000:
            raise MemoryError("too many consumers")
        room = max(need, 2 * self.consumer_capacity, 1024)
        self.uuid_hi = <uint64_t*>grown(self.uuid_hi, room * 8)
        self.uuid_lo = <uint64_t*>grown(self.uuid_lo, room * 8)
        self.consumer_row = <int32_t*>grown(self.consumer_row, room * 4)
        self.consumer_shape = <int32_t*>grown(self.consumer_shape, room * 4)
        self.consumer_project = <int32_t*>grown(self.consumer_project, room * 4)
        self.consumer_user = <int32_t*>grown(self.consumer_user, room * 4)
        self.consumer_group = <int32_t*>grown(self.consumer_group, room * 4)
        self.consumer_next = <int32_t*>grown(self.consumer_next, room * 4)
        self.consumer_previous = <int32_t*>grown(self.consumer_previous, room * 4)
        self.consumer_generation = <int32_t*>grown(self.consumer_generation, room * 4)
        self.consumer_flags = <uint8_t*>grown(self.consumer_flags, room)
        self.project_first = <int32_t*>grown(self.project_first, room * 4)
        self.project_next = <int32_t*>grown(self.project_next, room * 4)
        self.project_previous = <int32_t*>grown(self.project_previous, room * 4)
        self.consumer_capacity = <int32_t>room
        self.link_projects()
        return 0

    cdef void link_project(self, int32_t consumer) noexcept nogil:
        """Put a consumer at the head of its project's list. Projects with equal ids modulo the capacity share a
        list."""
        cdef int32_t place = <int32_t>(<uint32_t>self.consumer_project[consumer] % <uint32_t>self.consumer_capacity)
        cdef int32_t head = self.project_first[place]
        self.project_next[consumer] = head
        self.project_previous[consumer] = -1
        if head >= 0:
            self.project_previous[head] = consumer
        self.project_first[place] = consumer

    cdef void link_projects(self) noexcept nogil:
        """Rebuild the lists of all projects. O(capacity)."""
        cdef int32_t i
        for i in range(self.consumer_capacity):
            self.project_first[i] = -1
        for i in range(self.consumer_fill):
            if self.consumer_row[i] >= 0:
                self.link_project(i)

    cdef int32_t add(self, uint64_t hi, uint64_t lo, int32_t row, int32_t shape, int32_t project, int32_t user,
                     int32_t group, uint8_t flags) noexcept nogil:
        """Create a consumer and take its shape; -1 if the uuid exists. Log, consumers and group room are reserved by
        the caller."""
        cdef int32_t consumer
        if self.free_consumer >= 0:
            consumer = self.free_consumer
        else:
            consumer = self.consumer_fill
        HOSTLER_ASSERT_INDEX(row, self.c.rows)
        HOSTLER_ASSERT_INDEX(consumer, self.consumer_capacity)
        if self.consumers.insert(hi, lo, consumer) != 0:
            return -1
        if self.free_consumer >= 0:
            self.free_consumer = self.consumer_next[consumer]
        else:
            self.consumer_fill += 1
        self.consumer_count += 1
        self.uuid_hi[consumer] = hi
        self.uuid_lo[consumer] = lo
        self.consumer_row[consumer] = row
        self.consumer_shape[consumer] = shape
        self.consumer_project[consumer] = project
        self.consumer_user[consumer] = user
        self.consumer_group[consumer] = group
        self.consumer_generation[consumer] = 1
        self.consumer_flags[consumer] = flags
        cdef int32_t head = self.c.first[row]
        self.consumer_next[consumer] = head
        self.consumer_previous[consumer] = -1
        if head >= 0:
            self.consumer_previous[head] = consumer
        self.c.first[row] = consumer
        self.link_project(consumer)
        if shape >= 0:
            self.take(row, shape, 1, flags)
        else:
            self.touch(row)
        if group >= 0:
            self.join_group(group, row, 1)
        return consumer

    cdef void drop(self, int32_t consumer) noexcept nogil:
        """Remove a consumer and give back what it took."""
        HOSTLER_ASSERT_INDEX(consumer, self.consumer_fill)
        HOSTLER_ASSERT_INDEX(self.consumer_row[consumer], self.c.rows)
        cdef int32_t row = self.consumer_row[consumer]
        cdef int32_t following = self.consumer_next[consumer], before = self.consumer_previous[consumer]
        if self.consumer_shape[consumer] >= 0:
            self.take(row, self.consumer_shape[consumer], -1, self.consumer_flags[consumer])
        else:
            self.touch(row)
        if self.consumer_group[consumer] >= 0:
            self.join_group(self.consumer_group[consumer], row, -1)
        if before >= 0:
            self.consumer_next[before] = following
        else:
            self.c.first[row] = following
        if following >= 0:
            self.consumer_previous[following] = before
        following = self.project_next[consumer]
        before = self.project_previous[consumer]
        if before >= 0:
            self.project_next[before] = following
        else:
            self.project_first[<uint32_t>self.consumer_project[consumer] % <uint32_t>self.consumer_capacity] = following
        if following >= 0:
            self.project_previous[following] = before
        self.consumers.remove(self.uuid_hi[consumer], self.uuid_lo[consumer])
        self.consumer_row[consumer] = -1
        self.consumer_next[consumer] = self.free_consumer
        self.free_consumer = consumer
        self.consumer_count -= 1

    def add_consumer(self, uint64_t hi, uint64_t lo, int32_t row, int32_t shape, int32_t project, int32_t user,
                     int32_t group, uint8_t flags):
        """Create a consumer on ``row`` taking ``shape`` (-1: nothing); returns its id. KeyError if the uuid exists."""
        self.check_row(row)
        if shape >= 0:
            self.check_shape(shape)
        if group >= 0:
            self.check_group(group)
            self.reserve_group(group, 1)
        if flags & NAMED:
            raise ValueError("unknown consumer flags")
        self.reserve_log(1)
        self.reserve_consumers(1)
        cdef int32_t consumer = self.add(hi, lo, row, shape, project, user, group, flags)
        if consumer < 0:
            raise KeyError("consumer exists")
        return consumer

    def drop_consumer(self, int32_t consumer):
        """Remove a consumer; its allocation is given back."""
        self.check_consumer(consumer)
        self.reserve_log(1)
        self.drop(consumer)

    def set_building(self, int32_t consumer, bint building):
        """Count the consumer among its host's io operations, or stop counting it."""
        self.check_consumer(consumer)
        cdef bint was = self.consumer_flags[consumer] & BUILDING
        if was == building:
            return
        self.reserve_log(1)
        if building:
            self.consumer_flags[consumer] |= BUILDING
        else:
            self.consumer_flags[consumer] &= ~BUILDING
        cdef int32_t row = self.consumer_row[consumer]
        if self.consumer_shape[consumer] >= 0:
            self.c.host[NUM_IO_OPS * self.c.capacity + row] += 1 if building else -1
        self.touch(row)

    def set_consumer(self, int32_t consumer, int32_t shape, uint8_t flags):
        """Set a consumer's shape and flags. Columns are not changed: the caller accounts for the difference."""
        self.check_consumer(consumer)
        if shape >= 0:
            self.check_shape(shape)
        if flags & NAMED:
            raise ValueError("unknown consumer flags")
        self.reserve_log(1)
        self.consumer_shape[consumer] = shape
        self.consumer_flags[consumer] = flags
        self.touch(self.consumer_row[consumer])

    def rename_consumer(self, int32_t consumer, uint64_t hi, uint64_t lo):
        """Change the uuid of a consumer. KeyError if the new one exists."""
        self.check_consumer(consumer)
        self.reserve_log(1)
        self.consumers.reserve(1)
        if self.consumers.insert(hi, lo, consumer) != 0:
            raise KeyError("consumer exists")
        self.consumers.remove(self.uuid_hi[consumer], self.uuid_lo[consumer])
        self.uuid_hi[consumer] = hi
        self.uuid_lo[consumer] = lo
        self.touch(self.consumer_row[consumer])

    def consumer(self, int32_t consumer):
        """(hi, lo, row, shape, project, user, group, flags, generation)."""
        self.check_consumer(consumer)
        return (self.uuid_hi[consumer], self.uuid_lo[consumer], self.consumer_row[consumer], self.consumer_shape[consumer],
                self.consumer_project[consumer], self.consumer_user[consumer], self.consumer_group[consumer],
                self.consumer_flags[consumer], self.consumer_generation[consumer])

    def consumers_on(self, int32_t row):
        """Ids of the consumers on a row, newest first."""
        self.check_row(row)
        result = []
        cdef int32_t consumer = self.c.first[row]
        while consumer >= 0:
            result.append(consumer)
            consumer = self.consumer_next[consumer]
        return result

    def consumers_of(self, int32_t project):
        """int32 [3, n]: id, shape and user of the consumers of a project, by id. O(consumers log consumers)."""
        cdef int32_t place, consumer, n = 0
        cdef int32_t[:, ::1] view
        if self.consumer_capacity == 0:
            return np.empty((3, 0), np.int32)
        place = <int32_t>(<uint32_t>project % <uint32_t>self.consumer_capacity)
        consumer = self.project_first[place]
        while consumer >= 0:
            n += self.consumer_project[consumer] == project
            consumer = self.project_next[consumer]
        found = np.empty((3, n), np.int32)
        view = found
        n = 0
        consumer = self.project_first[place]
        while consumer >= 0:
            if self.consumer_project[consumer] == project:
                view[0, n] = consumer
                view[1, n] = self.consumer_shape[consumer]
                view[2, n] = self.consumer_user[consumer]
                n += 1
            consumer = self.project_next[consumer]
        return found[:, np.argsort(found[0])]

    def holders(self, const int32_t[::1] consumers not None):
        """int32 [2, n]: project and shape of the given consumers. ValueError for one that does not exist."""
        cdef Py_ssize_t i
        found = np.empty((2, consumers.shape[0]), np.int32)
        cdef int32_t[:, ::1] view = found
        for i in range(consumers.shape[0]):
            self.check_consumer(consumers[i])
            view[0, i] = self.consumer_project[consumers[i]]
            view[1, i] = self.consumer_shape[consumers[i]]
        return found

    def consumer_arrays(self):
        """Copies of the consumer columns, live ids only, in id order: a dict of arrays for a snapshot or a check."""
        cdef int32_t i, n = 0
        count = self.consumer_count
        ids = np.empty(count, np.int32)
        uuids = np.empty((count, 2), np.uint64)
        figures = np.empty((count, 7), np.int32)
        cdef int32_t[::1] id_view = ids
        cdef uint64_t[:, ::1] uuid_view = uuids
        cdef int32_t[:, ::1] view = figures
        for i in range(self.consumer_fill):
            if self.consumer_row[i] < 0:
                continue
            id_view[n] = i
            uuid_view[n, 0] = self.uuid_hi[i]
            uuid_view[n, 1] = self.uuid_lo[i]
            view[n, 0] = self.consumer_row[i]
            view[n, 1] = self.consumer_shape[i]
            view[n, 2] = self.consumer_project[i]
            view[n, 3] = self.consumer_user[i]
            view[n, 4] = self.consumer_group[i]
            view[n, 5] = self.consumer_flags[i]
            view[n, 6] = self.consumer_generation[i]
            n += 1
        return {"id": ids, "uuid": uuids, "figures": figures}

    def check_consumer(self, int32_t consumer):
        if consumer < 0 or consumer >= self.consumer_fill or self.consumer_row[consumer] < 0:
            raise IndexError("no such consumer")

    def check_row(self, int32_t row):
        if row < 0 or row >= self.c.rows:
            raise IndexError("row out of range")

    # server groups

    def add_group(self, int32_t policy, int32_t at_most):
        """Register a server group; returns its id."""
        check_policy(policy, at_most)
        cdef int32_t room
        if self.group_fill == self.group_capacity:
            room = max(16, 2 * self.group_capacity)
            self.groups = <group_t*>grown(self.groups, room * sizeof(group_t))
            self.group_capacity = room
        cdef group_t* g = &self.groups[self.group_fill]
        memset(g, 0, sizeof(group_t))
        g.policy = policy
        g.at_most = at_most
        self.group_fill += 1
        return self.group_fill - 1

    def drop_last_group(self):
        """Undo the latest add_group; the group must be empty."""
        if self.group_fill < 1 or self.groups[self.group_fill - 1].count:
            raise ValueError("there is no last group, or it is not empty")
        cdef group_t* g = &self.groups[self.group_fill - 1]
        free(g.rows)
        free(g.members)
        free(g.slots)
        self.group_fill -= 1

    def set_group(self, int32_t group, int32_t policy, int32_t at_most):
        """Reuse the id of an empty group for another one."""
        self.check_group(group)
        check_policy(policy, at_most)
        if self.groups[group].count:
            raise ValueError("the group is not empty")
        self.groups[group].policy = policy
        self.groups[group].at_most = at_most

    def group(self, int32_t group):
        """(policy, at_most, {row: members})."""
        self.check_group(group)
        cdef group_t* g = &self.groups[group]
        return g.policy, g.at_most, {g.rows[i]: g.members[i] for i in range(g.count)}

    def group_policy(self, int32_t group):
        """(policy, at_most) of a group. O(1)."""
        self.check_group(group)
        return self.groups[group].policy, self.groups[group].at_most

    def group_rows(self, int32_t group):
        """Number of rows that hold a member of a group. O(1)."""
        self.check_group(group)
        return self.groups[group].count

    def group_members(self, int32_t group, int32_t row):
        """Number of members of a group on a row. O(1)."""
        self.check_group(group)
        cdef int32_t place = self.place_in_group(&self.groups[group], row)
        return self.groups[group].members[place] if place >= 0 else 0

    def group_projects(self, int32_t group, int32_t most):
        """Projects of a group's members, ascending; at most ``most`` of them. O(consumers on its rows)."""
        self.check_group(group)
        cdef group_t* g = &self.groups[group]
        cdef int32_t i, consumer, last = -1
        cdef set found = set()
        for i in range(g.count):
            consumer = self.c.first[g.rows[i]]
            while consumer >= 0:
                if self.consumer_group[consumer] == group and self.consumer_project[consumer] != last:
                    last = self.consumer_project[consumer]
                    found.add(last)
                    if len(found) >= most:
                        return sorted(found)
                consumer = self.consumer_next[consumer]
        return sorted(found)

    def check_group(self, int32_t group):
        if group < 0 or group >= self.group_fill:
            raise IndexError("group out of range")

    cdef int reserve_group(self, int32_t group, int64_t extra) except -1:
        """Reserve space for members on ``extra`` further rows; never more than the fleet's rows."""
        cdef group_t* g = &self.groups[group]
        cdef int64_t need = min(g.count + extra, max(self.c.rows, g.count + 1)), room = max(GROUP_ROOM, g.capacity)
        cdef int32_t* slots
        cdef int32_t i
        cdef uint64_t at, mask
        if need <= g.capacity:
            return 0
        while room < need:
            room *= 2
        g.rows = <int32_t*>grown(g.rows, room * sizeof(int32_t))
        g.members = <int32_t*>grown(g.members, room * sizeof(int32_t))
        if room > SMALL_GROUP:
            slots = <int32_t*>malloc(2 * room * sizeof(int32_t))
            if slots == NULL:
                raise MemoryError
            mask = 2 * room - 1
            memset(slots, 0xFF, 2 * room * sizeof(int32_t))
            for i in range(g.count):
                at = slot_of(g.rows[i]) & mask
                while slots[at] >= 0:
                    at = (at + 1) & mask
                slots[at] = i
            free(g.slots)
            g.slots = slots
        g.capacity = <int32_t>room
        return 0

    cdef int32_t place_in_group(self, group_t* g, int32_t row) noexcept nogil:
        """Position of a row among those that hold a member of the group, -1 if it holds none."""
        cdef uint64_t at, mask
        cdef int32_t i
        if g.slots == NULL:
            for i in range(g.count):
                if g.rows[i] == row:
                    return i
            return -1
        mask = 2 * <uint64_t>g.capacity - 1
        at = slot_of(row) & mask
        while g.slots[at] >= 0:
            if g.rows[g.slots[at]] == row:
                return g.slots[at]
            at = (at + 1) & mask
        return -1

    cdef void leave_group_slot(self, group_t* g, int32_t row) noexcept nogil:
        """Remove the slot of a row, which must have one, and close the gap."""
        cdef uint64_t mask = 2 * <uint64_t>g.capacity - 1, hole = slot_of(row) & mask, at
        while g.rows[g.slots[hole]] != row:
            hole = (hole + 1) & mask
        at = (hole + 1) & mask
        while g.slots[at] >= 0:
            if ((at - slot_of(g.rows[g.slots[at]])) & mask) >= ((at - hole) & mask):
                g.slots[hole] = g.slots[at]
                hole = at
            at = (at + 1) & mask
        g.slots[hole] = -1

    cdef void join_group(self, int32_t group, int32_t row, int32_t members) noexcept nogil:
        """Add ``members`` (negative: remove) on ``row``. Room was reserved by the caller. O(1)."""
        HOSTLER_ASSERT_INDEX(group, self.group_fill)
        cdef group_t* g = &self.groups[group]
        cdef int32_t place = self.place_in_group(g, row), last
        cdef uint64_t at, mask
        if place >= 0:
            g.members[place] += members
            if g.members[place] > 0:
                return
            last = g.count - 1
            if g.slots != NULL:
                self.leave_group_slot(g, row)
                if place != last:
                    mask = 2 * <uint64_t>g.capacity - 1
                    at = slot_of(g.rows[last]) & mask
                    while g.slots[at] != last:
                        at = (at + 1) & mask
                    g.slots[at] = place
            g.rows[place] = g.rows[last]
            g.members[place] = g.members[last]
            g.count = last
            return
        if members <= 0:
            return
        HOSTLER_ASSERT_INDEX(g.count, g.capacity)
        g.rows[g.count] = row
        g.members[g.count] = members
        if g.slots != NULL:
            mask = 2 * <uint64_t>g.capacity - 1
            at = slot_of(row) & mask
            while g.slots[at] >= 0:
                at = (at + 1) & mask
            g.slots[at] = g.count
        g.count += 1
