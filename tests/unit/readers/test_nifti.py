import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.readers.nifti import is_nifti, read_nifti, read_nifti_header

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
    told_offset: float | None = None,
    told_shape: tuple[int, ...] | None = None,
    sform: np.ndarray | None = None,
    qform: tuple[float, ...] | None = None,
) -> bytes:
    """Return a NIfTI-1 file of voxels (…, z, y, x), by the standard (Cox et al. 2004)."""
    shape = told_shape or voxels.shape[::-1]
    header = bytearray(offset)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    code = CODES[voxels.dtype.str[1:]]
    struct.pack_into(f"{order}2h", header, 70, code, 8 * voxels.dtype.itemsize)
    struct.pack_into(f"{order}4f", header, 76, 1.0, *spacing)
    begin = offset if told_offset is None else told_offset
    struct.pack_into(f"{order}3f", header, 108, begin, slope, intercept)
    if sform is not None:
        struct.pack_into(f"{order}h", header, 254, 1)
        struct.pack_into(f"{order}12f", header, 280, *np.ravel(sform))
    if qform is not None:
        struct.pack_into(f"{order}h", header, 252, 1)
        struct.pack_into(f"{order}6f", header, 256, *qform)
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
        (nifti_bytes(volume())[:-1], r"damaged \(it is too short for the 4 × 3 × 2 voxels"),
        (nifti_bytes(volume(), told_shape=(32767,) * 3), "too short for the 32767 × 32767"),
        (nifti_bytes(volume(), told_offset=np.nan), "said to begin at nan"),
        (nifti_bytes(volume(), told_offset=np.inf), "said to begin at inf"),
        (nifti_bytes(volume(), told_offset=-400), "said to begin at -400"),
        (nifti_bytes(volume(), told_offset=1e30), r"said to begin at 1e\+30"),
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


def test_packed_volumes_that_end_early_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "v.nii.gz"
    with pytest.raises(UserError, match="ends after 47 of 48 bytes"):
        read_nifti(written(path, nifti_bytes(volume())[:-1]))
    with pytest.raises(UserError, match="too short for the 32767"):
        read_nifti(written(path, nifti_bytes(volume(), told_shape=(32767,) * 3)))


def test_a_millimetre_is_no_size_of_voxels(tmp_path: Path) -> None:
    # What programs write that were told none.
    unset = nifti_bytes(volume(), spacing=(1.0, 1.0, 1.0), units=2)
    assert read_nifti_header(written(tmp_path / "v.nii", unset)).spacing_um is None
    flat = nifti_bytes(volume(), spacing=(1.0, 1.0, 2.0), units=2)
    assert read_nifti_header(written(tmp_path / "w.nii", flat)).spacing_um == (2e3, 1e3, 1e3)


def test_where_voxels_lie_is_told_by_matrix_or_quaternion(tmp_path: Path) -> None:
    rows = np.array([[0, -2, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7.0]])
    by_matrix = nifti_bytes(volume(), sform=rows)
    found = read_nifti_header(written(tmp_path / "s.nii", by_matrix)).affine
    np.testing.assert_allclose(found, rows)
    # A quarter turn about z, from x to y: cos 45° + k sin 45°.
    by_turn = nifti_bytes(volume(), qform=(0, 0, np.sin(np.pi / 4), 5, 6, 7))
    found = read_nifti_header(written(tmp_path / "q.nii", by_turn)).affine
    np.testing.assert_allclose(found, rows, atol=1e-6)
    assert read_nifti_header(written(tmp_path / "n.nii", nifti_bytes(volume()))).affine is None
