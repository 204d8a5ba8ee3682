"""Headers of MATLAB 5 files: names, shapes and types of the variables, without their values.

Format: MathWorks, "MAT-File Format" (Level 5). scipy reads the values but offers no look at a
header that tells complex from real.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

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
_OPAQUE = 17
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_HEADER_BYTES = 4096


@dataclass(frozen=True)
class Mat5Variable:
    """A variable of a MATLAB 5 file: name, shape, class as MATLAB names it, complex or not."""

    name: str
    shape: tuple[int, ...]
    class_name: str
    is_complex: bool


def list_mat5(path: Path) -> tuple[Mat5Variable, ...]:
    """Return the variables of a MATLAB 5 file in their order.

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
        content = file.read(min(n_bytes, _HEADER_BYTES))
        if kind == _COMPRESSED:
            content = zlib.decompressobj().decompress(content, _HEADER_BYTES)[8:]
        variable = _variable(content, order)
        # MATLAB keeps the insides of its objects in a variable without a name.
        if variable.name:
            variables.append(variable)
        position = end
        file.seek(position)
    return variables


def _variable(content: bytes, order: str) -> Mat5Variable:
    flags = struct.unpack_from(f"{order}I", content, 8)[0]
    code = flags & 0xFF
    shape: tuple[int, ...] = ()
    at = 16
    if code != _OPAQUE:
        data, at = _element(content, at, order)
        shape = struct.unpack(f"{order}{len(data) // 4}i", data)
    name, _ = _element(content, at, order)
    return Mat5Variable(
        name=name.decode("ascii"),
        shape=shape,
        class_name="logical" if flags & _LOGICAL else _CLASSES[code],
        is_complex=bool(flags & _COMPLEX),
    )


def _element(content: bytes, at: int, order: str) -> tuple[bytes, int]:
    """Return the data of the element at byte ``at`` and where the next one begins."""
    word, n_bytes = struct.unpack_from(f"{order}II", content, at)
    if word >> 16:  # small element: size and type share a word, the data take the other
        n_bytes = word >> 16
        return content[at + 4 : at + 4 + n_bytes], at + 8
    data = content[at + 8 : at + 8 + n_bytes]
    if len(data) < n_bytes:
        raise EOFError("a variable's header is cut short")
    return data, at + 8 + 8 * math.ceil(n_bytes / 8)
