"""The echo of a bubble, from all its sources, and bubbles in the correlation with it."""

import importlib.util

import numpy as np
import pytest
from tiny_ultrasound import (
    BLOCK,
    N_FRAMES,
    SHAPE,
    SPACING_UM,
    WAVELENGTH_UM,
    both,
    ingested,
    job_of,
    run,
    scores,
    table_of,
)

from vasculome.config import parse_config
from vasculome.errors import UserError
from vasculome.geometry import Box, TileGrid
from vasculome.metrics.localization import match
from vasculome.simulate.echoes import PointSpread
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.simulate.psf_pymust import LinearArray, simulate_echoes
from vasculome.stages import job
from vasculome.stages.calibration import (
    CALIBRATION,
    PSF,
    cut_of,
    filtered_and_correlated,
    psf_of,
)
from vasculome.storage.arrays import open_array
from vasculome.ultrasound.clutter import svd_filter
from vasculome.ultrasound.columns import positions
from vasculome.ultrasound.correlate import correlation_map

LONG = 300
ONE_BLOCK = {"clutter": {"block_frames": LONG}}


@pytest.fixture(scope="module")
def phantom():
    return ultrasound_phantom(seed=4, n_frames=N_FRAMES, shape=SHAPE, mean_bubbles=8.0)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    """A folder in which the IQ is ingested."""
    return ingested(phantom, tmp_path_factory.mktemp("calibrate"))


@pytest.fixture(scope="module")
def long_phantom():
    """One block, long enough for many bubbles in each depth band."""
    return ultrasound_phantom(seed=1, n_frames=LONG, shape=(96, 96), mean_bubbles=15.0)


@pytest.fixture(scope="module")
def long_folder(long_phantom, tmp_path_factory):
    return ingested(long_phantom, tmp_path_factory.mktemp("long"))


def likeness(a, b):
    return abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)


def true_echo(depth_um, half_width):
    """The echo that the phantom draws, of a bubble in the middle of a pixel."""
    size = 2 * half_width + 1
    frame = np.zeros((1, size, 1, size), np.complex64)
    middle = half_width * SPACING_UM[0]
    PointSpread.typical(WAVELENGTH_UM).add(
        frame,
        np.zeros(1, np.int64),
        np.array([[middle, 0.0, middle]]),
        np.ones(1),
        np.array([SPACING_UM[0], 1.0, SPACING_UM[1]]),
        depth_um - middle,
    )
    return frame[0, :, 0]


@pytest.mark.parametrize("half_width", [2, 3])
def test_the_estimated_echo_is_the_one_that_was_simulated(long_folder, half_width):
    done, summary = run(long_folder, "calibrate", **ONE_BLOCK, psf={"half_width_px": half_width})
    psf = psf_of(done)
    assert psf.echoes.shape == (3, 2 * half_width + 1, 2 * half_width + 1)
    for depth_um, echo in zip(summary["psf_depth_um"], psf.echoes, strict=True):
        assert likeness(echo, true_echo(depth_um, half_width)) > 0.99
    assert (np.diff(summary["psf_depth_um"]) > 500).all()
    assert min(summary["psf_bubbles"]) >= 100
    assert summary["isolated_bubbles"] == sum(summary["psf_bubbles"])
    # Of the phantom: 0.42 λ, and 0.51 λ growing to the sides, as standard deviations.
    np.testing.assert_allclose(summary["axial_fwhm_wavelengths"], 0.42 * 2.355, rtol=0.04)
    lateral = 0.51 + 0.0033 * np.array(summary["psf_depth_um"]) / WAVELENGTH_UM
    np.testing.assert_allclose(summary["lateral_fwhm_wavelengths"], lateral * 2.355, rtol=0.05)
    np.testing.assert_allclose(
        np.array(summary["lateral_fwhm_um"]) / WAVELENGTH_UM,
        summary["lateral_fwhm_wavelengths"],
        atol=1e-3,
    )


def test_a_gaussian_has_its_width_and_the_carrier_of_the_frames(folder):
    done, summary = run(
        folder, "calibrate", psf={"source": "gaussian", "half_width_px": 3, "bands": 7}
    )
    np.testing.assert_allclose(summary["axial_fwhm_wavelengths"], [1.0], rtol=0.02)
    np.testing.assert_allclose(summary["lateral_fwhm_wavelengths"], [1.2], rtol=0.02)
    assert "psf_bubbles" not in summary
    # Less wide to the sides than the phantom's at this depth, but with its carrier.
    assert likeness(psf_of(done).echoes[0], true_echo(1500.0, 3)) > 0.97


def test_a_file_is_taken_as_it_is(folder, tmp_path):
    echo = true_echo(2000.0, 3)
    np.save(tmp_path / "psf.npy", echo)
    given = {"source": "file", "file": str(tmp_path / "psf.npy")}
    done, summary = run(folder, "calibrate", psf=given)
    assert summary["psf"] == "file"
    assert likeness(psf_of(done).echoes[0], echo) == pytest.approx(1, abs=1e-6)
    before = done.identity()
    np.save(tmp_path / "psf.npy", true_echo(9000.0, 3))
    assert done.identity() != before


def test_the_echo_of_another_sample_can_be_given(folder, tmp_path):
    done, _ = run(folder, "calibrate")
    learnt = psf_of(done)
    (tmp_path / "psf.npz").write_bytes((done.folder / CALIBRATION / PSF).read_bytes())
    given = {"source": "file", "file": str(tmp_path / "psf.npz")}
    again = psf_of(run(folder, "calibrate", psf=given)[0])
    np.testing.assert_allclose(again.echoes, learnt.echoes, atol=1e-6)
    np.testing.assert_allclose(again.depth_px, learnt.depth_px)


ONE = np.ones((5, 5))
BAD_FILES = {
    "missing": (None, "cannot be read"),
    "no array": (b"hello", "cannot be read"),
    "cut": (b"PK\x03\x04", "cannot be read"),
    "even": ({"echoes": np.ones((4, 5))}, "no middle voxel"),
    "3-D": ({"echoes": np.ones((5, 5, 5))}, "an echo of 3 axes for frames of 2"),
    "not by depth": ({"echoes": np.stack([ONE, ONE])}, "an echo of 3 axes"),
    "depths": ({"echoes": np.stack([ONE, ONE]), "depth_um": [900, 300]}, "do not go with"),
    "other name": ({"psf": ONE}, "holds psf, and no 'echoes'"),
    "text": ({"echoes": np.full((5, 5), "x")}, "echoes holds <U1 instead of numbers"),
    "empty": ({"echoes": np.zeros((5, 5))}, "empty in the middle"),
    "other pixels": ({"echoes": ONE, "spacing_um": [49.28, 60.0]}, "is drawn on pixels of"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_file_is_refused_before_anything_runs(folder, tmp_path, fault):
    content, says = BAD_FILES[fault]
    path = tmp_path / "psf.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    done = job_of(folder, "calibrate", {"psf": {"source": "file", "file": str(path)}})
    with pytest.raises(UserError, match=says) as caught:
        job.check_sample(done.config, done.sample)
    assert "psf.npz" in str(caught.value)


@pytest.mark.parametrize("psf", [{"source": "file"}, {"file": "psf.npy"}])
def test_a_file_is_given_where_it_is_taken(psf):
    with pytest.raises(UserError, match="'file' is needed with source: file, and only there"):
        parse_config({"ultrasound": {"psf": psf}}, where="config")


def test_an_echo_is_simulated_at_the_middle_of_each_band(folder):
    pytest.importorskip("pymust")
    probe = {"elements": 64, "first_depth_um": 4000.0, "angles_deg": [0.0]}
    psf = {"source": "simulated", "bands": 2, "probe": probe}
    done, summary = run(folder, "calibrate", psf=psf)
    middles = np.array([17.5, 53.5])
    offsets_um = SPACING_UM[0] * np.arange(-2, 3)
    truth = simulate_echoes(
        LinearArray(
            frequency_hz=1540e6 / WAVELENGTH_UM, n_elements=64, width_um=90.0, angles_deg=(0.0,)
        ),
        depth_um=(4000 + 49.28 * middles).tolist(),
        offsets_um=(offsets_um, offsets_um),
    )
    found = psf_of(done)
    for echo, expected in zip(found.echoes, truth, strict=True):
        assert likeness(echo, expected) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.depth_px, middles)
    assert summary["psf"] == "simulated"


def test_what_an_echo_cannot_be_simulated_from_is_told(folder, monkeypatch):
    done = job_of(folder, "calibrate", {"psf": {"source": "simulated"}})
    real = importlib.util.find_spec
    for known, says in ((True, "how deep its first row is"), (False, "pip install pymust")):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, known=known: (known or None) if name == "pymust" else real(name),
        )
        with pytest.raises(UserError, match=says):
            job.check_sample(done.config, done.sample)


def test_too_few_bubbles_end_only_what_needs_their_echo(folder):
    run(folder, "calibrate")
    few = {"psf": {"min_bubbles": 100_000}}
    done, summary = run(folder, "calibrate", **few)
    assert summary["psf"] == "unknown"
    assert "isolated bubbles, not 100000" in summary["psf_unknown_because"]
    assert not (done.folder / CALIBRATION / PSF).exists()
    _, found = run(folder, "localize", **few)
    assert found["detections"] > 1000
    with pytest.raises(UserError, match=r"echo of a single bubble is not known: only \d+ isolated"):
        run(folder, "localize", **few, localize={"detect_on": "correlation"})


# Bubbles in the correlation with their echo


def test_bubbles_are_found_in_the_correlation(long_folder, long_phantom):
    sample_folder, _ = both(long_folder, **ONE_BLOCK)
    bright, magnitude = table_of(sample_folder), scores(sample_folder, long_phantom)
    sample_folder, _ = both(long_folder, **ONE_BLOCK, localize={"detect_on": "correlation"})
    table, found = table_of(sample_folder), scores(sample_folder, long_phantom)
    assert found.precision > 0.75
    assert found.recall > magnitude.recall - 0.1
    assert found.rmse < 0.13
    assert table["correlation"].min() > 0.65 and table["correlation"].max() <= 1
    # Amplitudes are still those of the IQ, of the same bubbles.
    i, j = match(
        table["frame"], positions(table), bright["frame"], positions(bright), pair_distance=15.0
    )
    assert len(i) > 0.7 * len(bright["frame"])
    ratio = table["amplitude"][i] / bright["amplitude"][j]
    assert np.median(ratio) == pytest.approx(1, abs=1e-6) and np.quantile(ratio, 0.05) > 0.8


def test_noise_hides_fewer_bubbles_in_the_correlation(long_phantom, tmp_path):
    noisy = ultrasound_phantom(
        seed=1, n_frames=LONG, shape=(96, 96), mean_bubbles=15.0, noise_db=-8.0
    )
    folder = ingested(noisy, tmp_path)
    how = {"psf": {"source": "gaussian"}, **ONE_BLOCK}
    bright = scores(both(folder, **how, localize={"threshold_snr": 3.0})[0], long_phantom)
    found = scores(
        both(folder, **how, localize={"detect_on": "correlation", "min_correlation": 0.6})[0],
        long_phantom,
    )
    assert found.jaccard > bright.jaccard + 0.05


def test_a_higher_correlation_leaves_fewer_bubbles(folder):
    found = {}
    for least in (0.65, 0.85):
        how = {"detect_on": "correlation", "min_correlation": least}
        sample_folder, _ = both(folder, localize=how)
        found[least] = table_of(sample_folder)
    kept = found[0.65]["correlation"] > 0.85
    assert 0 < kept.sum() < 0.95 * len(kept)
    assert len(found[0.85]["frame"]) == kept.sum()


def test_no_bubble_in_the_correlation_names_its_threshold(folder):
    with pytest.raises(UserError, match=r"lower ultrasound\.localize\.min_correlation"):
        both(folder, localize={"detect_on": "correlation", "min_correlation": 1.0})


def test_a_block_and_its_correlation(folder):
    done, _ = run(folder, "calibrate", clutter={"randomized": False})
    iq = open_array(done.folder / "iq.zarr")
    tile = list(TileGrid(Box.of_shape((N_FRAMES,)), (BLOCK,), (0,)))[1]
    psf = psf_of(done)
    filtered, correlation = filtered_and_correlated(
        iq, tile, clutter=done.config.ultrasound.clutter, cut=cut_of(done), psf=psf
    )
    truth = svd_filter(np.load(folder / "iq.npy")[BLOCK : 2 * BLOCK], keep_from=10)
    np.testing.assert_allclose(filtered, truth, atol=1e-4 * np.abs(truth).max())
    np.testing.assert_array_equal(correlation, correlation_map(filtered, psf))
