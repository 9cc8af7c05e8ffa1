# Numbers as JSON has them: written where `to` points, which is moved behind them.
from libc.math cimport fabs, isfinite, rint, signbit
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, strlen

from cpython.mem cimport PyMem_Free

cdef extern from "Python.h":
    char *PyOS_double_to_string(double value, char format, int precision, int flags, int *type) except NULL
    int Py_DTSF_ADD_DOT_0

cdef enum:
    NUMBER_MOST = 32        # characters, also of PyOS_double_to_string's shortest form

# Up to here a decimal of so many digits is the shortest text of the double nearest to it: DBL_DIG is 15.
cdef inline uint64_t exact_most() noexcept nogil:
    return <uint64_t>1_000_000_000 * 1_000_000

cdef inline char *put_text(char *to, const char *text, int64_t size) noexcept nogil:
    memcpy(to, text, size)
    return to + size

cdef inline char *put_null(char *to) noexcept nogil:
    return put_text(to, b"null", 4)

cdef inline char *put_natural(char *to, uint64_t value) noexcept nogil:
    cdef char[20] digits
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char>(c'0' + value % 10)
        value //= 10
        if value == 0:
            return put_text(to, digits + at, 20 - at)

cdef inline char *put_padded(char *to, uint64_t value, int digits) noexcept nogil:
    """With zeros before it."""
    cdef int at = digits
    while at > 0:
        at -= 1
        to[at] = <char>(c'0' + value % 10)
        value //= 10
    return to + digits

cdef inline char *put_fraction(char *to, uint64_t value, uint64_t unit, int decimals) noexcept nogil:
    """value / unit, where unit is 10 ** decimals, without zeros at the end but for one after the point."""
    to = put_natural(to, value // unit)
    to[0] = c'.'
    to = put_padded(to + 1, value % unit, decimals)
    while (to - 1)[0] == c'0' and (to - 2)[0] != c'.':
        to -= 1
    return to

cdef inline char *put_repr(char *to, double value) noexcept:
    """As repr() has it."""
    cdef char *text = PyOS_double_to_string(value, c'r', 0, Py_DTSF_ADD_DOT_0, NULL)
    to = put_text(to, text, strlen(text))
    PyMem_Free(text)
    return to

cdef inline char *put_thousandths(char *to, double value) noexcept:
    """Rounded to three decimals as numpy.round() does, null where it is not known (NaN, infinite)."""
    cdef double scaled = rint(value * 1000.0)
    if not isfinite(value):
        return put_null(to)
    if fabs(scaled) >= <double>exact_most():
        return put_repr(to, scaled / 1000.0)
    if signbit(scaled):
        to[0] = c'-'
        to += 1
    return put_fraction(to, <uint64_t>fabs(scaled), 1000, 3)

cdef inline char *put_seconds(char *to, int64_t time_ns) noexcept:
    """Of nanoseconds, as repr(time_ns / 1e9)."""
    cdef uint64_t amount = -<uint64_t>time_ns if time_ns < 0 else <uint64_t>time_ns
    if amount >= exact_most() or 0 < amount < 100_000:  # repr() has an exponent below 0.0001
        return put_repr(to, time_ns / 1e9)
    if time_ns < 0:
        to[0] = c'-'
        to += 1
    return put_fraction(to, amount, 1_000_000_000, 9)
