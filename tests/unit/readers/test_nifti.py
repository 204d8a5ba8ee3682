import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.readers.nifti import is_nifti, read_nifti

CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "u2": 512}


def nifti_bytes(
    voxels: np.ndarray,
    *,
    order: str = "<",
    spacing: tuple[float, ...] = (1.5, 2.0, 3.0),
    units: int = 3,
    slope: float = 0.0,
    intercept: float = 0.0,
    offset: int = 352,
    magic: bytes = b"n+1\0",
) -> bytes:
    """Return a NIfTI-1 file of voxels (…, z, y, x), by the standard (Cox et al. 2004)."""
    shape = voxels.shape[::-1]
    header = bytearray(offset)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    code = CODES[voxels.dtype.str[1:]]
    struct.pack_into(f"{order}2h", header, 70, code, 8 * voxels.dtype.itemsize)
    struct.pack_into(f"{order}4f", header, 76, 1.0, *spacing)
    struct.pack_into(f"{order}3f", header, 108, offset, slope, intercept)
    header[123] = units
    header[344:348] = magic
    return bytes(header) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()


def volume(dtype: str = "u2") -> np.ndarray:
    return (np.arange(2 * 3 * 4).reshape(2, 3, 4) * 3).astype(dtype)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", CODES)
def test_volumes_come_back(tmp_path: Path, name: str, order: str, dtype: str) -> None:
    path = written(tmp_path / name, nifti_bytes(volume(dtype), order=order, offset=400))
    voxels, header = read_nifti(path)
    np.testing.assert_array_equal(voxels, volume(dtype))
    assert voxels.dtype == np.dtype(dtype)
    assert header.shape == (2, 3, 4)
    # x, y, z in the file.
    assert header.spacing_um == (3.0, 2.0, 1.5)
    assert is_nifti(path)


def test_units_and_scale_are_followed(tmp_path: Path) -> None:
    content = nifti_bytes(volume("i2"), units=2, slope=0.5, intercept=-1.0)
    voxels, header = read_nifti(written(tmp_path / "v.nii", content))
    np.testing.assert_allclose(voxels, 0.5 * volume() - 1)
    assert header.spacing_um == (3000.0, 2000.0, 1500.0)
    unitless = written(tmp_path / "w.nii", nifti_bytes(volume(), units=0))
    assert read_nifti(unitless)[1].spacing_um is None
    open_scale = nifti_bytes(volume(), slope=float("nan"), intercept=float("nan"))
    assert read_nifti(written(tmp_path / "n.nii", open_scale))[0].dtype == np.uint16


def test_one_time_and_one_channel_are_a_volume(tmp_path: Path) -> None:
    voxels, _ = read_nifti(written(tmp_path / "v.nii", nifti_bytes(volume()[None, None])))
    np.testing.assert_array_equal(voxels, volume())


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is no NIfTI-1 volume"),
        (b"\0" * 400, "is no NIfTI-1 volume"),
        (nifti_bytes(volume(), magic=b"ni1\0"), "in another file"),
        (nifti_bytes(volume())[:-1], "ends after 47 of 48 bytes"),
        (nifti_bytes(np.stack([volume()] * 2)), "4 × 3 × 2 × 2"),
        (nifti_bytes(volume()[0]), "4 × 3 where one volume"),
        (nifti_bytes(volume())[:70] + b"\x80\0" + nifti_bytes(volume())[72:], "code 128"),
    ],
)
def test_others_are_refused(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_nifti(written(tmp_path / "v.nii", content))


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (20, 30, 40)).astype(np.uint16)
    whole = gzip.compress(nifti_bytes(noise))
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"cut\.nii\.gz.*damaged"):
        read_nifti(cut)
    spoilt = tmp_path / "spoilt.nii.gz"
    spoilt.write_bytes(whole[:20000] + b"\xff" * 20 + whole[20020:])
    with pytest.raises(UserError, match=r"spoilt\.nii\.gz.*damaged"):
        read_nifti(spoilt)
    with pytest.raises(UserError, match="does not exist"):
        read_nifti(tmp_path / "none.nii")
