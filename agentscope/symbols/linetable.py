"""Line numbers out of CPython's location table (3.11 and later): Objects/locations.md of CPython (3.13: InternalDocs/)."""

_NO_COLUMNS, _LONG, _NONE = 13, 14, 15


def line_at(table: bytes, first_line: int, instruction: int) -> int | None:
    """Line of the instruction at byte offset `instruction`; None if it has none or lies beyond this piece of the table."""
    if instruction < 0:  # before the first instruction: the call itself
        return first_line
    line = first_line
    covered = 0
    at = 0
    while at < len(table):
        head = table[at]
        if not head & 0x80:  # only the first byte of an entry has its top bit set
            return None
        code = head >> 3 & 15
        delta, size = _line_delta(table, at + 1, code)
        if delta is None:
            return None
        line += delta
        covered += ((head & 7) + 1) * 2
        if instruction < covered:
            return None if code == _NONE else line
        at += size
    return None


def _line_delta(table: bytes, at: int, code: int) -> tuple[int | None, int]:
    """By how much an entry moves the line (None: the table ends in it), and how long the entry is, its head included."""
    if code == _NONE:
        return 0, 1
    if code < 10:  # short form: the column follows in one byte
        return (0, 2) if at + 1 <= len(table) else (None, 0)
    if code < _NO_COLUMNS:  # one-line form: two columns follow
        return (code - 10, 3) if at + 2 <= len(table) else (None, 0)
    end = _varint_end(table, at)
    if end is None:
        return None, 0
    delta = _signed(_varint(table, at))
    if code == _LONG:  # end line, column, end column
        for _ in range(3):
            end = _varint_end(table, end)
            if end is None:
                return None, 0
    return delta, end - at + 1


def _varint_end(table: bytes, at: int) -> int | None:
    while at < len(table):
        at += 1
        if not table[at - 1] & 64:
            return at
    return None


def _varint(table: bytes, at: int) -> int:
    value = shift = 0
    while at < len(table):
        value |= (table[at] & 63) << shift
        if not table[at] & 64:
            break
        at += 1
        shift += 6
    return value


def _signed(value: int) -> int:
    return -(value >> 1) if value & 1 else value >> 1
