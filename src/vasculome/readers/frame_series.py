"""Blocks of frames in many files and variables, read as one array with time first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError
from vasculome.readers.files import fingerprint, list_files
from vasculome.readers.iq_arrays import IQFormat, StoredArray, split_cell
from vasculome.readers.iq_zarr import is_zarr
from vasculome.readers.numbering import check_numbering


@dataclass(frozen=True)
class Block:
    """Consecutive frames in one variable of one file, or in two that hold I and Q."""

    file: Path
    variables: tuple[str, ...]
    n_frames: int


@dataclass(frozen=True)
class FrameSeries:
    """Blocks of frames in the order of time. It holds no open file and is pickled to workers.

    Attributes
    ----------
    blocks
        Where the frames are.
    axes
        Order of the axes in the files, e.g. ``"zxt"``.
    order
        Order of the axes of what is read; time is first.
    frame_shape
        Lengths of the axes after time, in the order of what is read.
    format
        How the files are read.
    resident_bytes
        Memory that reads take beyond their result: formats that cannot be read in pieces load
        whole arrays and keep the last ones.
    dtype
        Type of the numbers in all files, as `StoredArray` tells it.
    """

    blocks: tuple[Block, ...]
    axes: str
    order: str
    frame_shape: tuple[int, ...]
    format: IQFormat
    resident_bytes: int
    dtype: str

    @property
    def n_frames(self) -> int:
        """Frames in all blocks."""
        return sum(block.n_frames for block in self.blocks)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files, each once."""
        return tuple(dict.fromkeys(block.file for block in self.blocks))

    def read(self, t0: int, t1: int) -> Iterator[tuple[slice, Block, int, list[npt.NDArray[Any]]]]:
        """Yield the pieces of frames ``t0`` to ``t1`` - 1.

        Each is where it belongs in the result, its block, its first frame there, and the values
        of its variables in the order of axes of the result.

        Raises
        ------
        UserError
            A file is missing, damaged or has changed.
        ValueError
            Frames beyond the series, or none.
        """
        if not 0 <= t0 < t1 <= self.n_frames:
            raise ValueError(f"frames {t0} to {t1} of {self.n_frames}")
        begin = 0
        for block in self.blocks:
            a, b = max(t0, begin), min(t1, begin + block.n_frames)
            if a < b:
                yield (
                    slice(a - t0, b - t0),
                    block,
                    a - begin,
                    self._load(block, a - begin, b - begin),
                )
            begin += block.n_frames

    def fingerprint(self, *, detail: str = "") -> str:
        """Return the identity of the input: files, variables, order of axes, and ``detail``."""
        names = tuple(dict.fromkeys(block.variables for block in self.blocks))
        how = (self.axes, names[0] if len(names) == 1 else names)
        return fingerprint(self.files, detail=repr(how) + detail)

    def _load(self, block: Block, a: int, b: int) -> list[npt.NDArray[Any]]:
        lengths = dict(zip(self.order[1:], self.frame_shape, strict=True))
        index = tuple(slice(a, b) if c == "t" else slice(0, lengths[c]) for c in self.axes)
        expected = tuple(i.stop - i.start for i in index)
        pieces = []
        for name in block.variables:
            piece = self.format.load(block.file, name, index)
            if piece.size != int(np.prod(expected)):
                raise UserError(
                    f"{name or 'the array'} has changed its shape",
                    where=block.file,
                    fix="start again on the changed file",
                )
            order = [self.axes.index(c) for c in self.order]
            pieces.append(piece.reshape(expected).transpose(order))
        return pieces


Choose = Callable[[Sequence[StoredArray], Path], tuple[str, ...]]
"""Returns the variables that are meant, of those in a file; raises UserError where in doubt."""

Check = Callable[[Sequence[StoredArray], Path], None]
"""Raises UserError unless the variables of a block are of the kind that is wanted."""


def open_series(
    path: Path,
    *,
    axes: str,
    order: str,
    suffixes: Sequence[str],
    identify: Callable[[Path], IQFormat],
    choose: Choose,
    check: Check,
) -> FrameSeries:
    """Return the frames at ``path`` after checking all headers; values are read later.

    Parameters
    ----------
    path
        A file, or a folder of files numbered without gaps.
    axes, order
        Axes in the files, and of what is read.
    suffixes
        Endings of files that count.
    identify
        Returns the format of a file.
    choose
        Called on the first file. A name that ends in ``{:}`` stands for all cells of a cell
        array, in their order, each a block of frames.
    check
        Called on each block.

    Raises
    ------
    UserError
        Anything in the input that would spoil the result, naming the file.
    """
    files = _files(path, suffixes)
    format = identify(files[0])
    names = choose(format.arrays(files[0]), files[0])
    blocks: list[Block] = []
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    resident_bytes = 0
    for file in files:
        if type(identify(file)) is not type(format):
            raise UserError(
                f"is of another format than {files[0].name}",
                where=file,
                fix="keep files of one format in the folder",
            )
        arrays = format.arrays(file)
        for variables in _buffers(names, arrays, path=file):
            chosen = [_find(arrays, name, path=file) for name in variables]
            _refuse_empty(chosen, path=file)
            check(chosen, file)
            lengths = _axis_lengths(chosen, axes, drops_ones=format.drops_ones, path=file)
            here = tuple(lengths[c] for c in order[1:])
            if shape not in (None, here):
                what = "samples" if "s" in order else "pixels"
                raise UserError(
                    f"has frames of {here} {what} where {blocks[0].file.name} has {shape}",
                    where=file,
                    fix="keep blocks of one acquisition in the folder",
                )
            shape = here
            dtype = chosen[0].dtype if dtype is None else dtype
            _refuse_other_type(chosen, dtype, path=file, first=files[0])
            blocks.append(Block(file, variables, lengths["t"]))
            if format.loads_whole:
                # Two arrays stay in memory while the next is loaded.
                resident_bytes = max(resident_bytes, *(3 * array.n_bytes for array in chosen))
    return FrameSeries(tuple(blocks), axes, order, shape or (), format, resident_bytes, dtype or "")


def describe(arrays: Sequence[StoredArray]) -> str:
    """Return names, shapes and kinds of arrays, for messages."""
    shown = [
        f"{a.name or 'an array'} ({'×'.join(str(n) for n in a.shape)} {a.kind})" for a in arrays[:8]
    ]
    more = [f"and {len(arrays) - 8} more"] if len(arrays) > 8 else []
    return ", ".join(shown + more) or "nothing"


def _files(path: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    if not path.is_dir() or is_zarr(path):
        return (path,)
    return check_numbering(list_files(path, suffixes=suffixes, pattern=None), what="block")


def _buffers(
    names: tuple[str, ...], arrays: Sequence[StoredArray], *, path: Path
) -> list[tuple[str, ...]]:
    """Return the variables of each block of a file; cell arrays hold one in each cell."""
    if not any(name.endswith("{:}") for name in names):
        return [names]
    counts = {name: len(_cells(name, arrays)) for name in names}
    if min(counts.values()) == 0:
        raise UserError(
            f"has no cells {', '.join(names)}; it has {describe(arrays)}",
            where=path,
            fix="correct variable in the sample sheet",
        )
    if len(set(counts.values())) > 1:
        raise UserError(
            f"{' and '.join(names)} differ in the number of cells",
            where=path,
            fix="save I and Q of every buffer",
        )
    n_cells = counts[names[0]]
    return [tuple(n.replace("{:}", f"{{{k}}}") for n in names) for k in range(1, n_cells + 1)]


def _cells(name: str, arrays: Sequence[StoredArray]) -> list[StoredArray]:
    base = name.removesuffix("{:}")
    return [a for a in arrays if a.name != base and split_cell(a.name)[0] == base]


def _find(arrays: Sequence[StoredArray], name: str, *, path: Path) -> StoredArray:
    for array in arrays:
        if array.name == name:
            return array
    raise UserError(
        f"has no variable {name!r}; it has {describe(arrays)}",
        where=path,
        fix="correct variable in the sample sheet",
    )


def _refuse_empty(chosen: Sequence[StoredArray], *, path: Path) -> None:
    for array in chosen:
        if 0 in array.shape:
            raise UserError(
                f"{array.name or 'the array'} is empty, {array.shape}",
                where=path,
                fix="save it again",
            )


def _refuse_other_type(
    chosen: Sequence[StoredArray], dtype: str, *, path: Path, first: Path
) -> None:
    for array in chosen:
        if array.dtype != dtype:
            raise UserError(
                f"{array.name or 'the array'} holds {array.dtype} where {first.name} holds {dtype}",
                where=path,
                fix="save all of an acquisition in one type and to one scale",
            )


def _axis_lengths(
    chosen: Sequence[StoredArray], axes: str, *, drops_ones: bool, path: Path
) -> dict[str, int]:
    shape = chosen[0].shape
    if any(array.shape != shape for array in chosen):
        raise UserError(
            f"{describe(chosen)} differ in shape", where=path, fix="save I and Q of one shape"
        )
    if drops_ones:
        shape += (1,) * (len(axes) - len(shape))
    if len(shape) != len(axes):
        raise UserError(
            f"{describe(chosen)} has {len(shape)} axes, not the {len(axes)} of {axes}",
            where=path,
            fix="correct axes in the sample sheet",
        )
    return dict(zip(axes, shape, strict=True))
