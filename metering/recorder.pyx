# cython: language_level=3, boundscheck=False, wraparound=False
"""The record of a batch, written in two calls, for who has no time: after a model's batch the
caches are the model's, and each line of Python costs several times as much.

What it writes says what ``triton_models.emitter.record`` and ``metering.records`` write without it.
It writes what nearly all batches are made of, and leaves all else to them: for what is not as it
expects, it answers ``None``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, strlen

from metering.wal import MAX_PAYLOAD_BYTES, encode_frame

cdef Py_ssize_t _MOST = MAX_PAYLOAD_BYTES
_ENDLESS = 2**64
cdef int64_t _MOST_COUNT = 2**53
cdef int64_t _MOST_ROWS = 2**32

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    bint PyLong_CheckExact(object number)
    bint PyUnicode_Check(object text)
    bint PyDict_CheckExact(object found)

cdef enum:
    _HEADER = 16  # bytes: length, checksum, sequence
    _CRC_FROM = 8
    _LONG_ID = 512  # bytes; a longer one is for others to refuse
    _LONG_VALUE = 256  # of an identity's field; likewise
    _COMPARED = 64  # payers of a batch that another one is compared with
    _DIGITS = 24  # more than a number of 64 bits has
    # Of what is told of a request, the places in its tuple.
    _OUTPUTS = 0
    _ERROR = 1
    _INPUT = 3
    _CACHED = 4
    _OUTPUT = 5
    _REASONING = 6
    _ROW_TOKENS = 7
    _TURNS = 8
    _TOLD = 9
    # An identity's fields; as many again are those that headers name.
    _TENANT = 0
    _FIELDS = 5

cdef extern from *:
    """
    static const char *const FIELD_NAMES[] = {"tenant", "team", "project", "user", "retry_of"};
    static const Py_ssize_t FIELD_SIZES[] = {6, 4, 7, 4, 8};
    """
    const char **FIELD_NAMES
    const Py_ssize_t *FIELD_SIZES

cdef struct Text:
    char *at
    Py_ssize_t size, room

cdef struct Span:
    const char *at
    Py_ssize_t size

cdef struct Payer:  # of those that are written, by its place: they may move
    Py_ssize_t begin, size
    uint64_t mark  # the same for the same text


class NotUsual(Exception):
    """Never leaves this module."""


def frame(sequence, bytes payload not None):
    """``metering.wal.encode_frame``, with its errors."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    if not 0 < size <= _MOST or not 0 <= sequence < _ENDLESS:
        return encode_frame(sequence, payload)
    cdef bytes found = PyBytes_FromStringAndSize(NULL, _HEADER + size)
    cdef unsigned char *at = <unsigned char *>PyBytes_AS_STRING(found)
    memcpy(at + _HEADER, PyBytes_AS_STRING(payload), size)
    _little(at + _CRC_FROM, <uint64_t>sequence, 8)
    _little(at, <uint64_t>size, 4)
    _little(at + 4, _crc32(at + _CRC_FROM, _HEADER - _CRC_FROM + size), 4)
    return found


cdef void _little(unsigned char *at, uint64_t number, int size) noexcept:
    cdef int n
    for n in range(size):
        at[n] = <unsigned char>(number >> (8 * n))


cdef uint32_t[4][256] _TABLES


cdef void _fill_tables() noexcept:
    """Of CRC-32 as zlib has it, by four bytes at a time ("slicing by 4"). zlib's own tables are
    larger, and out of the processor's cache a table costs more than what it saves."""
    cdef uint32_t n, rest
    cdef int bit
    for n in range(256):
        rest = n
        for bit in range(8):
            rest = (rest >> 1) ^ (0xEDB88320 if rest & 1 else 0)
        _TABLES[0][n] = rest
    for bit in range(1, 4):
        for n in range(256):
            rest = _TABLES[bit - 1][n]
            _TABLES[bit][n] = (rest >> 8) ^ _TABLES[0][rest & 0xFF]


_fill_tables()


cdef uint32_t _crc32(const unsigned char *data, Py_ssize_t size) noexcept:
    cdef uint32_t crc = 0xFFFFFFFF
    cdef Py_ssize_t n = 0
    while n + 4 <= size:
        crc ^= (
            data[n]
            | <uint32_t>data[n + 1] << 8
            | <uint32_t>data[n + 2] << 16
            | <uint32_t>data[n + 3] << 24
        )
        crc = (
            _TABLES[3][crc & 0xFF]
            ^ _TABLES[2][(crc >> 8) & 0xFF]
            ^ _TABLES[1][(crc >> 16) & 0xFF]
            ^ _TABLES[0][crc >> 24]
        )
        n += 4
    while n < size:
        crc = (crc >> 8) ^ _TABLES[0][(crc ^ data[n]) & 0xFF]
        n += 1
    return crc ^ <uint32_t>0xFFFFFFFF


cdef class Recorder:
    """Of one model instance; one batch at a time, and who comes meanwhile is answered ``None``.

    ``payer_of`` gives the payer, as a record has it, for a request's parameters; ``nobody`` is who
    pays where no tenant is named. ``told`` is the type of tuple that ``record`` expects;
    ``batched``: a request's rows are those of its answer.
    """

    cdef bytes _head, _nobody
    cdef object _payer_of
    cdef type _told
    cdef bint _batched, _is_busy
    cdef Text _text, _payers
    cdef int64_t *_numbers
    cdef Py_ssize_t _numbers_room

    def __cinit__(self):
        self._head = self._nobody = b""
        self._told = tuple
        self._text = self._payers = Text(NULL, 0, 0)
        self._numbers, self._numbers_room = NULL, 0

    def __init__(
        self, bytes head not None, payer_of, str nobody not None, type told not None, bint batched
    ):
        if not issubclass(told, tuple):
            raise TypeError(f"told={told.__name__}: want a type of tuple")
        self._head, self._payer_of, self._told, self._batched = head, payer_of, told, batched
        self._nobody = nobody.encode()

    def __dealloc__(self):
        PyMem_Free(self._text.at)
        PyMem_Free(self._payers.at)
        PyMem_Free(self._numbers)

    def asked(self, requests):
        """Who asked, from the ids and the parameters that the backend has; ``None``: not usual."""
        cdef Text *to = &self._text
        cdef Py_ssize_t n = 0, count = len(requests), kinds = 0
        cdef Payer[_COMPARED] seen
        if self._is_busy:
            return None
        self._is_busy = True
        try:
            to.size = self._payers.size = 0
            self._hold_numbers(count)
            _say(to, b'"requests":[')
            for request in requests:
                if n == count:
                    return None
                if n:
                    _say(to, b",")
                _put_id(to, request.request_id())
                self._numbers[n] = self._put_payer(request.parameters(), seen, &kinds)
                n += 1
            if n != count:
                return None
            _say(to, b'],"payers":[')
            _put(to, self._payers.at, self._payers.size)
            _say(to, b'],"payer":')
            _put_column(to, self._numbers, count)
            return PyBytes_FromStringAndSize(to.at, to.size)
        except (NotUsual, UnicodeError):
            return None
        finally:
            self._is_busy = False

    def record(self, sequence, timing, bytes asked not None, served):
        """The record of a batch all of whose requests were served; ``None``: not usual."""
        cdef Text *to = &self._text
        cdef Py_ssize_t count = len(served)
        cdef bint any_cached = False, any_reasoning = False, other_rows = False
        if self._is_busy:
            return None
        self._is_busy = True
        try:
            to.size = 0
            self._hold_numbers(5 * count)
            self._read(served, count, &any_cached, &any_reasoning, &other_rows)
            _put(to, PyBytes_AS_STRING(self._head), PyBytes_GET_SIZE(self._head))
            _say(to, b",")
            _put(to, PyBytes_AS_STRING(asked), PyBytes_GET_SIZE(asked))
            start_ns, end_ns, end_epoch_ns, share_ns, device_ns, prefill_ns, decode_ns = timing
            _say_number(to, b',"sequence":', sequence)
            _say_number(to, b',"start_ns":', start_ns)
            _say_number(to, b',"end_ns":', end_ns)
            _say_number(to, b',"end_epoch_ns":', end_epoch_ns)
            _say_number(to, b',"share_ns":', share_ns)
            _say_number(to, b',"device_ns":', device_ns)
            _say_number(to, b',"prefill_ns":', prefill_ns)
            _say_number(to, b',"decode_ns":', decode_ns)
            _say(to, b',"input_tokens":')
            _put_column(to, self._numbers, count)
            _say(to, b',"cached_input_tokens":')
            _put_column_or(to, any_cached, b"0", self._numbers + count, count)
            _say(to, b',"output_tokens":')
            _put_column(to, self._numbers + 2 * count, count)
            _say(to, b',"reasoning_tokens":')
            _put_column_or(to, any_reasoning, b"0", self._numbers + 3 * count, count)
            _say(to, b',"rows":')
            _put_column_or(to, other_rows, b"1", self._numbers + 4 * count, count)
            _say(to, b',"status":"ok","more":{}}')
            return PyBytes_FromStringAndSize(to.at, to.size)
        except Exception:  # a type, a length, a shape: Python says what is wrong with it
            return None
        finally:
            self._is_busy = False

    cdef int _hold_numbers(self, Py_ssize_t count) except -1:
        if count > self._numbers_room:
            found = <int64_t *>PyMem_Realloc(self._numbers, count * sizeof(int64_t))
            if found == NULL:
                raise MemoryError
            self._numbers, self._numbers_room = found, count
        return 0

    cdef int _read(
        self, served, Py_ssize_t count, bint *any_cached, bint *any_reasoning, bint *other_rows
    ) except -1:
        """Column by column: input, cached, output, reasoning, rows."""
        cdef Py_ssize_t n = 0
        cdef int64_t *numbers = self._numbers
        cdef tuple told
        for one in served:
            if type(one) is not self._told or len(<tuple>one) != _TOLD or n == count:
                raise NotUsual
            told = <tuple>one
            if told[_ERROR] is not None or _is_any(told[_ROW_TOKENS]) or _is_any(told[_TURNS]):
                raise NotUsual
            numbers[n] = _count(told[_INPUT])
            numbers[count + n] = _count(told[_CACHED])
            numbers[2 * count + n] = _count(told[_OUTPUT])
            numbers[3 * count + n] = _count(told[_REASONING])
            numbers[4 * count + n] = _rows(told[_OUTPUTS]) if self._batched else 1
            any_cached[0] |= numbers[count + n] != 0
            any_reasoning[0] |= numbers[3 * count + n] != 0
            other_rows[0] |= numbers[4 * count + n] != 1
            n += 1
        if n != count:
            raise NotUsual
        return 0

    cdef Py_ssize_t _put_payer(self, text, Payer *seen, Py_ssize_t *kinds) except -1:
        """Behind the others, unless it is one of them; which one it is."""
        cdef Text *to = &self._payers
        cdef Py_ssize_t n, size, begin = to.size + (kinds[0] > 0)
        cdef uint64_t mark
        cdef Span nobody
        cdef Span[2 * _FIELDS] found
        cdef bytes its
        if not PyUnicode_Check(text):
            raise NotUsual
        cdef const char *at = PyUnicode_AsUTF8AndSize(text, &size)
        if kinds[0]:
            _say(to, b",")
        nobody.at, nobody.size = PyBytes_AS_STRING(self._nobody), PyBytes_GET_SIZE(self._nobody)
        if _find_fields(at, size, nobody, found):
            self._put_fields(to, found)
        else:
            its = self._payer_of(text)
            if its is None:
                raise NotUsual
            _put(to, PyBytes_AS_STRING(its), PyBytes_GET_SIZE(its))
        size = to.size - begin
        mark = _mark(to.at + begin, size)
        for n in range(min(kinds[0], <Py_ssize_t>_COMPARED)):
            if seen[n].mark == mark and seen[n].size == size:
                if memcmp(to.at + seen[n].begin, to.at + begin, size) == 0:
                    to.size = begin - 1
                    return n
        n = kinds[0]
        if n < _COMPARED:
            seen[n] = Payer(begin, size, mark)
        kinds[0] = n + 1
        return n

    cdef int _put_fields(self, Text *to, Span *found) except -1:
        """As ``identity_of`` has them: the body's before the header's."""
        cdef const char *source = b'"none"'
        cdef Span it
        cdef Py_ssize_t n
        _say(to, b"[")
        for n in range(_FIELDS):
            it = found[n]
            if not it.size:
                it = found[_FIELDS + n]
            if n:
                _say(to, b",")
            elif found[_TENANT].size:
                source = b'"parameter"'
            elif it.size:
                source = b'"header"'
            else:
                it.at, it.size = PyBytes_AS_STRING(self._nobody), PyBytes_GET_SIZE(self._nobody)
            if n == _FIELDS - 1 and not it.size:  # retry_of
                _say(to, b"null")
                continue
            _say(to, b'"')
            _put(to, it.at, it.size)
            _say(to, b'"')
        _say(to, b",")
        _say(to, source)
        return _say(to, b',null,""]')


cdef uint64_t _mark(const char *at, Py_ssize_t size) noexcept:
    cdef uint64_t word, mark = 0
    cdef Py_ssize_t n = 0
    while n + 8 <= size:
        memcpy(&word, at + n, 8)
        mark = (mark ^ word) * <uint64_t>0x9E3779B97F4A7C15
        n += 8
    while n < size:
        mark = (mark ^ <unsigned char>at[n]) * <uint64_t>0x9E3779B97F4A7C15
        n += 1
    return mark


cdef bint _find_fields(const char *at, Py_ssize_t size, Span nobody, Span *found) noexcept:
    """The identity's fields in an object of texts of printable ASCII without escapes, as the backend
    writes it; ``False``: it is not that plain, or perhaps one of them can't be a name."""
    cdef const char *end = at + size
    cdef Span name, value
    cdef Py_ssize_t n, place
    for n in range(2 * _FIELDS):
        found[n].at, found[n].size = NULL, 0
    if size == 0:
        return True
    if size < 2 or at[0] != b"{" or end[-1] != b"}":
        return False
    at += 1
    end -= 1
    if at == end:
        return True
    while True:
        if not _find_text(&at, end, &name) or at == end or at[0] != b":":
            return False
        at += 1
        if not _find_text(&at, end, &value):
            return False
        place = _field(name)
        if place >= 0:
            if value.size > _LONG_VALUE:
                return False
            if value.size and (value.at[0] == b" " or value.at[value.size - 1] == b" "):
                return False
            if value.size == nobody.size and not memcmp(value.at, nobody.at, value.size):
                return False
            found[place] = value
        if at == end:
            return True
        if at[0] != b",":
            return False
        at += 1


cdef bint _find_text(const char **at, const char *end, Span *found) noexcept:
    """From one quote to the next; ``at`` is behind it then."""
    cdef const char *here = at[0]
    if here == end or here[0] != b'"':
        return False
    here += 1
    found.at = here
    while here < end and here[0] != b'"':
        if here[0] == b"\\" or not 0x20 <= here[0] <= 0x7E:
            return False
        here += 1
    if here == end:
        return False
    found.size = here - found.at
    at[0] = here + 1
    return True


cdef Py_ssize_t _field(Span name) noexcept:
    """Its place; -1: it is none. A header, in any case and with dashes, is behind the body's."""
    cdef Py_ssize_t n, k
    cdef bint is_header = name.size > 8 and _is_alike(name.at, b"x-meter-", 8)
    if is_header:
        name.at += 8
        name.size -= 8
    for n in range(_FIELDS):
        if name.size == FIELD_SIZES[n]:
            if is_header:
                if _is_alike(name.at, FIELD_NAMES[n], name.size):
                    return _FIELDS + n
            elif memcmp(name.at, FIELD_NAMES[n], name.size) == 0:
                return n
    return -1


cdef bint _is_alike(const char *header, const char *name, Py_ssize_t size) noexcept:
    cdef Py_ssize_t n
    cdef char c, wanted
    for n in range(size):
        c, wanted = header[n], name[n]
        if b"A" <= c <= b"Z":
            c += 32
        if c == b"-" and wanted == b"_":
            c = wanted
        if c != wanted:
            return False
    return True


cdef int _put_id(Text *to, text) except -1:
    cdef Py_ssize_t size, n
    if not PyUnicode_Check(text):
        raise NotUsual
    cdef const char *found = PyUnicode_AsUTF8AndSize(text, &size)
    if size > _LONG_ID:
        raise NotUsual
    for n in range(size):
        if <unsigned char>found[n] < 0x20 or found[n] == b'"' or found[n] == b"\\":
            raise NotUsual
    _say(to, b'"')
    _put(to, found, size)
    return _say(to, b'"')


cdef int _put_column_or(
    Text *to, bint told, const char *same, int64_t *numbers, Py_ssize_t count
) except -1:
    return _put_column(to, numbers, count) if told else _say(to, same)


cdef int _put_column(Text *to, int64_t *numbers, Py_ssize_t count) except -1:
    cdef Py_ssize_t n
    _make_room(to, count * _DIGITS + 2)
    to.at[to.size] = b"["
    to.size += 1
    for n in range(count):
        if n:
            to.at[to.size] = b","
            to.size += 1
        _put_digits(to, numbers[n])
    to.at[to.size] = b"]"
    to.size += 1
    return 0


cdef int _say_number(Text *to, const char *name, number) except -1:
    _say(to, name)
    if number is None:
        return _say(to, b"null")
    _make_room(to, _DIGITS)
    _put_digits(to, _number(number))
    return 0


cdef void _put_digits(Text *to, int64_t number) noexcept:
    """There is room."""
    cdef char[_DIGITS] digits
    cdef Py_ssize_t at = _DIGITS
    cdef uint64_t rest = -<uint64_t>number if number < 0 else <uint64_t>number
    while True:
        at -= 1
        digits[at] = <char>(48 + rest % 10)
        rest //= 10
        if not rest:
            break
    if number < 0:
        at -= 1
        digits[at] = b"-"
    memcpy(to.at + to.size, digits + at, _DIGITS - at)
    to.size += _DIGITS - at


cdef int _say(Text *to, const char *text) except -1:
    return _put(to, text, strlen(text))


cdef int _put(Text *to, const char *text, Py_ssize_t size) except -1:
    _make_room(to, size)
    memcpy(to.at + to.size, text, size)
    to.size += size
    return 0


cdef int _make_room(Text *to, Py_ssize_t size) except -1:
    cdef char *at
    cdef Py_ssize_t room
    if to.size + size > to.room:
        room = 2 * (to.size + size)
        at = <char *>PyMem_Realloc(to.at, room)
        if at == NULL:
            raise MemoryError
        to.at, to.room = at, room
    return 0


cdef int64_t _number(number) except? -1:
    cdef int overflow = 0
    if not PyLong_CheckExact(number):
        raise NotUsual
    cdef int64_t found = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow:
        raise NotUsual
    return found


cdef int64_t _count(number) except? -1:
    """What is no count is for Python to tell."""
    cdef int64_t found = _number(number)
    if not 0 <= found < _MOST_COUNT:
        raise NotUsual
    return found


cdef int _is_any(told) except -1:
    if type(told) is tuple:
        return PyTuple_GET_SIZE(told) != 0
    return len(told) != 0


cdef int64_t _rows(outputs) except? -1:
    """As Triton counts them: the first dimension of any output."""
    cdef PyObject *name
    cdef PyObject *value
    cdef Py_ssize_t at = 0
    if not PyDict_CheckExact(outputs) or not PyDict_Next(outputs, &at, &name, &value):
        raise NotUsual
    cdef object first = <object>value  # held, whatever its shape may do to the outputs
    cdef object shape = first.shape
    if type(shape) is not tuple or PyTuple_GET_SIZE(shape) == 0:
        raise NotUsual
    cdef int64_t rows = _number((<tuple>shape)[0])
    if not 0 < rows < _MOST_ROWS:
        raise NotUsual
    return rows
