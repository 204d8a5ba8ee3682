"""The files of one input: their names, their order, and their identity."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from vasculome.errors import UserError


@dataclass(frozen=True, eq=False)
class FileList(Sequence[Path]):
    """Files under one folder, kept as bytes: 400 tiles hold a million of them.

    A Path takes 300 bytes and a name here 20, in each worker that the list is pickled to.

    Attributes
    ----------
    folder
        Where the names start from.
    names
        Names relative to the folder, in the file system's encoding.
    """

    folder: Path
    names: npt.NDArray[np.bytes_]

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> FileList:
        """Return the list of ``names``, which are relative to ``folder``."""
        return cls(folder, np.array([os.fsencode(name) for name in names], np.bytes_))

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> FileList: ...
    def __getitem__(self, index: int | slice) -> Path | FileList:
        if isinstance(index, slice):
            return FileList(self.folder, self.names[index])
        return self.folder / os.fsdecode(bytes(self.names[index]))

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileList):
            return NotImplemented
        return self.folder == other.folder and np.array_equal(self.names, other.names)

    def __hash__(self) -> int:
        return hash((self.folder, self.names.tobytes()))

    def states(self) -> npt.NDArray[np.int64]:
        """Return size in bytes and modification time in ns of each file, int64 (files, 2).

        Raises
        ------
        UserError
            Naming the first file that cannot be found.
        """
        found = np.empty((len(self), 2), np.int64)
        folder = os.fsencode(self.folder) + os.fsencode(os.sep)
        for i, name in enumerate(self.names.tolist()):
            try:
                # A Path for each of a million files costs more than the system call.
                state = os.stat(folder + name)  # noqa: PTH116
            except OSError as error:
                raise unreadable(self[i], error) from error
            found[i] = state.st_size, state.st_mtime_ns
        return found


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Return a sort key by which ``plane2`` comes before ``plane10``."""
    pieces = re.split(r"(\d+)", name)
    return tuple(int(p) if i % 2 else p.lower() for i, p in enumerate(pieces)), name


def list_names(folder: Path, *, suffixes: Sequence[str], pattern: str | None) -> list[str]:
    """Return the names of the files of ``folder``, in no order.

    Parameters
    ----------
    folder
        An existing folder; hidden entries are passed over (``.DS_Store``, ``._plane.tif``).
    suffixes
        Endings that count, lower case, matched whatever the case.
    pattern
        Shell pattern that names must match besides, or None for all of them.

    Raises
    ------
    UserError
        No such folder, or no such file in it.
    """
    endings = tuple(suffixes)
    names = [
        name
        for name in entry_names(folder)
        if name.lower().endswith(endings) and (pattern is None or fnmatch(name, pattern))
    ]
    if not names:
        wanted = f"match {pattern!r} and end" if pattern else "end"
        raise UserError(
            f"holds no files that {wanted} in {' or '.join(suffixes)}",
            where=folder,
            fix="check path and pattern in the sample sheet",
        )
    return names


def list_files(folder: Path, *, suffixes: Sequence[str], pattern: str | None) -> tuple[Path, ...]:
    """Return the files of ``folder`` in natural order; parameters and errors as `list_names`."""
    names = list_names(folder, suffixes=suffixes, pattern=pattern)
    return tuple(folder / name for name in sorted(names, key=natural_key))


def entry_names(folder: Path) -> list[str]:
    """Return the names in ``folder`` that are not hidden; raises UserError if it is no folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]
    except NotADirectoryError as error:
        what = "is a file, not a folder"
        raise UserError(what, where=folder, fix="give the folder that holds the files") from error
    except FileNotFoundError as error:
        fix = "give the folder that holds the files"
        raise UserError("does not exist", where=folder, fix=fix) from error
    except OSError as error:
        raise unreadable(folder, error) from error


def fingerprint(files: Iterable[Path], *, detail: str = "") -> str:
    """Return a digest of names, sizes and modification times: the identity of an input.

    Pixels are not read, so that terabytes are identified at once.

    Parameters
    ----------
    files
        The files; a folder stands for all that it holds, at any depth.
    detail
        How the files are read where that changes the values (channel, variable, axes).
    """
    digest = hashlib.blake2b(detail.encode(), digest_size=16)
    if isinstance(files, FileList):
        digest.update(files.names.tobytes() + files.states().tobytes())
        return digest.hexdigest()
    for file in files:
        inside = sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]
        for path in inside:
            size, mtime_ns = file_state(path)
            name = path.relative_to(file.parent).as_posix()
            digest.update(f"\0{name}\0{size}\0{mtime_ns}".encode())
    return digest.hexdigest()


def file_state(path: Path) -> tuple[int, int]:
    """Return size in bytes and modification time in ns; raises UserError if it is not there."""
    try:
        stat = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return stat.st_size, stat.st_mtime_ns


def changed_ns(path: Path) -> int:
    """Return when a file, or what a folder holds, was last changed; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error to raise for a file that the system does not let us read."""
    if isinstance(error, FileNotFoundError):
        return UserError("does not exist", where=path, fix="check the path, or restore the file")
    return UserError(
        f"cannot be read ({error.strerror})", where=path, fix="check its rights and its disk"
    )
