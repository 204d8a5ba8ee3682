"""Bad ultrasound files: one clear line that names the file, and earlier results as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import zarr
from tiny_project import (
    BRAIN,
    MOSAIC,
    MOUSE,
    Project,
    check_line,
    check_raw_files,
    told_by,
    told_by_snakemake,
)

from vasculome.errors import UserError

_RNG = np.random.default_rng(0)
IQ = (_RNG.normal(size=(30, 16, 20)) + 1j * _RNG.normal(size=(30, 16, 20))).astype(np.complex64)
NEW = {**MOUSE, "sample": "new", "path": "raw/new.npy"}

Damage = Callable[[Path], dict[str, str] | None]


def real_numbers(raw: Path) -> None:
    np.save(raw / "new.npy", IQ.real)


def text_numbers(raw: Path) -> None:
    np.save(raw / "new.npy", np.full((30, 16, 20), "0.1"))


def pickled_objects(raw: Path) -> None:
    np.save(raw / "new.npy", np.array([{"IQ": 1}], dtype=object), allow_pickle=True)


def too_many_axes(raw: Path) -> None:
    np.save(raw / "new.npy", IQ[None])


def volume_with_two_spacings(raw: Path) -> dict[str, str]:
    np.save(raw / "new.npy", IQ[:, None])
    return {"axes": "tzyx"}


def no_frames(raw: Path) -> None:
    np.save(raw / "new.npy", IQ[:0])


def zero_bytes(raw: Path) -> None:
    (raw / "new.npy").write_bytes(b"")


def truncated(raw: Path) -> None:
    np.save(raw / "new.npy", IQ)
    content = (raw / "new.npy").read_bytes()
    (raw / "new.npy").write_bytes(content[: len(content) // 2])


def text_file(raw: Path) -> None:
    (raw / "new.npy").write_text("the scan was aborted\n")


def no_file(raw: Path) -> None:
    """Nothing is written: the path leads nowhere."""


def unknown_ending(raw: Path) -> dict[str, str]:
    (raw / "new.rf").write_bytes(b"RF" * 100)
    return {"path": "raw/new.rf"}


def no_frame_rate(raw: Path) -> dict[str, str]:
    np.save(raw / "new.npy", IQ)
    return {"frame_rate_hz": ""}


def no_wavelength(raw: Path) -> dict[str, str]:
    np.save(raw / "new.npy", IQ)
    return {"wavelength_um": "", "center_frequency_hz": "15.6e6"}


def wavelengths_that_differ(raw: Path) -> dict[str, str]:
    np.save(raw / "new.npy", IQ)
    return {"center_frequency_hz": "5e6", "speed_of_sound_m_s": "1540"}


def variable_missing_in_mat(raw: Path) -> dict[str, str]:
    scipy.io.savemat(raw / "new.mat", {"frames": IQ})
    return {"path": "raw/new.mat", "variable": "IQ"}


def variable_missing_in_npz(raw: Path) -> dict[str, str]:
    np.savez(raw / "new.npz", frames=IQ)
    return {"path": "raw/new.npz", "variable": "IQ"}


def several_variables(raw: Path) -> dict[str, str]:
    np.savez(raw / "new.npz", left=IQ, right=IQ)
    return {"path": "raw/new.npz"}


def parts_of_two_shapes(raw: Path) -> dict[str, str]:
    np.savez(raw / "new.npz", I=IQ.real, Q=IQ.imag[:-1])
    return {"path": "raw/new.npz", "variable": "I,Q"}


def structure_in_mat(raw: Path) -> dict[str, str]:
    scipy.io.savemat(raw / "new.mat", {"IQ": {"frames": IQ}})
    return {"path": "raw/new.mat", "variable": "IQ"}


def truncated_mat(raw: Path) -> dict[str, str]:
    scipy.io.savemat(raw / "new.mat", {"IQ": IQ})
    content = (raw / "new.mat").read_bytes()
    (raw / "new.mat").write_bytes(content[: len(content) // 2])
    return {"path": "raw/new.mat"}


def text_as_mat(raw: Path) -> dict[str, str]:
    (raw / "new.mat").write_text("the scan was aborted\n" * 100)
    return {"path": "raw/new.mat"}


def rate_that_differs(raw: Path) -> dict[str, str]:
    with h5py.File(raw / "new.h5", "w") as file:
        file["IQ"] = IQ
        file.attrs["frame_rate_hz"] = 500.0
    return {"path": "raw/new.h5"}


def rate_of_nothing(raw: Path) -> dict[str, str]:
    with h5py.File(raw / "new.h5", "w") as file:
        file["IQ"] = IQ
        file.attrs["frame_rate_hz"] = 0.0
    return {"path": "raw/new.h5", "frame_rate_hz": ""}


def truncated_hdf5(raw: Path) -> dict[str, str]:
    with h5py.File(raw / "new.h5", "w") as file:
        file["IQ"] = IQ
    content = (raw / "new.h5").read_bytes()
    (raw / "new.h5").write_bytes(content[: len(content) // 2])
    return {"path": "raw/new.h5"}


def damaged_zarr(raw: Path) -> dict[str, str]:
    array = zarr.create_array(raw / "new.zarr", shape=IQ.shape, dtype="c8", chunks=(10, 16, 20))
    array[...] = IQ
    (raw / "new.zarr/zarr.json").write_text('{"zarr_format": 3, "node_ty')
    return {"path": "raw/new.zarr"}


def _write_blocks(raw: Path, *blocks: np.ndarray) -> None:
    (raw / "new").mkdir()
    for number, block in enumerate(blocks):
        np.save(raw / f"new/block_{number}.npy", block)


def block_missing(raw: Path) -> dict[str, str]:
    _write_blocks(raw, IQ, IQ, IQ, IQ)
    (raw / "new/block_1.npy").unlink()
    return {"path": "raw/new"}


def blocks_of_two_shapes(raw: Path) -> dict[str, str]:
    _write_blocks(raw, IQ, IQ[:, :8])
    return {"path": "raw/new"}


def no_blocks(raw: Path) -> dict[str, str]:
    _write_blocks(raw)
    return {"path": "raw/new"}


def frame_not_finite(raw: Path) -> None:
    damaged = IQ.copy()
    damaged[17, 3, 4] = np.nan
    np.save(raw / "new.npy", damaged)


def damaged_zarr_chunk(raw: Path) -> dict[str, str]:
    array = zarr.create_array(raw / "new.zarr", shape=IQ.shape, dtype="c8", chunks=(10, 16, 20))
    array[...] = IQ
    (raw / "new.zarr/c/1/0/0").write_bytes(b"damage")
    return {"path": "raw/new.zarr"}


# What is seen before anything runs: the file, the fault and what to do, as they are told.
BEFORE: dict[Damage, tuple[str, ...]] = {
    real_numbers: ("new.npy", "IQ must be complex", "as I,Q"),
    text_numbers: ("new.npy", "<U3", "check axes"),
    pickled_objects: ("new.npy", "holds objects", "save it as plain numbers"),
    too_many_axes: ("new.npy", "1×30×16×20", "check axes"),
    volume_with_two_spacings: ("samples.tsv", "axes must name each of t, x, z once"),
    no_frames: ("new.npy", "the array is empty", "save it again"),
    zero_bytes: ("new.npy", "is empty (0 bytes)", "copy the file again"),
    truncated: ("new.npy", "is damaged, truncated", "copy it again"),
    text_file: ("new.npy", "is damaged, truncated", "copy it again"),
    no_file: ("new.npy", "does not exist", "check the path"),
    unknown_ending: ("new.rf", "'.rf'", "give one of .mat"),
    no_frame_rate: ("new.npy", "does not tell frame_rate_hz", "fill the column frame_rate_hz"),
    no_wavelength: ("new.npy", "does not tell wavelength_um", "or center_frequency_hz and"),
    wavelengths_that_differ: ("new.npy", "wavelength_um is 98.56, but 308", "correct the other"),
    variable_missing_in_mat: ("new.mat", "no variable 'IQ'; it has frames", "correct variable"),
    variable_missing_in_npz: ("new.npz", "no variable 'IQ'; it has frames", "correct variable"),
    several_variables: ("new.npz", "several complex arrays: left", "name the one"),
    parts_of_two_shapes: ("new.npz", "differ in shape", "I and Q of one shape"),
    structure_in_mat: ("new.mat", "IQ is of type struct", "one array of complex numbers"),
    truncated_mat: ("new.mat", "truncated", "again"),
    text_as_mat: ("new.mat", "is not a MATLAB 5 to 7.3 file", "save or copy it again"),
    rate_that_differs: ("new.h5", "frame_rate_hz is 500, but 1000 by the sample sheet", "correct"),
    rate_of_nothing: ("new.h5", "frame_rate_hz is '0.0', not a positive number", "correct it"),
    truncated_hdf5: ("new.h5", "truncated", "copy it again"),
    damaged_zarr: ("new.zarr", "is damaged, truncated", "copy it again"),
    block_missing: ("block_1.npy", "block 1 is missing", "restore the block"),
    blocks_of_two_shapes: ("block_1.npy", "(8, 20) pixels where block_0.npy has", "one acquis"),
    no_blocks: ("raw/new", "holds no files", "check path"),
}
# What only reading shows.
WHILE_READING: dict[Damage, tuple[str, ...]] = {
    frame_not_finite: ("new.npy", "frame 17 holds values that are not finite", "repair the frame"),
    damaged_zarr_chunk: ("new.zarr", "is damaged, truncated", "copy it again"),
}


def _add(project: Project, damage: Damage) -> None:
    """Add the sample `new` with something wrong in its files."""
    row = damage(project.folder / "raw") or {}
    project.write_samples(BRAIN, MOSAIC, MOUSE, NEW | row)


@pytest.mark.parametrize("damage", BEFORE, ids=lambda d: d.__name__)
def test_seen_before_anything_runs(project, damage):
    _add(project, damage)
    with pytest.raises(UserError):
        check_raw_files(project)
    check_line(told_by(project.run_stage("ingest_iq", "new")), *BEFORE[damage])
    assert not [path for path in project.folder.glob("results/new/**/*") if path.is_file()]


@pytest.mark.parametrize("damage", WHILE_READING, ids=lambda d: d.__name__)
def test_seen_while_reading(project, damage):
    _add(project, damage)
    check_raw_files(project)
    check_line(told_by(project.run_stage("ingest_iq", "new")), *WHILE_READING[damage])
    assert not (project.folder / "results/new/manifests/ingest_iq.json").exists()


def test_refused_by_snakemake(project):
    _add(project, no_frame_rate)
    check_line(told_by_snakemake(project.run()), *BEFORE[no_frame_rate])
