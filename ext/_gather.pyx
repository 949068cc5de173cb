"""Reads a batch of request objects into columns, as fast as attributes can be read. It depends only on the names of
their attributes."""

from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.math cimport NAN, isfinite
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memset

from ._tables cimport parse_uuid_str


cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object)
    PyObject* PyDict_GetItemWithError(object, object)
    void PyErr_Clear()
    bint PyDict_CheckExact(object)
    bint PyTuple_CheckExact(object)
    bint PyFloat_CheckExact(object)
    Py_ssize_t PyTuple_GET_SIZE(object)


cdef inline int known(dict table, object key) except -2:
    """The int that ``table`` holds for ``key``; -1 if it holds none."""
    cdef PyObject* found = PyDict_GetItem(table, key)
    return -1 if found == NULL else <int>(<object>found)


cdef enum:
    SEEN = 256    # spec objects whose numbers are cached


cdef struct seen_t:
    PyObject* spec         # NULL: none yet
    int number


cdef inline seen_t* place_of(seen_t* seen, object spec) noexcept:
    """The one cache slot of a spec object. Addresses of objects are multiples of 16."""
    cdef uint64_t address = <uint64_t><void*>spec >> 4
    return &seen[(address ^ address >> 8) & (SEEN - 1)]


cdef inline int signature(dict specs, object spec, object project, seen_t* seen) except -2:
    """The int that ``specs`` holds for a spec, or for a spec and project where it holds a dictionary for the spec.

    A spec is hashed and compared by its content, so the result for an object is cached for its next use.
    """
    cdef seen_t* place = place_of(seen, spec)
    if place.spec == <PyObject*>spec:
        return place.number
    cdef PyObject* found = PyDict_GetItemWithError(specs, spec)
    if found == NULL:
        PyErr_Clear()
        return -1
    if PyDict_CheckExact(<object>found):
        return known(<dict>found, project)
    place.spec = <PyObject*>spec
    place.number = <int>(<object>found)
    return place.number


def gather(list requests, Py_ssize_t first, type kind, dict specs, dict projects, dict users, dict groups,
           int32_t[::1] which, uint64_t[:, ::1] uuids, int32_t[::1] project, int32_t[::1] user, int32_t[::1] group, double[::1] times):
    """Fill the columns from ``requests[first:]`` and return the position of the first request that is not plain.

    A request is plain if its type is ``kind``; it names one uuid, or none and keeps the one in the column; no
    alternates, a time that is None (NaN in the column) or a finite float; and its spec, project, user and server group
    (None: -1) are keys of the dictionaries, which give what goes into the columns (``specs`` may hold, for a spec, a
    dictionary by project). Raises nothing for malformed requests: they are not plain.
    """
    cdef Py_ssize_t i, n = len(requests)
    cdef object request, spec, value
    cdef int number
    cdef seen_t seen[SEEN]
    memset(seen, 0, sizeof(seen))
    if not (which.shape[0] == n and uuids.shape[0] == n and uuids.shape[1] == 2 and project.shape[0] == n and user.shape[0] == n
            and group.shape[0] == n and times.shape[0] == n) or first < 0:
        raise ValueError("batch columns differ in length")
    for i in range(first, n):
        request = requests[i]
        if type(request) is not kind:
            return i
        value = request.project_id
        spec = request.spec
        number = signature(specs, spec, value, seen)
        if number < 0:
            return i
        which[i] = number
        if not PyUnicode_CheckExact(value):
            return i
        number = known(projects, value)
        if number < 0:
            return i
        project[i] = number
        value = request.user_id
        if not PyUnicode_CheckExact(value):
            return i
        number = known(users, value)
        if number < 0:
            return i
        user[i] = number
        value = request.server_group
        if value is None:
            group[i] = -1
        else:
            if not PyUnicode_CheckExact(value):
                return i
            number = known(groups, value)
            if number < 0:
                return i
            group[i] = number
        value = request.now
        if value is None:
            times[i] = NAN
        elif PyFloat_CheckExact(value) and isfinite(<double>value):
            times[i] = <double>value
        else:
            return i
        value = request.alternates
        if value is not 0:
            return i
        value = request.instance_uuids
        if not PyTuple_CheckExact(value) or PyTuple_GET_SIZE(value) > 1:
            return i
        if PyTuple_GET_SIZE(value) == 0:
            continue
        value = value[0]
        if not PyUnicode_CheckExact(value):
            return i
        try:
            parse_uuid_str(value, &uuids[i, 0], &uuids[i, 1])
        except ValueError:
            return i
    return n
