"""Headers of MATLAB 5 files: names, shapes and types of the variables, without their values.

Format: MathWorks, "MAT-File Format" (Level 5). scipy reads the values but offers no look at a
header that tells complex from real.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from vasculome.errors import UserError

_CLASSES = {
    1: "cell",
    2: "struct",
    3: "object",
    4: "char",
    5: "sparse",
    6: "double",
    7: "single",
    8: "int8",
    9: "uint8",
    10: "int16",
    11: "uint16",
    12: "int32",
    13: "uint32",
    14: "int64",
    15: "uint64",
    16: "function_handle",
    17: "object",
}
_CELL, _OPAQUE = 1, 17
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Mat5Variable:
    """A variable of a MATLAB 5 file.

    Attributes
    ----------
    name
        Its name; of a cell ``name{1}``, as MATLAB counts them.
    shape
        Its shape.
    class_name
        Its class as MATLAB names it.
    is_complex
        Whether it is complex.
    """

    name: str
    shape: tuple[int, ...]
    class_name: str
    is_complex: bool


def list_mat5(path: Path) -> tuple[Mat5Variable, ...]:
    """Return the variables of a MATLAB 5 file in their order, a cell array's cells after it.

    Raises
    ------
    UserError
        The file is damaged or truncated, or of another version.
    """
    try:
        with path.open("rb") as file:
            return tuple(_variables(file, path.stat().st_size))
    except (EOFError, KeyError, OSError, UnicodeDecodeError, struct.error, zlib.error) as error:
        raise UserError(
            f"is a damaged or truncated MATLAB file ({error})",
            where=path,
            fix="copy it again, or save it again with -v7.3",
        ) from error


def _variables(file: BinaryIO, size: int) -> list[Mat5Variable]:
    header = file.read(128)
    order = {b"IM": "<", b"MI": ">"}[header[126:128]]
    variables = []
    position = 128
    while position < size:
        kind, n_bytes = struct.unpack(f"{order}II", file.read(8))
        end = position + 8 + n_bytes
        if kind not in (_MATRIX, _COMPRESSED) or end > size:
            raise EOFError(f"element at byte {position} does not fit")
        if kind == _COMPRESSED:
            content: _Bytes = _Inflated(file, n_bytes)
            content.skip(8)
        else:
            content = _Plain(file)
        variables += _variable(content, order, name=None)
        position = end
        file.seek(position)
    return variables


class _Bytes(Protocol):
    """Bytes that are read once, from first to last."""

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes."""

    def skip(self, n_bytes: int) -> None:
        """Pass over the next bytes."""


class _Plain:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, n_bytes: int) -> bytes:
        data = self._file.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError("a variable is cut short")
        return data

    def skip(self, n_bytes: int) -> None:
        self._file.seek(n_bytes, 1)


class _Inflated:
    """Compressed bytes, of which a piece at a time is in memory."""

    def __init__(self, file: BinaryIO, n_bytes: int) -> None:
        self._file, self._left = file, n_bytes
        self._inflate = zlib.decompressobj()
        self._waiting = b""

    def read(self, n_bytes: int) -> bytes:
        data = b""
        while len(data) < n_bytes:
            if not self._waiting and self._left:
                self._waiting = self._file.read(min(self._left, _PIECE_BYTES))
                self._left -= len(self._waiting)
            piece = self._inflate.decompress(self._waiting, n_bytes - len(data))
            if not piece and not (self._left and self._waiting):
                raise EOFError("a variable is cut short")
            self._waiting = self._inflate.unconsumed_tail
            data += piece
        return data

    def skip(self, n_bytes: int) -> None:
        for begin in range(0, n_bytes, _PIECE_BYTES):
            self.read(min(_PIECE_BYTES, n_bytes - begin))


def _variable(content: _Bytes, order: str, *, name: str | None) -> list[Mat5Variable]:
    """Return the variable whose matrix begins here; for a cell array its cells as well."""
    flags = struct.unpack_from(f"{order}I", content.read(16), 8)[0]
    code = flags & 0xFF
    shape: tuple[int, ...] = ()
    if code != _OPAQUE:
        data = _element(content, order)
        shape = struct.unpack(f"{order}{len(data) // 4}i", data)
    own_name = _element(content, order).decode("ascii")
    # MATLAB keeps the insides of its objects in a variable without a name.
    if name is None and not own_name:
        return []
    variable = Mat5Variable(
        name=name or own_name,
        shape=shape,
        class_name="logical" if flags & _LOGICAL else _CLASSES[code],
        is_complex=bool(flags & _COMPLEX),
    )
    if code != _CELL or name is not None:
        return [variable]
    return [variable, *_cells(content, order, name=own_name, count=math.prod(shape))]


def _cells(content: _Bytes, order: str, *, name: str, count: int) -> Iterator[Mat5Variable]:
    for number in range(1, count + 1):
        kind, n_bytes = struct.unpack(f"{order}II", content.read(8))
        if kind != _MATRIX:
            raise EOFError(f"cell {number} of {name} is no array")
        if n_bytes:
            cell = _Counted(content)
            yield from _variable(cell, order, name=f"{name}{{{number}}}")
            content.skip(n_bytes - cell.n_read)
        else:
            yield Mat5Variable(f"{name}{{{number}}}", (0, 0), "double", False)


class _Counted:
    """The same bytes, counted as they are read."""

    def __init__(self, content: _Bytes) -> None:
        self._content = content
        self.n_read = 0

    def read(self, n_bytes: int) -> bytes:
        self.n_read += n_bytes
        return self._content.read(n_bytes)

    def skip(self, n_bytes: int) -> None:
        self.n_read += n_bytes
        self._content.skip(n_bytes)


def _element(content: _Bytes, order: str) -> bytes:
    """Return the data of the element that begins here, and pass over it."""
    head = content.read(8)
    word, n_bytes = struct.unpack(f"{order}II", head)
    if word >> 16:  # small element: size and type share a word, the data take the other
        return head[4 : 4 + (word >> 16)]
    return content.read(8 * math.ceil(n_bytes / 8))[:n_bytes]
