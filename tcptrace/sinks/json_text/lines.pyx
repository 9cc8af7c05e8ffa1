"""Lines of JSON from columns: one object a line, as json.dumps() would write it.

A column is a field of the rows, or an array of its own with an element for each line.  Nothing is made of a row but text.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from tcptrace.sinks.json_text.names cimport (
    ADDRESS_MOST, BRIEF_MOST, brief, put_address, put_brief, put_mac, put_time,
)
from tcptrace.sinks.json_text.numbers cimport (
    put_natural, put_null, put_seconds, put_text, put_thousandths,
)

cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(object list, Py_ssize_t index)

import json
from functools import lru_cache

import numpy as np

from tcptrace import model

_ALL_FIELDS = model.CONNECTION.names
_FIELDS_BUT_SOCKETS = tuple(name for name in _ALL_FIELDS if not name.endswith("_socket"))

cdef enum kind_of_column:
    CONSTANT        # the same text in each line
    TEXTS           # a text for each line
    CHOICES         # an index into texts; null where there is none
    INTEGERS        # negative is not known
    THOUSANDTHS     # rounded to three decimals; NaN and infinite are not known
    SECONDS         # of nanoseconds
    TIMES           # nanoseconds since 1970, once an offset is added
    ADDRESSES
    MACS
    BRIEFS          # the last packets

cdef enum:
    RECENT_PACKETS = 5
    QUOTES = 2

_CODES = {"b1": 4, "i1": 0, "i2": 1, "i4": 2, "i8": 3, "u1": 4, "u2": 5, "u4": 6, "u8": 7, "f8": 8}

_BRIEF = model.PACKET_BRIEF
if (
    model.RECENT_PACKETS != RECENT_PACKETS or _BRIEF.itemsize != sizeof(brief)
    or _BRIEF.fields["received"][1] != 26 or _BRIEF.fields["analysis"][1] != 28
    or model.DIRECTION.fields["mac_known"][1] != model.DIRECTION.fields["mac"][1] + 6
):
    raise ImportError("tcptrace.model and the compiled sinks do not match: reinstall tcptrace")


# A column while lines are written.
cdef struct source_of_values:
    kind_of_column kind
    int code
    const char *name        # ,"name":
    int64_t name_size
    int64_t most            # characters that a value may take
    const uint8_t *data     # of the first line, or row
    int64_t stride
    bint of_rows            # `data` is of the rows, and a line's place is its row's
    int64_t shift
    PyObject *texts         # a list of bytes
    int64_t texts_count


@lru_cache(maxsize=1024)
def _name(name):
    return b"," + json.dumps(name).encode() + b":"


cdef class Column:
    """One name and where its values come from: see the functions below."""

    cdef bytes name
    cdef object array       # keeps source.data alive; None: a field of the rows
    cdef list texts
    cdef int64_t offset
    cdef source_of_values source

    def __cinit__(self, str name, int kind, source=None):
        cdef const uint8_t[::1] view
        self.name = _name(name)
        self.source.name = PyBytes_AS_STRING(self.name)
        self.source.name_size = PyBytes_GET_SIZE(self.name)
        self.source.kind = <kind_of_column>kind
        self.source.most = ADDRESS_MOST
        self.source.of_rows = isinstance(source, tuple)
        if self.source.of_rows:
            dtype, self.offset = _field(source)
            self.source.code = _CODES.get(dtype.str[1:], 0)
        elif source is not None:
            self.array = np.ascontiguousarray(source)
            self.source.code = _CODES[self.array.dtype.str[1:]]
            self.source.stride = self.array.itemsize
            if len(self.array):
                view = self.array.view("u1")
                self.source.data = &view[0]

    @property
    def key(self):
        """The name."""
        return json.loads(self.name.strip(b",:"))

    cdef hold(self, list texts):
        """Texts that lines may have here."""
        self.texts = texts
        self.source.texts = <PyObject *>texts
        self.source.texts_count = len(texts)
        self.source.most = max(ADDRESS_MOST, max(map(len, texts), default=0))
        return self


def _field(path):
    """dtype and offset of a field of model.CONNECTION; a name in several parts is of a direction."""
    dtype, offset = model.CONNECTION, 0
    for name in path:
        dtype, at = dtype.fields[name][:2]
        offset += at
    return dtype, offset


def constant(str name, value):
    return Column(name, CONSTANT).hold([json.dumps(value, separators=(",", ":")).encode()])


def texts(str name, list of_lines):
    """Of each line, as JSON."""
    return Column(name, TEXTS).hold(of_lines)


def encoded(values):
    """What to choose from, as JSON."""
    return [json.dumps(value).encode() for value in values]


def choices(str name, source, list texts):
    """Indices into `texts`, which are JSON."""
    return Column(name, CHOICES, source).hold(texts)


def integers(str name, source):
    return Column(name, INTEGERS, source)


def thousandths(str name, source):
    cdef Column column = Column(name, THOUSANDTHS, source)
    if column.source.code != 8:
        raise TypeError(f"{name} is not of doubles")
    return column


def seconds(str name, source):
    """Of nanoseconds."""
    return Column(name, SECONDS, source)


def times(str name, source, int64_t offset_ns):
    """Nanoseconds since 1970 once `offset_ns` is added."""
    cdef Column column = Column(name, TIMES, source)
    column.source.shift = offset_ns
    return column


def addresses(str name, path):
    """Of 16 bytes; the rows' ip_version says which kind."""
    return Column(name, ADDRESSES, path)


def macs(str name, path):
    """Of six bytes, and one that says whether they are known."""
    return Column(name, MACS, path)


def briefs(str name, str flag_letters, words):
    """The rows' last packets; `words`: what the bits of their analysis are called."""
    cdef Column column = Column(name, BRIEFS, ("recent",))
    column.hold([flag_letters.encode(), *(f" {word}".encode() for word in words)])
    column.source.most = RECENT_PACKETS * (BRIEF_MOST + sum(map(len, column.texts)))
    return column


cdef class Lines:
    """Writes lines; its memory is used again."""

    cdef char *memory
    cdef int64_t room
    cdef source_of_values *sources

    def __dealloc__(self):
        free(self.memory)
        free(self.sources)

    def encode(self, list columns, rows, indices):
        """A line for each of `indices` into `rows` (model.CONNECTION, with or without something behind each)."""
        cdef const int64_t[::1] picks = np.ascontiguousarray(indices, "i8")
        cdef int64_t count = len(picks), line
        cdef const uint8_t[::1] view
        cdef const uint8_t *first
        cdef int64_t stride, line_most
        cdef char *to = self.memory
        rows = getattr(rows, "without_sockets", rows)  # nothing of sockets is a field of the rows here
        if rows.dtype.names not in (_ALL_FIELDS, _FIELDS_BUT_SOCKETS):
            raise TypeError("rows are not of dtype CONNECTION")
        if count == 0:
            return b""
        view = rows.view("u1")
        first = &view[0]
        stride = rows.dtype.itemsize
        line_most = self._prepare(columns, first, stride)
        for line in range(count):
            to = self._make_room(to, line_most)
            to = self._line(to, len(columns), first + picks[line] * stride, picks[line], line)
        return PyBytes_FromStringAndSize(self.memory, to - self.memory)

    cdef int64_t _prepare(self, list columns, const uint8_t *first, int64_t stride) except -1:
        """Characters that a line takes at most."""
        cdef source_of_values *larger = <source_of_values *>realloc(
            self.sources, len(columns) * sizeof(source_of_values)
        )
        cdef int64_t at, most = 2
        cdef Column column
        if larger == NULL:
            raise MemoryError
        self.sources = larger
        for at, column in enumerate(columns):
            self.sources[at] = column.source
            most += column.source.name_size + column.source.most + QUOTES
            if column.source.of_rows:
                self.sources[at].data = first + column.offset
                self.sources[at].stride = stride
        return most

    cdef char *_make_room(self, char *to, int64_t wanted) except NULL:
        """`to` with room for so many characters behind it; maybe elsewhere."""
        cdef int64_t used = to - self.memory
        cdef char *larger
        if used + wanted > self.room:
            larger = <char *>realloc(self.memory, 2 * (used + wanted))
            if larger == NULL:
                raise MemoryError
            self.memory = larger
            self.room = 2 * (used + wanted)
        return self.memory + used

    cdef char *_line(self, char *to, int64_t columns, const uint8_t *row, int64_t place, int64_t line) except NULL:
        cdef int64_t at
        cdef char *start = to
        cdef const source_of_values *source
        for at in range(columns):
            source = self.sources + at
            to = put_text(to, source.name, source.name_size)
            to = put_value(to, source, row, source.data + (place if source.of_rows else line) * source.stride, line)
        start[0] = c'{'  # in place of the first comma
        return put_text(to, b"}\n", 2)


cdef char *put_value(
    char *to, const source_of_values *source, const uint8_t *row, const uint8_t *at, int64_t line
) noexcept:
    """What the column has at `at`, or for this line."""
    cdef kind_of_column kind = source.kind
    cdef int64_t number
    if kind == INTEGERS:
        number = load(at, source.code)
        return put_null(to) if number < 0 else put_natural(to, number)
    if kind == THOUSANDTHS:
        return put_thousandths(to, (<const double *>at)[0])
    if kind == CHOICES:
        number = load(at, source.code)
        return put_listed(to, source, number) if 0 <= number < source.texts_count else put_null(to)
    if kind == CONSTANT:
        return put_listed(to, source, 0)
    if kind == TEXTS:
        return put_listed(to, source, line)
    if kind == BRIEFS:
        return put_briefs(to, source, row, <const brief *>at)
    if kind == SECONDS:
        return put_seconds(to, load(at, source.code))
    if kind == MACS and not at[6]:
        return put_null(to)
    to[0] = c'"'
    if kind == TIMES:
        to = put_time(to + 1, load(at, source.code) + source.shift)
    elif kind == ADDRESSES:
        to = put_address(to + 1, at, row[_ip_version])
    else:
        to = put_mac(to + 1, at)
    to[0] = c'"'
    return to + 1


cdef inline char *put_listed(char *to, const source_of_values *source, int64_t index) noexcept:
    cdef PyObject *text = PyList_GET_ITEM(<object>source.texts, index)
    return put_text(to, PyBytes_AS_STRING(<object>text), PyBytes_GET_SIZE(<object>text))


cdef inline int64_t load(const uint8_t *at, int code) noexcept nogil:
    if code == 3 or code == 7:
        return (<const int64_t *>at)[0]
    if code == 2:
        return (<const int32_t *>at)[0]
    if code == 6:
        return (<const uint32_t *>at)[0]
    if code == 4:
        return at[0]
    if code == 5:
        return (<const uint16_t *>at)[0]
    if code == 1:
        return (<const int16_t *>at)[0]
    return (<const int8_t *>at)[0]


cdef int64_t _ip_version = _field(("ip_version",))[1]
cdef int64_t _recent_total = _field(("recent_total",))[1]
cdef int64_t _start_ns = _field(("start_ns",))[1]


cdef char *put_briefs(char *to, const source_of_values *source, const uint8_t *row, const brief *ring) noexcept:
    """The ring's packets, oldest first."""
    cdef uint64_t total = (<const uint64_t *>(row + _recent_total))[0]
    cdef uint64_t index = total - RECENT_PACKETS if total > RECENT_PACKETS else 0
    cdef int64_t start_ns = (<const int64_t *>(row + _start_ns))[0]
    cdef const char *letters = PyBytes_AS_STRING(<object>PyList_GET_ITEM(<object>source.texts, 0))
    cdef const brief *p
    cdef int64_t bit
    to[0] = c'['
    to += 1
    while index < total:
        p = ring + index % RECENT_PACKETS
        to[0] = c'"'
        to = put_brief(to + 1, p, start_ns, letters)
        if p.analysis:
            for bit in range(source.texts_count - 1):
                if p.analysis >> bit & 1:
                    to = put_listed(to, source, bit + 1)
        to = put_text(to, b'",', 2)
        index += 1
    if (to - 1)[0] == c',':
        to -= 1
    to[0] = c']'
    return to + 1
