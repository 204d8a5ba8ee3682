"""Which format a file with IQ has."""

from __future__ import annotations

from pathlib import Path

import h5py

from vasculome.errors import UserError
from vasculome.readers.files import file_state
from vasculome.readers.iq_arrays import IQFormat, readable
from vasculome.readers.iq_hdf5 import Hdf5Format
from vasculome.readers.iq_mat5 import Mat5Format
from vasculome.readers.iq_numpy import NpyFormat, NpzFormat
from vasculome.readers.iq_zarr import OpenZarr, ZarrFormat, is_zarr
from vasculome.readers.uff import UffImages

IQ_SUFFIXES = (".mat", ".h5", ".hdf5", ".uff", ".npy", ".npz", ".zarr")


def identify(path: Path, *, open_zarr: OpenZarr | None) -> IQFormat:
    """Return the format of a file or Zarr folder, by its ending and its first bytes.

    Raises
    ------
    UserError
        No such file, an empty one, or none of the known formats.
    ValueError
        A Zarr folder, but no ``open_zarr``.
    """
    if is_zarr(path):
        if open_zarr is None:
            raise ValueError("reading Zarr needs open_zarr")
        return ZarrFormat(open_zarr)
    size, _ = file_state(path)
    if size == 0:
        raise UserError("is empty (0 bytes)", where=path, fix="copy the file again")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return NpyFormat()
    if suffix == ".npz":
        return NpzFormat()
    if suffix in (".h5", ".hdf5", ".mat", ".uff"):
        if h5py.is_hdf5(path) and suffix == ".uff":
            return UffImages()
        if h5py.is_hdf5(path):
            return Hdf5Format(matlab=suffix == ".mat")
        if suffix == ".mat" and _first_bytes(path).startswith(b"MATLAB 5.0"):
            return Mat5Format()
        known = "MATLAB 5 to 7.3" if suffix == ".mat" else "HDF5"
        raise UserError(f"is not a {known} file", where=path, fix="save or copy it again")
    raise UserError(
        f"ends in {suffix!r}, which is no known format of IQ",
        where=path,
        fix=f"give one of {', '.join(IQ_SUFFIXES)}",
    )


def _first_bytes(path: Path) -> bytes:
    with readable(path), path.open("rb") as file:
        return file.read(16)
