"""Reads a batch of request objects into columns, as fast as attributes can be read. It depends only on the names of
their attributes."""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject_IsTrue
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.math cimport NAN, isfinite
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free

from ._shapes cimport Shapes
from ._uuids cimport parse_uuid_str


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
    SEEN = 4096   # spec objects whose numbers are at hand
    LARGE = 4096  # bytes of the encoding of a spec, or of its flavor or image, from which on its number is not
    NO_ENTRY = -1
    UNKNOWN = -2


cdef struct seen_t:
    PyObject* spec         # NULL: none yet; a reference is held
    int number


cdef inline bint is_large(object value) except -1:
    """True if the value is known to have an encoding of LARGE bytes or more."""
    cdef object content = None if value is None else getattr(value, "_content", None)
    return isinstance(content, bytes) and len(<bytes>content) >= LARGE


cdef inline int64_t entry(object table, object key) except -3:
    """The int that a dict holds for ``key``; UNKNOWN if it holds none, or ``key`` has no hash."""
    cdef PyObject* found = PyDict_GetItemWithError(table, key)
    if found == NULL:
        PyErr_Clear()
        return UNKNOWN
    return <int64_t>(<object>found)


cdef class SpecTable:
    """Numbers of request shapes by spec: by its parts where each part alone says what it asks for, else by its content.

    ``flavors``, ``images``, ``zones``, ``families``: one dict for each way in which ``is_bfv`` and ``prepare`` go together, numbered
    3 * is_bfv + (0: None, 1: False, 2: True). A flavor leads to its kind << 32 | its size, an image and a zone to a number, each to -1
    if it is no part by itself; kind << 40 | image << 20 | zone leads to the number of a ranking of ``shapes``, -1: none. ``missing`` is
    called with a spec that has an entry missing, and returns its shape or -1, as there is.
    """

    cdef readonly Shapes shapes
    cdef readonly dict specs           # spec -> shape, or project -> shape where projects tell requests apart
    cdef readonly list flavors, images, zones, families
    cdef object missing
    cdef object kind
    cdef tuple others
    cdef seen_t* seen

    def __cinit__(self):
        self.seen = <seen_t*>calloc(SEEN, sizeof(seen_t))
        if self.seen == NULL:
            raise MemoryError

    def __init__(self, Shapes shapes not None, type kind not None, tuple others not None, missing=None):
        """``kind``: class of the specs; ``others``: their fields that must be empty for them to be known by their parts; ``missing``
        None: none is."""
        self.shapes, self.kind, self.others, self.missing = shapes, kind, others, missing
        self.specs = {}
        self.flavors, self.images, self.zones, self.families = ([{} for _ in range(6)] for _ in range(4))

    def __dealloc__(self):
        if self.seen != NULL:
            self.let_go()
        free(self.seen)

    cdef void let_go(self) noexcept:
        """Forget which spec objects have which shapes."""
        cdef int i
        for i in range(SEEN):
            if self.seen[i].spec != NULL:
                Py_DECREF(<object>self.seen[i].spec)
                self.seen[i].spec = NULL

    def forget_objects(self):
        """Forget the numbers of all spec objects, after an entry was removed from a dict."""
        self.let_go()

    def find(self, spec, project=""):
        """The shape of a spec, -1 if it is not known. O(1)."""
        return self.number(spec, project)

    cdef int number(self, object spec, object project) except -2:
        # Objects lie 16 bytes apart at least.
        cdef uint64_t address = <uint64_t><void*>spec >> 4
        cdef seen_t* place = &self.seen[(address ^ address >> 12) & (SEEN - 1)]
        cdef PyObject* found
        cdef int number
        if place.spec == <PyObject*>spec:
            return place.number
        number = -1
        if self.missing is not None and type(spec) is self.kind:
            number = self.by_parts(spec)
        if number < 0:
            found = PyDict_GetItemWithError(self.specs, spec)
            if found == NULL:
                PyErr_Clear()
                return -1
            if PyDict_CheckExact(<object>found):
                return known(<dict>found, project)
            number = <int>(<object>found)
            if is_large(spec):
                return number
        elif is_large(spec.flavor) or is_large(spec.image):
            return number
        if place.spec != NULL:
            Py_DECREF(<object>place.spec)
        Py_INCREF(spec)
        place.spec = <PyObject*>spec
        place.number = number
        return number

    cdef int by_parts(self, object spec) except -2:
        cdef object bfv = spec.is_bfv, prepare = spec.prepare, value
        cdef int64_t flavor, image, zone, family
        cdef int way = 0
        for name in self.others:
            value = getattr(spec, name)
            if value is not None and PyObject_IsTrue(value):
                return -1
        if bfv is True:
            way = 3
        elif bfv is not False:
            return -1
        if prepare is False:
            way += 1
        elif prepare is True:
            way += 2
        elif prepare is not None:
            return -1
        flavor = entry(self.flavors[way], spec.flavor)
        image = entry(self.images[way], spec.image)
        zone = entry(self.zones[way], spec.availability_zone)
        if flavor == NO_ENTRY or image == NO_ENTRY or zone == NO_ENTRY:
            return -1
        if flavor == UNKNOWN or image == UNKNOWN or zone == UNKNOWN:
            return self.missing(spec)
        family = entry(self.families[way], (flavor >> 32) << 40 | image << 20 | zone)
        if family == UNKNOWN:
            return self.missing(spec)
        return -1 if family < 0 else self.shapes.number_of(<int32_t>family, <int32_t>(flavor & 0xffffffff))


def gather(list requests, Py_ssize_t first, type kind, SpecTable table not None, dict projects, dict users, dict groups,
           int32_t[::1] which, uint64_t[:, ::1] uuids, int32_t[::1] project, int32_t[::1] user, int32_t[::1] group, double[::1] times):
    """Fill the columns from ``requests[first:]`` and return the position of the first request that needs a closer look.

    A request is plain if its type is ``kind``; it names one uuid, or none and keeps the one in the column; no alternates, a time that
    is None (NaN in the column) or a finite float; its spec is in ``table``, which gives its shape; and project, user and server group
    (None: -1) are keys of the dictionaries, which give what goes into the columns. Raises nothing for odd requests: they are not plain.
    """
    cdef Py_ssize_t i, n = len(requests)
    cdef object request, spec, value
    cdef int number
    if not (which.shape[0] == n and uuids.shape[0] == n and uuids.shape[1] == 2 and project.shape[0] == n and user.shape[0] == n
            and group.shape[0] == n and times.shape[0] == n) or first < 0:
        raise ValueError("batch columns differ in length")
    for i in range(first, n):
        request = requests[i]
        if type(request) is not kind:
            return i
        value = request.project_id
        spec = request.spec
        number = table.number(spec, value)
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
