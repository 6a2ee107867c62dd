# cython: language_level=3, boundscheck=False, wraparound=False
"""Usage events in columns, from their bytes to columns of integers, without an object for each.

Only events are read that are written as our own shipper writes them: every field there, in its
order, without spaces. What is found here is types and lengths; the laws are ``metering.frame``'s.
Every buffer that is read is of ``bytes``, which end with a 0 behind their last: so whoever looks at
one character at a time, and stops at a 0, never passes the end.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

import json

import numpy as np

ctypedef const uint8_t* At
"""A place in an event; NULL: it is not written as this reader wants it."""

cdef uint8_t[256] STOPS
"""Characters that end a text, or are none of it."""
for n in range(256):
    STOPS[n] = n < 0x20 or n == c'"' or n == c"\\"

cdef enum:
    _INT = 0
    _KNOWN = 1
    _TEXT = 2
    _FLAG = 3
    MOST_DIGITS = 19
    USUAL_BYTES = 100  # of an event, for each request: where there are fewer, columns grow

INT, KNOWN, TEXT, FLAG = _INT, _KNOWN, _TEXT, _FLAG


cdef class Values:
    """A column that grows. ``texts`` has what its numbers point into, if it is one of texts."""

    cdef readonly str name
    cdef readonly list texts
    cdef readonly bint has_unknown
    cdef readonly int kind
    cdef Py_ssize_t most_text
    cdef object _values, _known
    cdef Py_buffer _of_values, _of_known
    cdef bint _is_held
    cdef int64_t* at
    cdef uint8_t* known
    cdef dict _codes, _distinct

    def __cinit__(self, str name, int kind, Py_ssize_t most_text, Py_ssize_t room):
        self.name, self.kind, self.most_text = name, kind, most_text
        self.texts, self._codes, self._distinct = [], {}, {}
        self._values = np.empty(room, np.int64)
        self._known = np.empty(room if kind == _KNOWN else 0, np.uint8)
        self._hold()

    def __dealloc__(self):
        self._let_go()

    cdef _hold(self):
        PyObject_GetBuffer(self._values, &self._of_values, PyBUF_WRITABLE)
        try:
            PyObject_GetBuffer(self._known, &self._of_known, PyBUF_WRITABLE)
        except BaseException:
            PyBuffer_Release(&self._of_values)
            raise
        self._is_held = True
        self.at = <int64_t*> self._of_values.buf
        self.known = <uint8_t*> self._of_known.buf

    cdef _let_go(self):
        if self._is_held:
            self._is_held = False
            PyBuffer_Release(&self._of_values)
            PyBuffer_Release(&self._of_known)

    cdef int make_room(self, Py_ssize_t count) except -1:
        """For so many in all; what is there stays."""
        cdef Py_ssize_t room = len(self._values)
        if count <= room:
            return 0
        room = max(count, 2 * room)
        self._let_go()
        values, known = np.empty(room, np.int64), np.empty(room if len(self._known) else 0, np.uint8)
        values[: len(self._values)] = self._values
        known[: len(self._known)] = self._known
        self._values, self._known = values, known
        self._hold()
        return 0

    def values(self, Py_ssize_t count):
        return self._values[:count]

    def known_of(self, Py_ssize_t count):
        """Which there are; ``None``: all."""
        return self._known[:count].view(np.bool_) if self.has_unknown else None

    cdef At read(self, At p, Py_ssize_t place) except? NULL:
        """One value to ``place``; behind it."""
        cdef int64_t code
        if self.kind == _INT:
            return whole_number(p, self.at + place)
        if self.kind == _KNOWN:
            if p[0] == c"n":
                self.at[place] = self.known[place] = 0
                self.has_unknown = True
                return word(p, "null", 4)
            self.known[place] = 1
            return whole_number(p, self.at + place)
        if self.kind == _FLAG:
            self.at[place] = p[0] == c"t"
            return word(p, "true", 4) if p[0] == c"t" else word(p, "false", 5)
        return self._text(p, place)

    cdef At _text(self, At p, Py_ssize_t place) except? NULL:
        cdef bint is_escaped
        cdef At end = behind_text(p, &is_escaped)
        if end == NULL:
            return NULL
        raw = PyBytes_FromStringAndSize(<const char*> p, end - p)
        code = self._codes.get(raw)
        if code is None:
            text = text_of(raw, self.most_text)
            if text is None:
                return NULL
            code = self._distinct.setdefault(text, len(self.texts))
            if code == len(self.texts):
                self.texts.append(text)
            self._codes[raw] = code
        self.at[place] = code
        return end

    cdef int fill(self, Py_ssize_t first, Py_ssize_t count) except -1:
        """The value at ``first`` to all of ``count`` from there on."""
        cdef Py_ssize_t n
        for n in range(first + 1, first + count):
            self.at[n] = self.at[first]
        if self.kind == _KNOWN:
            for n in range(first + 1, first + count):
                self.known[n] = self.known[first]
        return 0


cdef class Scan:
    """``batches`` has a value for each event, ``requests`` for each request, of which event ``n`` has
    ``counts[n]``. ``payers`` are distinct texts of JSON; ``payer`` points into them. ``ids`` are the
    requests' in JSON, a comma behind each, and begin at ``offsets``, where one more is their end;
    ``has_escapes`` says whether there are any in them."""

    cdef readonly dict batches, requests
    cdef readonly list payers, counts
    cdef readonly Values payer
    cdef readonly object ids, offsets
    cdef readonly bint has_escapes


cdef class Scanner:
    """``head`` and ``columns`` are names and kinds, in the order in which they are written."""

    cdef bytes _start
    cdef list _head, _columns
    cdef Py_ssize_t _most_requests, _most_text

    def __init__(self, bytes start not None, head, columns, Py_ssize_t most_requests, Py_ssize_t most_text):
        self._start = start
        self._head = [(b'"%b":' % name.encode(), name, kind) for name, kind in head]
        self._columns = [(b'"%b":' % name.encode(), name, kind) for name, kind in columns]
        self._most_requests, self._most_text = most_requests, most_text

    def scan(self, list values not None):
        """``(Scan, [])``; or ``(None, places)`` of those that have to be read otherwise."""
        cdef Py_ssize_t n, size = 0
        for n in range(len(values)):
            size += len(values[n])
        cdef Py_ssize_t rows = size // USUAL_BYTES + 1
        cdef list head = self._made(self._head, len(values) + 1)
        cdef Run run = Run(self._start, head, self._made(self._columns, rows), rows, size + 1)
        run.most_requests, run.most_text = self._most_requests, self._most_text
        odd = [n for n in range(len(values)) if not run.read(values[n])]
        return (None, odd) if odd else (run.found(), odd)

    cdef list _made(self, list wanted, Py_ssize_t room):
        return [(text, Values(name, kind, self._most_text, room)) for text, name, kind in wanted]


cdef class Run:
    """One scan: what it has found so far."""

    cdef bytes _start
    cdef list _head, _columns, _payers, _counts
    cdef dict _payer_codes
    cdef Values _payer, _local, _offsets
    cdef object _ids
    cdef uint8_t[::1] _id
    cdef Py_ssize_t _rows, most_requests, most_text
    cdef Py_ssize_t _count  # of the event that is read
    cdef bint _has_escapes

    def __init__(
        self, bytes start not None, list head not None, list columns not None, Py_ssize_t room, Py_ssize_t size
    ):
        self._start, self._head, self._columns = start, head, columns
        self._payers, self._counts, self._payer_codes = [], [], {}
        self._ids = np.empty(size, np.uint8)  # they are a part of what is read
        self._id = self._ids
        self._offsets = Values("", _INT, 0, room + 1)
        self._offsets.at[0] = 0
        self._payer, self._local = Values("payer", _INT, 0, room), Values("", _INT, 0, 64)

    cdef Scan found(self):
        cdef Scan scan = Scan()
        scan.batches = {column.name: column for _, column in self._head}
        scan.requests = {column.name: column for _, column in self._columns}
        scan.payers, scan.payer, scan.counts = self._payers, self._payer, self._counts
        scan.offsets = self._offsets.values(self._rows + 1)
        scan.ids = self._ids[: self._offsets.at[self._rows]].copy()
        scan.has_escapes = self._has_escapes
        return scan

    cdef bint read(self, object value) except -1:
        """Whether it could be."""
        if type(value) is not bytes:
            return False
        cdef At p = <At> PyBytes_AS_STRING(value)
        cdef At end = p + PyBytes_GET_SIZE(value)
        p = self._head_of(p)
        if p != NULL:
            p = self._requests_of(p)
        if p == NULL or end - p != 2 or p[0] != c"}" or p[1] != c"}":
            return False
        self._counts.append(self._count)
        self._rows += self._count
        return True

    cdef At _head_of(self, At p) except? NULL:
        cdef Py_ssize_t place = len(self._counts)
        cdef Values column
        p = literal(p, self._start)
        for name, column in self._head:
            column.make_room(place + 1)
            p = literal(p, name)
            if p == NULL:
                return NULL
            p = column.read(p, place)
            if p == NULL or p[0] != c",":
                return NULL
            p += 1
        return literal(p, b'"requests":{')

    cdef At _requests_of(self, At p) except? NULL:
        cdef Py_ssize_t first = self._rows, count, n
        cdef Values column
        p = self._ids_of(literal(p, b'"request_id":['))
        if p == NULL:
            return NULL
        count = self._count
        p = self._payers_of(literal(p, b',"payers":['))
        self._payer.make_room(first + count)
        p = self._column(literal(p, b',"payer":'), self._payer, first, count)
        if p == NULL:
            return NULL
        cdef int64_t payers = self._local.at[0]
        for n in range(first, first + count):
            if self._payer.at[n] >= payers:
                return NULL
            self._payer.at[n] = self._local.at[1 + self._payer.at[n]]
        for name, column in self._columns:
            if p == NULL or p[0] != c",":
                return NULL
            column.make_room(first + count)
            p = self._column(literal(p + 1, name), column, first, count)
        return p

    cdef At _column(self, At p, Values column, Py_ssize_t first, Py_ssize_t count) except? NULL:
        cdef Py_ssize_t n
        if p == NULL:
            return NULL
        if p[0] != c"[":
            p = column.read(p, first)
            if p != NULL:
                column.fill(first, count)
            return p
        for n in range(first, first + count):
            p = column.read(p + 1, n)
            if p == NULL or p[0] != (c"," if n + 1 < first + count else c"]"):
                return NULL
        return p + 1

    cdef At _ids_of(self, At p) except? NULL:
        cdef Py_ssize_t place = self._offsets.at[self._rows], size
        cdef At end
        cdef bint is_escaped
        self._count = 0
        while p != NULL and self._count < self.most_requests:
            end = behind_text(p, &is_escaped)
            if end == NULL:
                return NULL
            size = end - p
            if is_escaped or size - 2 > self.most_text or not is_ascii(p, size):
                raw = PyBytes_FromStringAndSize(<const char*> p, size)
                if text_of(raw, self.most_text) is None:
                    return NULL
                self._has_escapes = self._has_escapes or is_escaped
            memcpy(&self._id[place], p, size)
            place += size
            self._id[place] = c","
            place += 1
            self._count += 1
            self._offsets.make_room(self._rows + self._count + 1)
            self._offsets.at[self._rows + self._count] = place
            if end[0] == c"]":
                return end + 1
            p = end + 1 if end[0] == c"," else NULL
        return NULL

    cdef At _payers_of(self, At p) except? NULL:
        """Their numbers among all of the scan go to ``_local``, behind how many there are."""
        cdef Py_ssize_t count = 0
        cdef At end
        self._local.at[0] = 0
        while p != NULL and p[0] == c"[":
            end = behind_list(p)
            if end == NULL:
                return NULL
            raw = PyBytes_FromStringAndSize(<const char*> p, end - p)
            code = self._payer_codes.get(raw)
            if code is None:
                code = self._payer_codes[raw] = len(self._payers)
                self._payers.append(raw)
            count += 1
            self._local.make_room(count + 1)
            self._local.at[count] = code
            self._local.at[0] = count
            if end[0] == c"]":
                return end + 1
            p = end + 1 if end[0] == c"," else NULL
        return NULL


cdef inline At word(At p, const char* wanted, Py_ssize_t size) noexcept:
    """Behind it. Stops at the first that differs, so it never passes a 0."""
    cdef Py_ssize_t n
    for n in range(size):
        if p[n] != <uint8_t> wanted[n]:
            return NULL
    return p + size


cdef inline At literal(At p, bytes wanted):
    return NULL if p == NULL else word(p, PyBytes_AS_STRING(wanted), PyBytes_GET_SIZE(wanted))


cdef inline At whole_number(At p, int64_t* found) noexcept:
    """Of digits alone, in 63 bits, as JSON has them."""
    cdef uint64_t value = 0
    cdef At start = p
    while c"0" <= p[0] <= c"9" and p - start < MOST_DIGITS:
        value = value * 10 + (p[0] - c"0")
        p += 1
    if p == start or value > <uint64_t> 0x7FFFFFFFFFFFFFFF:
        return NULL
    if start[0] == c"0" and p - start > 1:
        return NULL
    found[0] = <int64_t> value
    return p


cdef inline At behind_text(At p, bint* is_escaped) noexcept:
    """Of a text in quotes."""
    is_escaped[0] = False
    if p[0] != c'"':
        return NULL
    p += 1
    while True:
        while not STOPS[p[0]]:
            p += 1
        if p[0] == c'"':
            return p + 1
        if p[0] != c"\\" or p[1] < 0x20:
            return NULL
        is_escaped[0] = True
        p += 2


cdef inline At behind_list(At p) noexcept:
    """Of one that has no list and no object in it."""
    cdef bint is_escaped
    p += 1
    while p[0] != c"]":
        if p[0] == c'"':
            p = behind_text(p, &is_escaped)
            if p == NULL:
                return NULL
        elif p[0] == 0 or p[0] == c"[" or p[0] == c"{":
            return NULL
        else:
            p += 1
    return p + 1


cdef inline bint is_ascii(At p, Py_ssize_t size) noexcept:
    cdef Py_ssize_t n
    cdef uint8_t all_of = 0
    for n in range(size):
        all_of |= p[n]
    return all_of < 0x80


cdef object text_of(bytes raw, Py_ssize_t most):
    """What JSON's text says; ``None``: it is none, or longer than ``most`` characters."""
    try:
        text = json.loads(raw.decode())
        text.encode()
    except ValueError:
        return None
    return text if len(text) <= most else None


def gathered(
    const uint8_t[::1] data not None,
    const int64_t[::1] offsets not None,
    const int64_t[::1] rows not None,
):
    """Pieces of ``data`` in another order: the new data and offsets. ``offsets`` are as many as there
    are pieces and one more, in ascending order. Raises IndexError: there is no such row or piece."""
    cdef Py_ssize_t pieces = offsets.shape[0] - 1, count = rows.shape[0], n, size = 0, row
    for n in range(count):
        if not 0 <= rows[n] < pieces:
            raise IndexError(f"row {rows[n]} of {pieces}")
        if not 0 <= offsets[rows[n]] <= offsets[rows[n] + 1] <= data.shape[0]:
            raise IndexError(f"piece {rows[n]} is not within {data.shape[0]} bytes")
        size += offsets[rows[n] + 1] - offsets[rows[n]]
    ends, found = np.empty(count + 1, np.int64), np.empty(size, np.uint8)
    cdef int64_t[::1] end = ends
    cdef uint8_t[::1] place = found
    end[0] = 0
    for n in range(count):
        row = rows[n]
        size = offsets[row + 1] - offsets[row]
        if size:
            memcpy(&place[end[n]], &data[offsets[row]], size)
        end[n + 1] = end[n] + size
    return found, ends


def without_frames(
    const uint8_t[::1] data not None,
    const int64_t[::1] offsets not None,
    Py_ssize_t before,
    Py_ssize_t behind,
):
    """Each piece without so many of its first and last: the new data and offsets. Raises IndexError:
    a piece is not within the data."""
    cdef Py_ssize_t count = offsets.shape[0] - 1, n, size
    if count < 0 or before < 0 or behind < 0:
        raise IndexError(f"{count} pieces without {before} and {behind}")
    for n in range(count):
        if not 0 <= offsets[n] <= offsets[n + 1] <= data.shape[0]:
            raise IndexError(f"piece {n} is not within {data.shape[0]} bytes")
        if offsets[n + 1] - offsets[n] < before + behind or before + behind < 0:
            raise ValueError(f"piece {n} has fewer than {before + behind}")
    ends = np.empty(count + 1, np.int32)
    found = np.empty(max(0, offsets[count] - offsets[0] - count * (before + behind)), np.uint8)
    cdef int32_t[::1] end = ends
    cdef uint8_t[::1] place = found
    end[0] = 0
    for n in range(count):
        size = offsets[n + 1] - offsets[n] - before - behind
        if size:
            memcpy(&place[end[n]], &data[offsets[n] + before], size)
        end[n + 1] = end[n] + <int32_t> size
    return found, ends
