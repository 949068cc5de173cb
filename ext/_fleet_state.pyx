"""The fleet kernel's consumers as arrays and back, their place in a row's list, and uuids in bulk: needed to undo
changes and to check and save a fleet, but not to decide. fleet_state_py.py is the pure-Python twin."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

import numpy as np

from ._fleet cimport NAMED, Columns, shape_t
from ._uuids cimport UuidTable, uuid_text


def consumers(Columns columns not None):
    """All consumer ids ever assigned, as a dict of copies in id order.

    ``uuid`` uint64 [n, 2]; int32 [n] each: ``row`` (-1: the id is free), ``shape``, ``project``, ``user``, ``group``,
    ``flags``, ``generation``, ``next`` (the next older one on the row, -1: none); ``free``: the free ids, the next one
    to be assigned first. Of free ids all others are 0, and ``shape``, ``group`` and ``next`` -1: what was in their memory
    is not part of the state, and not for files.
    """
    cdef int32_t n = columns.consumer_fill, i, at, count = 0
    uuid = np.empty((n, 2), np.uint64)
    figures = np.empty((8, n), np.int32)
    free = np.empty(n - columns.consumer_count, np.int32)
    cdef uint64_t[:, ::1] words = uuid
    cdef int32_t[:, ::1] view = figures
    cdef int32_t[::1] free_view = free
    for i in range(n):
        if columns.consumer_row[i] < 0:
            words[i, 0] = words[i, 1] = 0
            view[0, i] = view[1, i] = view[4, i] = view[7, i] = -1
            view[2, i] = view[3, i] = view[5, i] = view[6, i] = 0
            continue
        words[i, 0] = columns.uuid_hi[i]
        words[i, 1] = columns.uuid_lo[i]
        view[0, i] = columns.consumer_row[i]
        view[1, i] = columns.consumer_shape[i]
        view[2, i] = columns.consumer_project[i]
        view[3, i] = columns.consumer_user[i]
        view[4, i] = columns.consumer_group[i]
        view[5, i] = columns.consumer_flags[i]
        view[6, i] = columns.consumer_generation[i]
        view[7, i] = columns.consumer_next[i]
    at = columns.free_consumer
    while at >= 0:
        free_view[count] = at
        count += 1
        at = columns.consumer_next[at]
    names = ("row", "shape", "project", "user", "group", "flags", "generation", "next")
    return {"uuid": uuid, **dict(zip(names, figures)), "free": free}


def set_consumers(Columns columns not None, *, uint64_t[:, ::1] uuid, int32_t[::1] row, int32_t[::1] shape,
                  int32_t[::1] project, int32_t[::1] user, int32_t[::1] group, int32_t[::1] flags,
                  int32_t[::1] generation, int32_t[::1] next, int32_t[::1] free):
    """Restore the consumers that ``consumers`` returned into columns that never had one: lists, uuids and groups, but
    not their resources. ValueError for arrays that ``consumers`` cannot have returned; the columns are unusable
    then."""
    cdef int64_t n = row.shape[0], i, live = 0, listed = 0
    cdef int32_t at
    if columns.consumer_fill != 0:
        raise ValueError("the columns have consumers")
    cdef list lines = [shape, project, user, group, flags, generation, next]
    for line in lines:
        if len(line) != n:
            raise ValueError("consumer columns differ in length")
    if uuid.shape[0] != n or uuid.shape[1] != 2 or free.shape[0] > n:
        raise ValueError("consumer columns differ in length")
    columns.reserve_consumers(n)
    for i in range(n):
        columns.consumer_row[i] = -1
        columns.consumer_previous[i] = -1
        if row[i] == -1:
            continue
        live += 1
        if row[i] < 0 or row[i] >= columns.c.rows or shape[i] < -1 or shape[i] >= columns.shape_count:
            raise ValueError("a consumer is on no row, or of no shape")
        if group[i] < -1 or group[i] >= columns.group_fill or project[i] < 0 or user[i] < 0:
            raise ValueError("a consumer is of no group, project or user")
        if flags[i] < 0 or flags[i] >= NAMED or generation[i] < 1:
            raise ValueError("a consumer's flags or generation cannot be")
        if columns.consumers.insert(uuid[i, 0], uuid[i, 1], <int32_t>i) != 0:
            raise ValueError("a consumer is there twice")
        columns.uuid_hi[i] = uuid[i, 0]
        columns.uuid_lo[i] = uuid[i, 1]
        columns.consumer_row[i] = row[i]
        columns.consumer_shape[i] = shape[i]
        columns.consumer_project[i] = project[i]
        columns.consumer_user[i] = user[i]
        columns.consumer_group[i] = group[i]
        columns.consumer_flags[i] = <uint8_t>flags[i]
        columns.consumer_generation[i] = generation[i]
    if live + free.shape[0] != n:
        raise ValueError("consumers and free ids do not add up")
    link_consumers(columns, row, next)
    for i in range(n):
        if row[i] >= 0:
            if columns.consumer_previous[i] < 0:
                if columns.c.first[row[i]] >= 0:
                    raise ValueError("a row has two lists of consumers")
                columns.c.first[row[i]] = <int32_t>i
            if group[i] >= 0:
                columns.reserve_group(group[i], 1)
                columns.join_group(group[i], row[i], 1)
    for i in range(n):
        if row[i] >= 0 and columns.consumer_previous[i] < 0:
            at = <int32_t>i
            while at >= 0:
                listed += 1
                at = columns.consumer_next[at]
    if listed != live:
        raise ValueError("the rows' lists leave out some consumers")
    link_free(columns, free, n)
    columns.consumer_fill = <int32_t>n
    columns.consumer_count = <int32_t>live
    if n > 0:
        columns.link_projects()


cdef int link_consumers(Columns columns, int32_t[::1] row, int32_t[::1] next) except -1:
    """Link the lists of rows. Each consumer follows at most one other, so every list ends."""
    cdef int64_t i
    cdef int32_t following
    for i in range(row.shape[0]):
        if row[i] == -1:
            continue
        following = next[i]
        columns.consumer_next[i] = following
        if following == -1:
            continue
        if following < 0 or following >= row.shape[0] or row[following] != row[i] or columns.consumer_previous[following] >= 0:
            raise ValueError("a row's list of consumers cannot be")
        columns.consumer_previous[following] = <int32_t>i
    return 0


cdef int link_free(Columns columns, int32_t[::1] free, int64_t n) except -1:
    cdef int64_t i
    for i in range(free.shape[0]):
        if free[i] < 0 or free[i] >= n or columns.consumer_row[free[i]] != -1:
            raise ValueError("an id is not free")
        columns.consumer_row[free[i]] = -2
    for i in range(free.shape[0] - 1, -1, -1):
        columns.consumer_row[free[i]] = -1
        columns.consumer_next[free[i]] = columns.free_consumer
        columns.free_consumer = free[i]
    return 0


def relist(Columns columns not None, int32_t consumer, int32_t before):
    """Put a consumer, the newest on its row, behind ``before`` in the row's list: to undo a removal."""
    columns.check_consumer(consumer)
    columns.check_consumer(before)
    cdef int32_t row = columns.consumer_row[consumer], following = columns.consumer_next[consumer]
    if columns.c.first[row] != consumer or columns.consumer_row[before] != row or before == consumer:
        raise ValueError("not the newest consumer, or on another row")
    columns.c.first[row] = following
    columns.consumer_previous[following] = -1
    following = columns.consumer_next[before]
    columns.consumer_next[before] = consumer
    columns.consumer_previous[consumer] = before
    columns.consumer_next[consumer] = following
    if following >= 0:
        columns.consumer_previous[following] = consumer


def listed_before(Columns columns not None, int32_t consumer):
    """The next newer consumer on the same row, -1 if there is none."""
    columns.check_consumer(consumer)
    return columns.consumer_previous[consumer]


def consumers_on_rows(Columns columns not None, int32_t[::1] rows):
    """Consumers on ``rows``, int32 [4, n]: id, position in ``rows``, shape and flags; in the order of the rows, newest
    first."""
    cdef Py_ssize_t i, n = 0
    cdef int32_t consumer
    for i in range(rows.shape[0]):
        columns.check_row(rows[i])
        consumer = columns.c.first[rows[i]]
        while consumer >= 0:
            n += 1
            consumer = columns.consumer_next[consumer]
    found = np.empty((4, n), np.int32)
    cdef int32_t[:, ::1] view = found
    n = 0
    for i in range(rows.shape[0]):
        consumer = columns.c.first[rows[i]]
        while consumer >= 0:
            view[0, n] = consumer
            view[1, n] = <int32_t>i
            view[2, n] = columns.consumer_shape[consumer]
            view[3, n] = columns.consumer_flags[consumer]
            n += 1
            consumer = columns.consumer_next[consumer]
    return found


def find_uuids(UuidTable table not None, uint64_t[:, ::1] uuids):
    """The value of each uuid, -1 where there is none, int32 [n]."""
    cdef Py_ssize_t i
    if uuids.shape[1] != 2:
        raise ValueError("a uuid is two words")
    result = np.empty(uuids.shape[0], np.int32)
    cdef int32_t[::1] out = result
    for i in range(uuids.shape[0]):
        out[i] = table.find(uuids[i, 0], uuids[i, 1])
    return result


def discard_uuids(UuidTable table not None, uint64_t[:, ::1] uuids):
    """Remove uuids. KeyError for one that does not exist; those before it have been removed."""
    cdef Py_ssize_t i
    if uuids.shape[1] != 2:
        raise ValueError("a uuid is two words")
    for i in range(uuids.shape[0]):
        if table.remove(uuids[i, 0], uuids[i, 1]) < 0:
            raise KeyError(uuid_text(uuids[i, 0], uuids[i, 1]))


def used_ids(Columns columns not None, int32_t shapes, int32_t projects, int32_t users):
    """Which shapes, projects and users (below the given numbers) are in use by consumers: three arrays of bool.
    O(consumers)."""
    found = [np.zeros(count, np.uint8) for count in (shapes, projects, users)]
    cdef uint8_t[::1] shape = found[0], project = found[1], user = found[2]
    cdef int32_t i
    if shapes < columns.shape_count:
        raise ValueError("there are more shapes")
    for i in range(columns.consumer_fill):
        if columns.consumer_row[i] < 0:
            continue
        if columns.consumer_shape[i] >= 0:
            shape[columns.consumer_shape[i]] = 1
        if columns.consumer_project[i] >= projects or columns.consumer_user[i] >= users:
            raise ValueError("there are more projects or users")
        project[columns.consumer_project[i]] = 1
        user[columns.consumer_user[i]] = 1
    return [each.view(np.bool_) for each in found]


def renumber(Columns columns not None, int32_t[::1] shapes, int32_t[::1] projects, int32_t[::1] users):
    """Renumber the shapes, projects and users of all consumers, by their present number; -1: not in use.
    Shapes without a number are dropped; the others keep their order. O(consumers + shapes)."""
    cdef int32_t i, k, number, kept = 0, fill = 0
    cdef shape_t* s
    if shapes.shape[0] != columns.shape_count:
        raise ValueError("one number per shape")
    for i in range(columns.shape_count):
        if shapes[i] >= 0:
            if shapes[i] != kept:
                raise ValueError("shapes are not numbered in order")
            kept += 1
    for i in range(columns.consumer_fill):
        if columns.consumer_row[i] < 0:
            continue
        number = columns.consumer_shape[i]
        if number >= 0 and shapes[number] < 0:
            raise ValueError("a consumer's shape has no number")
        if columns.consumer_project[i] >= projects.shape[0] or projects[columns.consumer_project[i]] < 0:
            raise ValueError("a consumer's project has no number")
        if columns.consumer_user[i] >= users.shape[0] or users[columns.consumer_user[i]] < 0:
            raise ValueError("a consumer's user has no number")
    for i in range(columns.consumer_fill):
        if columns.consumer_row[i] < 0:
            continue
        number = columns.consumer_shape[i]
        if number >= 0:
            columns.consumer_shape[i] = shapes[number]
        columns.consumer_project[i] = projects[columns.consumer_project[i]]
        columns.consumer_user[i] = users[columns.consumer_user[i]]
    for i in range(columns.shape_count):
        if shapes[i] < 0:
            continue
        s = &columns.shapes[i]
        for k in range(s.count):
            columns.shape_class[fill + k] = columns.shape_class[s.start + k]
            columns.shape_amount[fill + k] = columns.shape_amount[s.start + k]
        columns.shapes[shapes[i]] = s[0]
        columns.shapes[shapes[i]].start = fill
        fill += s.count
    columns.shape_count = kept
    columns.shape_fill = fill
    if columns.consumer_capacity > 0:
        columns.link_projects()
