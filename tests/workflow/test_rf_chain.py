"""RF from raw file to maps, bad RF files told in one line, and the memory that RF takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
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
from vasculome.metrics.localization import score_localization
from vasculome.stages.catalog import CATALOG
from vasculome.storage.tables import read_parts

RAT = {
    "sample": "new",
    "modality": "ultrasound",
    "path": "raw/new.npy",
    "format": "rf",
    "sequence": "raw/new.yaml",
    "spacing_um": "77,77",
    "frame_rate_hz": "1000",
}
ULTRASOUND = {
    "beamform": {"f_number": 1.0},
    "clutter": {"block_frames": 60, "keep_from": 2},
    # Side lobes of so few elements stand far above the noise, but below the bubbles.
    "localize": {"max_per_frame": 3},
    "track": {"min_length_frames": 5, "max_speed_mm_s": 120.0},
}
SPEED_UM_S, CENTER_HZ, SAMPLING_HZ = 1540e6, 5e6, 20e6
WAVELENGTH_UM = SPEED_UM_S / CENTER_HZ
ANGLES_DEG = [-5.0, 5.0]
N_ELEMENTS, N_SAMPLES, START_S = 32, 260, 5e-6
SEQUENCE = {
    "axes": "taes",
    "n_elements": N_ELEMENTS,
    "pitch_um": 150,
    "sampling_frequency_hz": SAMPLING_HZ,
    "center_frequency_hz": CENTER_HZ,
    "bandwidth_hz": 5e6,
    "speed_of_sound_m_s": SPEED_UM_S / 1e6,
    "start_time_s": START_S,
    "angles_deg": ANGLES_DEG,
    "time_zero": "origin",
    "element_width_um": 140,
}


def bubbles_um(n_frames: int) -> np.ndarray:
    """Return positions (t, bubble, z and x) of three bubbles that flow straight and turn back."""
    start = np.array([[5000.0, -1200.0], [7000.0, 900.0], [9000.0, -300.0]])
    step = np.array([[20.0, 8.0], [-15.0, -14.0], [-10.0, 12.0]])
    there = np.abs((np.arange(n_frames) + 60) % 120 - 60)
    return start + there[:, None, None] * step


def acquire(points_um: np.ndarray) -> np.ndarray:
    """Return RF (t, transmits, elements, samples) of points at their exact times of flight."""
    elements = np.zeros((N_ELEMENTS, 2))
    elements[:, 1] = (np.arange(N_ELEMENTS) - (N_ELEMENTS - 1) / 2) * 150
    angles = np.deg2rad(ANGLES_DEG)
    there = points_um @ np.stack([np.cos(angles), np.sin(angles)])
    back = np.linalg.norm(points_um[:, :, None] - elements, axis=3)
    delay_s = (there[..., None] + back[:, :, None]) / SPEED_UM_S
    time_s = START_S + np.arange(N_SAMPLES) / SAMPLING_HZ
    rf = np.random.default_rng(1).normal(
        0, 20, (len(points_um), len(angles), N_ELEMENTS, N_SAMPLES)
    )
    for bubble in range(points_um.shape[1]):
        late = time_s - delay_s[:, bubble, :, :, None]
        rf += 1000 * np.exp(-2 * (late * 3e6) ** 2) * np.cos(2 * np.pi * CENTER_HZ * late)
    return np.round(rf).astype(np.int16)


def write(raw: Path, rf: np.ndarray, **changes: object) -> None:
    np.save(raw / "new.npy", rf)
    told = {k: v for k, v in (SEQUENCE | changes).items() if v is not None}
    (raw / "new.yaml").write_text(yaml.safe_dump(told))


@pytest.fixture(scope="module")
def rf() -> np.ndarray:
    return acquire(bubbles_um(120))


# From RF to maps


def test_rf_goes_all_the_way(project, rf):
    write(project.folder / "raw", rf)
    project.write_config({"ultrasound": ULTRASOUND})
    project.write_samples(RAT)
    stages = [
        stage
        for stage, entry in CATALOG.items()
        if entry.modality == "ultrasound" and not entry.wanted
    ]
    for stage in (*stages, "sample_report"):
        ended = project.run_stage(stage, "new")
        assert ended.code == 0, ended.log
    folder = project.folder / "results/new"
    found = read_parts(folder / "detections")
    truth = bubbles_um(120)
    scores = score_localization(
        found["frame"],
        np.stack([found["z_um"], found["x_um"]], axis=1) / WAVELENGTH_UM,
        np.repeat(np.arange(120), 3),
        truth.reshape(-1, 2) / WAVELENGTH_UM,
        pair_distance=1 / 2,
    )
    assert scores.recall > 0.9
    assert scores.precision > 0.9
    assert scores.rmse < 0.1
    tracks = read_parts(folder / "tracks")
    speed = np.hypot(tracks["vz_mm_s"], tracks["vx_mm_s"])
    # 21.5, 20.5 and 15.6 µm a frame, less where they turn back.
    assert 15 < np.percentile(speed, 25) < np.percentile(speed, 80) < 22
    assert {"density.png", "resolution.png", "clutter.png"} <= {
        path.name for path in (folder / "figures").iterdir()
    }
    page = (folder / "report.html").read_text()
    assert all(word in page for word in ("beamform.f_number", "resolution (µm)", "gridding index"))


def test_the_workflow_knows_rf(project, rf):
    write(project.folder / "raw", rf)
    project.write_config({"ultrasound": ULTRASOUND})
    project.write_samples(BRAIN, MOSAIC, RAT)
    done = project.run("-n", "all_ulm_quality")
    assert done.returncode == 0, done.stderr
    planned = re.findall(r"^rule (\w+):", done.stdout, re.MULTILINE)
    assert {"ingest_iq", "localize", "track", "ulm_quality"} <= set(planned)


def test_a_sequence_that_changed_is_seen(project, rf):
    write(project.folder / "raw", rf)
    project.write_config({"ultrasound": ULTRASOUND})
    project.write_samples(RAT)
    assert project.run_stage("ingest_iq", "new").code == 0
    manifest = project.folder / "results/new/manifests/ingest_iq.json"
    before = manifest.read_text()
    write(project.folder / "raw", rf, speed_of_sound_m_s=1500)
    assert project.run_stage("ingest_iq", "new").code == 0
    assert manifest.read_text() != before


def test_memory_stays_under_the_bound_whatever_the_acquisition(project, rf):
    project.write_config({"ultrasound": ULTRASOUND})
    project.write_samples(RAT)
    peaks = []
    # More than a shard of images both, 80 and 320 MB of RF: holding all at once would show.
    for times in (40, 160):
        write(project.folder / "raw", np.tile(rf[:60], (times, 1, 1, 1)))
        ended = project.run_stage("ingest_iq", "new")
        assert ended.code == 0, ended.log
        peak = re.search(r"peak of the main process (\d+) MB", ended.log)
        bound = re.search(r"memory bound (\d+) MB", ended.log)
        assert peak and bound
        assert float(peak[1]) <= float(bound[1])
        peaks.append(float(peak[1]))
    assert peaks[1] < peaks[0] + 150


# Bad files

Damage = Callable[[Path, np.ndarray], dict[str, str] | None]


def no_sequence_named(raw: Path, rf: np.ndarray) -> dict[str, str]:
    write(raw, rf)
    return {"sequence": ""}


def no_sequence_file(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf)
    (raw / "new.yaml").unlink()


def sequence_is_no_yaml(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf)
    (raw / "new.yaml").write_text("axes: [t, a\n")


def unknown_key(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, pitch_mm=0.15)


def missing_key(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, center_frequency_hz=None)


def other_number_of_elements(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, n_elements=64)


def other_number_of_transmits(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, angles_deg=[-5, 0, 5])


def clock_not_told(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, time_zero=None)


def band_over_its_image(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, sampling_frequency_hz=11e6)


def frequencies_in_mhz(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, sampling_frequency_hz=20, center_frequency_hz=5, bandwidth_hz=5)


def focused_waves(raw: Path, rf: np.ndarray) -> None:
    path_um = np.hypot(7000.0, (np.arange(N_ELEMENTS) - (N_ELEMENTS - 1) / 2) * 150)
    delays = ((path_um.max() - path_um) / SPEED_UM_S).tolist()
    write(raw, rf, angles_deg=None, time_zero=None, transmit_delays_s=[delays, delays])


def files_of_two_types(raw: Path, rf: np.ndarray) -> dict[str, str]:
    write(raw, rf)
    (raw / "session").mkdir()
    np.save(raw / "session/new_1.npy", rf)
    np.save(raw / "session/new_2.npy", (rf / 32768).astype(np.float32))
    return {"path": "raw/session"}


def width_not_told(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf, element_width_um=None)


def complex_numbers(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf.astype(np.complex64))


def axes_in_the_sheet(raw: Path, rf: np.ndarray) -> dict[str, str]:
    write(raw, rf)
    return {"axes": "tzx"}


def volume_of_a_line(raw: Path, rf: np.ndarray) -> dict[str, str]:
    write(raw, rf)
    return {"spacing_um": "77,77,77"}


def other_wavelength(raw: Path, rf: np.ndarray) -> dict[str, str]:
    write(raw, rf)
    return {"wavelength_um": "98.56"}


def text_as_uff(raw: Path, rf: np.ndarray) -> dict[str, str]:
    (raw / "new.uff").write_text("the scan was aborted\n")
    return {"path": "raw/new.uff", "sequence": ""}


def hdf5_as_uff(raw: Path, rf: np.ndarray) -> dict[str, str]:
    with h5py.File(raw / "new.uff", "w") as file:
        file["RF"] = rf
    return {"path": "raw/new.uff", "sequence": ""}


def truncated(raw: Path, rf: np.ndarray) -> None:
    write(raw, rf)
    content = (raw / "new.npy").read_bytes()
    (raw / "new.npy").write_bytes(content[: len(content) // 2])


# Seen before anything runs: the place, the fault and what to do, as they are told.
BEFORE: dict[Damage, tuple[str, ...]] = {
    no_sequence_named: ("new.npy", "does not tell probe and sequence", "in the column sequence"),
    no_sequence_file: ("new.yaml", "does not exist", "check"),
    sequence_is_no_yaml: ("new.yaml", "is not YAML", "correct it"),
    unknown_key: ("new.yaml", "unknown key 'pitch_mm'", "keys are axes"),
    missing_key: ("new.yaml", "has no center_frequency_hz", "add center_frequency_hz"),
    other_number_of_elements: (
        "new.npy",
        "has 32 elements along axis e, the sequence has 64",
        "co",
    ),
    other_number_of_transmits: ("new.npy", "has 2 transmits along axis a", "correct axes"),
    clock_not_told: ("new.yaml", "the clock of start_time_s", "give time_zero"),
    band_over_its_image: ("new.yaml", "meets its mirror image", "at most 1e+06"),
    frequencies_in_mhz: ("new.yaml", "sampling_frequency_hz is 20", "in Hz, not MHz"),
    focused_waves: ("new.yaml", "transmit 0 of transmit_delays_s", "elsewhere"),
    files_of_two_types: ("new_2.npy", "float32 where new_1.npy holds int16", "in one type"),
    width_not_told: ("new.yaml", "does not tell element_width_um", "beamform.f_number"),
    complex_numbers: ("new.npy", "no real array", "name the one"),
    axes_in_the_sheet: ("samples.tsv", "axes of rf are told by its sequence", "config/README"),
    volume_of_a_line: ("sample new", "images with 2 axes, but spacing_um has 3", "give z,x"),
    other_wavelength: ("new.npy", "wavelength_um is 98.56, but 308", "correct the other"),
    text_as_uff: ("new.uff", "damaged", "again"),
    hdf5_as_uff: ("new.uff", "channel_data", "give"),
    truncated: ("new.npy", "truncated", "copy it again"),
}


def _add(project: Project, damage: Damage, rf: np.ndarray) -> None:
    """Add the sample `new` with something wrong in its files."""
    row = damage(project.folder / "raw", rf[:20]) or {}
    project.write_samples(BRAIN, MOSAIC, MOUSE, RAT | row)


@pytest.mark.parametrize("damage", BEFORE, ids=lambda d: d.__name__)
def test_seen_before_anything_runs(project, damage, rf):
    _add(project, damage, rf)
    with pytest.raises(UserError):
        check_raw_files(project)
    check_line(told_by(project.run_stage("ingest_iq", "new")), *BEFORE[damage])
    assert not [path for path in project.folder.glob("results/new/**/*") if path.is_file()]


def test_refused_by_snakemake(project, rf):
    _add(project, missing_key, rf)
    check_line(told_by_snakemake(project.run()), *BEFORE[missing_key])


def test_not_finite_is_seen_while_reading(project, rf):
    damaged = rf[:20].astype(np.float32)
    damaged[7, 0, 3, 100] = np.nan
    write(project.folder / "raw", damaged)
    project.write_config({"ultrasound": {"clutter": {"block_frames": 20}}})
    project.write_samples(BRAIN, MOSAIC, MOUSE, RAT)
    told = told_by(project.run_stage("ingest_iq", "new"))
    check_line(told, "new.npy", "frame 7 holds values that are not finite", "repair the frame")
    assert not (project.folder / "results/new/manifests/ingest_iq.json").exists()
