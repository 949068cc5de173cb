"""Decisions that placed one guest each, in MessagePack, made of the columns of a batch without an object for each.
packed_decisions_py.py is the pure-Python twin."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    const char* as_utf8 "PyUnicode_AsUTF8AndSize"(str, Py_ssize_t*) except NULL

cdef extern from "tables.h":
    void format_digits "hostler_format_uuid"(uint64_t, uint64_t, char*) nogil

cdef extern from "debug.h":
    void HOSTLER_ASSERT(bint) nogil

cdef extern from "pack.h":
    int PACKED_UUID "HOSTLER_PACKED_UUID"
    int PACKED_FLOAT "HOSTLER_PACKED_FLOAT"
    int packed_uint_size "hostler_packed_uint_size"(uint64_t) nogil
    char* pack_uint "hostler_pack_uint"(char*, uint64_t) nogil
    char* pack_float "hostler_pack_float"(char*, double) nogil
    int64_t packed_text_size "hostler_packed_text_size"(int64_t) nogil
    char* pack_text "hostler_pack_text"(char*, const char*, int64_t) nogil


cdef inline char* put(char* out, bytes piece) noexcept:
    memcpy(out, PyBytes_AS_STRING(piece), len(piece))
    return out + len(piece)


cdef inline char* put_uuid(char* out, uint64_t hi, uint64_t lo) noexcept nogil:
    cdef char text[36]
    format_digits(hi, lo, text)
    return pack_text(out, text, 36)


def pack_decisions(tuple labels not None, const uint64_t[::1] sequences not None, list heads not None, list places not None, list amounts not None,
                   list hosts not None, list nodes not None, const uint64_t[:, ::1] uuids not None,
                   const uint64_t[:, ::1] providers not None, const double[::1] weights not None, const uint64_t[::1] seeds not None):
    """MessagePack of each of n decisions, with their numbers ``sequences``, as a list of bytes.

    ``labels``: what stands before the sequence, the host, the node, the provider and its allocations, as bytes. ``heads``, ``places`` and
    ``amounts`` (n bytes each): what stands between the sequence and the instance's uuid, the provider and the weight, the allocations'
    provider and the seed. ``hosts``, ``nodes``: n str; ``uuids``, ``providers``: (n, 2) words. ValueError for columns of other lengths,
    TypeError for a column with something else in it, UnicodeEncodeError for a name that UTF-8 has not.
    """
    cdef Py_ssize_t n = len(heads), i, host_length, node_length
    cdef bytes first, before_host, before_node, before_provider, before_allocations, head, place, amount, made
    cdef str host, node
    cdef const char* host_text
    cdef const char* node_text
    cdef int64_t common, size
    cdef char* out
    if not (sequences.shape[0] == len(places) == len(amounts) == len(hosts) == len(nodes) == uuids.shape[0] == providers.shape[0] == weights.shape[0]
            == seeds.shape[0] == n) or uuids.shape[1] != 2 or providers.shape[1] != 2:
        raise ValueError("columns of decisions differ in length")
    first, before_host, before_node, before_provider, before_allocations = labels
    if first is None or before_host is None or before_node is None or before_provider is None or before_allocations is None:
        raise TypeError("labels must be bytes")
    common = (len(first) + len(before_host) + len(before_node) + len(before_provider) + len(before_allocations) + 3 * PACKED_UUID
              + PACKED_FLOAT)
    result = []
    for i in range(n):
        head, place, amount, host, node = heads[i], places[i], amounts[i], hosts[i], nodes[i]
        if head is None or place is None or amount is None or host is None or node is None:
            raise TypeError("a column of decisions has a hole")
        host_text, node_text = as_utf8(host, &host_length), as_utf8(node, &node_length)
        if host_length > UINT32_MAX or node_length > UINT32_MAX:
            raise ValueError("a name is too long")
        size = (common + packed_uint_size(sequences[i]) + packed_uint_size(seeds[i]) + len(head) + len(place) + len(amount)
                + packed_text_size(host_length) + packed_text_size(node_length))
        made = PyBytes_FromStringAndSize(NULL, size)
        out = put(PyBytes_AS_STRING(made), first)
        out = put(pack_uint(out, sequences[i]), head)
        out = put(put_uuid(out, uuids[i, 0], uuids[i, 1]), before_host)
        out = put(pack_text(out, host_text, host_length), before_node)
        out = put(pack_text(out, node_text, node_length), before_provider)
        out = put(put_uuid(out, providers[i, 0], providers[i, 1]), place)
        out = put(pack_float(out, weights[i]), before_allocations)
        out = put(put_uuid(out, providers[i, 0], providers[i, 1]), amount)
        out = pack_uint(out, seeds[i])
        HOSTLER_ASSERT(out == PyBytes_AS_STRING(made) + size)
        result.append(made)
    return result
