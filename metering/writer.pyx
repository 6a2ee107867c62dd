# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Columns as JSON, with no object for any value: as columns of a message, or row by row.

The bytes are those that ``metering.tenant_messages`` and ``metering.window_rows`` write without
this. What a column points to is looked at when it is made, for nobody looks later.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy

import numpy as np

cdef enum:
    _INTS = 0
    _DOLLARS = 1
    _CODES = 2
    _PACKED = 3
    _AMOUNTS = 4
    VALUE_BYTES = 64  # at most, with what is written beyond

INTS, DOLLARS, CODES, PACKED, AMOUNTS = _INTS, _DOLLARS, _CODES, _PACKED, _AMOUNTS

cdef extern from *:
    int __builtin_ctzll(unsigned long long) noexcept nogil
    const uint64_t EIGHT "100000000ULL"
    const uint64_t ZEROS "0x3030303030303030ULL"
    const int64_t ATTO "1000000000000000000LL"


cdef class Column:
    """``before`` is what is written before it. ``INTS`` and ``DOLLARS`` (attodollars, at least 0):
    ``values`` and, unless it is ``None``, which of them are known. ``AMOUNTS``: dollars, at least
    0, and ``atto`` beside them. ``CODES``: ``values`` point into ``texts`` of JSON. ``PACKED``:
    ``values`` are bytes, ``offsets`` where each row's begin, with a comma behind each, and the end
    of the last. Raises IndexError: something points to what is not there."""

    cdef readonly Py_ssize_t rows
    cdef int kind
    cdef bytes before
    cdef const int64_t[:] values, atto
    cdef const uint8_t[:] known
    cdef const int32_t[:] codes
    cdef list texts
    cdef const uint8_t[::1] data
    cdef const int64_t[::1] offsets
    cdef int32_t[::1] places

    def __init__(
        self, bytes before not None, int kind, values, known=None, texts=(), offsets=None, atto=None
    ):
        self.before, self.kind, self.texts = before, kind, list(texts)
        self.rows = len(values if offsets is None else offsets) - (offsets is not None)
        _hold((offsets is not None) == (kind == _PACKED), before)
        if kind == _CODES:
            _hold(self.rows == 0 or 0 <= values.min() <= values.max() < len(self.texts), before)
            self.codes = values
            self.places = np.full(len(self.texts), -1, np.int32)
        elif kind == _PACKED:
            _hold((np.diff(offsets) > 0).all(), before)
            _hold(0 <= offsets[0] and offsets[-1] <= len(values), before)
            self.data, self.offsets = values, offsets
        else:
            _hold(known is None or len(known) == self.rows, before)
            _hold(kind != _AMOUNTS or (atto is not None and len(atto) == self.rows), before)
            self.values, self.atto = values, atto
            self.known = None if known is None else known.view(np.uint8)


cdef int _made(Column column) except -1:
    if column is None or column.before is None:
        raise TypeError("a column is None, or was not made")
    return 0


def _hold(is_right, before):
    if not is_right:
        raise IndexError(f"the column behind {before!r} points to what is not there")


cdef class Writer:
    """Of columns of ``count`` rows. ``led`` is one of codes that others follow: ``followers(used)``
    is what is written of these behind it, for the codes that are used."""

    cdef list _columns
    cdef Column _led
    cdef object _followers
    cdef dict _known
    cdef uint8_t* _text
    cdef Py_ssize_t _count, _size, _room

    def __cinit__(self):
        self._text, self._size, self._room = NULL, 0, 0

    def __init__(self, Py_ssize_t count, list columns not None, Column led=None, followers=None):
        cdef Column column
        for column in (columns if led is None else [*columns, led]):
            _made(column)
            _hold(column is not led or column.kind == _CODES, column.before)
            _hold(column.rows == count, column.before)
        self._count, self._columns = count, list(columns)
        self._led, self._followers, self._known = led, followers, {}

    def __dealloc__(self):
        PyMem_Free(self._text)

    def message(self, bytes head not None, Py_ssize_t start, Py_ssize_t stop):
        """The head, all columns for the rows from one to before another, and a brace."""
        cdef Column column
        if not 0 <= start < stop <= self._count:
            raise IndexError(f"rows {start} to {stop} of {self._count}")
        self._size = 0
        self._put(head)
        for column in self._columns:
            self._put(column.before)
            if column.kind == _CODES:
                self._few(column, start, stop)
            else:
                self._list(column, start, stop)
        if self._led is not None:
            self._put(self._led.before)
            self._leader(start, stop)
        self._put(b"}")
        return PyBytes_FromStringAndSize(<const char*> self._text, self._size)

    cdef int _make_room(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t room = self._size + more
        if room > self._room:
            room = max(room, 2 * self._room)
            text = <uint8_t*> PyMem_Realloc(self._text, room)
            if text == NULL:
                raise MemoryError
            self._text, self._room = text, room
        return 0

    cdef int _put(self, bytes text) except -1:
        if text is None:
            raise TypeError("what is written is None")
        cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
        self._make_room(size)
        memcpy(self._text + self._size, PyBytes_AS_STRING(text), size)
        self._size += size
        return 0

    cdef int _list(self, Column column, Py_ssize_t start, Py_ssize_t stop) except -1:
        cdef Py_ssize_t size
        self._put(b"[")
        if column.kind == _PACKED:
            size = column.offsets[stop] - column.offsets[start]
            self._make_room(size)
            memcpy(self._text + self._size, &column.data[column.offsets[start]], size)
            self._size += size
        else:
            self._make_room((stop - start) * VALUE_BYTES)
            self._size = self._values(column, start, stop) - self._text
        self._text[self._size - 1] = c"]"  # in place of the last comma
        return 0

    cdef uint8_t* _values(self, Column column, Py_ssize_t start, Py_ssize_t stop) noexcept:
        cdef uint8_t* p = self._text + self._size
        cdef Py_ssize_t n
        for n in range(start, stop):
            p = value_of(p, column, n)
            p[0] = c","
            p += 1
        return p

    cdef int _few(self, Column column, Py_ssize_t start, Py_ssize_t stop) except -1:
        used = self._used(column, start, stop)
        if len(used) == 1:
            self._put(column.texts[used[0]])
        else:
            self._put(b'{"values":[%b]' % b",".join([column.texts[n] for n in used]))
            self._codes_of(column, start, stop)
        self._clear(column, start, stop)
        return 0

    cdef int _leader(self, Py_ssize_t start, Py_ssize_t stop) except -1:
        cdef Column column = self._led
        used = self._used(column, start, stop)
        key = tuple(used)
        told = self._known.get(key)
        if told is None:
            values = b'{"values":[%b]' % b",".join([column.texts[n] for n in used])
            told = self._known[key] = (values, self._followers(used))
        self._put(told[0])
        self._codes_of(column, start, stop)
        self._put(told[1])
        self._clear(column, start, stop)
        return 0

    cdef list _used(self, Column column, Py_ssize_t start, Py_ssize_t stop):
        """Which codes there are, in order; ``places`` has for each which of these it is."""
        cdef Py_ssize_t n, count = 0
        cdef int32_t code
        found = np.empty(stop - start, np.int32)
        cdef int32_t[::1] used = found
        for n in range(start, stop):
            code = column.codes[n]
            if column.places[code] < 0:
                column.places[code] = 0
                used[count] = code
                count += 1
        qsort(&used[0], count, sizeof(int32_t), compare)
        for n in range(count):
            column.places[used[n]] = <int32_t> n
        return found[:count].tolist()

    cdef _clear(self, Column column, Py_ssize_t start, Py_ssize_t stop):
        cdef Py_ssize_t n
        for n in range(start, stop):
            column.places[column.codes[n]] = -1

    cdef int _codes_of(self, Column column, Py_ssize_t start, Py_ssize_t stop) except -1:
        cdef Py_ssize_t n
        cdef uint8_t* p
        self._put(b',"codes":[')
        self._make_room((stop - start) * VALUE_BYTES + 1)
        p = self._text + self._size
        for n in range(start, stop):
            p = number(p, column.places[column.codes[n]])
            p[0] = c","
            p += 1
        p[-1] = c"]"
        p[0] = c"}"
        self._size = p + 1 - self._text
        return 0


def rows(list heads not None, list columns not None, bytes end not None):
    """For each row its head, the columns, and the end."""
    cdef Py_ssize_t n, size, room = PyBytes_GET_SIZE(end) + VALUE_BYTES * len(columns)
    cdef Column column
    cdef bytes head
    cdef uint8_t* p
    for column in columns:
        _made(column)
        _hold(column.rows == len(heads) and column.kind not in (_CODES, _PACKED), column.before)
        room += PyBytes_GET_SIZE(column.before)
    found = []
    for n, head in enumerate(heads):
        if head is None:
            raise TypeError("a head is None")
        made = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(head) + room)
        p = put(<uint8_t*> PyBytes_AS_STRING(made), head)
        for column in columns:
            p = value_of(put(p, column.before), column, n)
        p = put(p, end)
        size = p - <uint8_t*> PyBytes_AS_STRING(made)
        found.append(made[:size])
    return found


cdef inline uint8_t* put(uint8_t* p, bytes text):
    memcpy(p, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return p + PyBytes_GET_SIZE(text)


cdef inline uint8_t* value_of(uint8_t* p, Column column, Py_ssize_t row) noexcept:
    """Of a column of numbers."""
    if column.known is not None and not column.known[row]:
        memcpy(p, b"null", 4)
        return p + 4
    if column.kind == _DOLLARS:
        return amount(p, column.values[row] // ATTO, column.values[row] % ATTO)
    if column.kind == _AMOUNTS:
        return amount(p, column.values[row], column.atto[row])
    return number(p, column.values[row])


cdef int compare(const void* a, const void* b) noexcept nogil:
    cdef int32_t x = (<const int32_t*> a)[0], y = (<const int32_t*> b)[0]
    return (x > y) - (x < y)


cdef inline uint64_t eight(uint32_t value) noexcept nogil:
    """The digits of a value below ``10**8``, one in each byte, the first in the lowest: halves,
    then pairs, then digits, all side by side in one word. The products divide by 100 and by 10."""
    cdef uint64_t upper = value // 10000
    cdef uint64_t x = upper | (value - 10000 * upper) << 32
    cdef uint64_t y = (x * 10486 >> 20) & <uint64_t> 0x0000007F0000007F
    x = y | (x - 100 * y) << 16
    y = (x * 103 >> 10) & <uint64_t> 0x000F000F000F000F
    return y | (x - 10 * y) << 8


cdef inline uint8_t* put_eight(uint8_t* p, uint32_t value) noexcept nogil:
    cdef uint64_t digits = eight(value) | ZEROS
    memcpy(p, &digits, 8)
    return p + 8


cdef inline uint8_t* put_below(uint8_t* p, uint32_t value) noexcept nogil:
    """Without zeros before it; up to 8 bytes are written, whatever there are digits."""
    cdef uint64_t digits = eight(value)
    cdef int zeros = __builtin_ctzll(digits | <uint64_t> 1 << 56) // 8
    digits = (digits | ZEROS) >> 8 * zeros
    memcpy(p, &digits, 8)
    return p + 8 - zeros


cdef inline uint8_t* number(uint8_t* p, int64_t signed) noexcept nogil:
    """Up to 26 bytes are written, whatever there are digits."""
    cdef uint64_t value = <uint64_t> signed, upper
    if signed < 0:
        p[0] = c"-"
        p += 1
        value = 0 - value
    if value < EIGHT:
        return put_below(p, <uint32_t> value)
    upper = value // EIGHT
    if upper < EIGHT:
        p = put_below(p, <uint32_t> upper)
    else:
        p = put_below(p, <uint32_t> (upper // EIGHT))
        p = put_eight(p, <uint32_t> (upper % EIGHT))
    return put_eight(p, <uint32_t> (value % EIGHT))


cdef inline uint8_t* amount(uint8_t* p, int64_t dollars, int64_t atto) noexcept nogil:
    """In quotes, with all 18 decimals."""
    cdef uint64_t value = <uint64_t> atto
    cdef uint64_t upper = value // EIGHT
    cdef uint64_t first = upper // EIGHT
    p[0] = c'"'
    p = number(p + 1, dollars)
    p[0], p[1], p[2] = c".", <uint8_t> (c"0" + first // 10), <uint8_t> (c"0" + first % 10)
    p = put_eight(put_eight(p + 3, <uint32_t> (upper % EIGHT)), <uint32_t> (value % EIGHT))
    p[0] = c'"'
    return p + 1
