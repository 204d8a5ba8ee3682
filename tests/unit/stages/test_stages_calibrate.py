"""Where the clutter filter cuts, as the first block of frames tells."""

import numpy as np
import pytest
from tiny_ultrasound import BLOCK, N_FRAMES, SHAPE, both, ingested, job_of, run, scores

from vasculome.errors import UserError
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages import job
from vasculome.stages.calibration import BOUNDS, CALIBRATION, PSF, cut_of
from vasculome.storage.bundles import read_bundle
from vasculome.ultrasound.clutter_bounds import find_bounds


@pytest.fixture(scope="module")
def phantom():
    return ultrasound_phantom(seed=4, n_frames=N_FRAMES, shape=SHAPE, mean_bubbles=8.0)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    """A folder in which the IQ is ingested."""
    return ingested(phantom, tmp_path_factory.mktemp("calibrate"))


def detections(sample_folder):
    return {path.name: path.read_bytes() for path in sorted(sample_folder.glob("detections/*"))}


def first_block(folder):
    return np.load(folder / "iq.npy")[:BLOCK]


@pytest.mark.parametrize("keep_to", ["similarity", "noise", None])
@pytest.mark.parametrize("keep_from", ["centroid", "similarity", 7])
def test_the_cut_is_what_the_first_block_proposes(folder, keep_from, keep_to):
    done, found = run(folder, "calibrate", clutter={"keep_from": keep_from, "keep_to": keep_to})
    bounds = find_bounds(first_block(folder), frame_rate_hz=1000.0)
    proposed = {
        key: getattr(bounds, key)
        for key in (
            "keep_from_centroid",
            "keep_from_similarity",
            "keep_to_similarity",
            "keep_to_noise",
        )
    }
    assert {key: found[key] for key in proposed} == proposed
    cut = cut_of(done)
    assert cut.keep_from == proposed.get(f"keep_from_{keep_from}", 7)
    assert cut.keep_to == proposed.get(f"keep_to_{keep_to}")
    assert (found["keep_from"], found["keep_to"]) == (cut.keep_from, cut.keep_to)


@pytest.mark.parametrize(
    "adaptive",
    [
        {"keep_from": "centroid"},
        {"keep_from": "centroid", "keep_to": "noise", "randomized": False},
        {"keep_from": "similarity", "keep_to": "similarity"},
    ],
    ids=str,
)
def test_a_cut_that_is_found_is_that_cut_in_every_block(folder, adaptive):
    sample_folder, found = both(folder, clutter=adaptive)
    by_itself = detections(sample_folder)
    said = {key: found[key] for key in ("keep_from", "keep_to")}
    both(folder, clutter={**adaptive, **said})
    assert detections(sample_folder) == by_itself


def test_the_cut_parts_tissue_from_blood(folder, phantom):
    # Tissue moves by fractions of a wavelength: a few vectors hold it, and no bubble.
    sample_folder, found = both(folder, clutter={"keep_from": "centroid"})
    assert 3 <= found["keep_from"] <= 12
    adaptive = scores(sample_folder, phantom).jaccard
    too_low = scores(both(folder, clutter={"keep_from": 2})[0], phantom).jaccard
    assert adaptive > max(0.6, too_low + 0.2)


def test_a_rerun_does_not_calibrate_again(folder):
    done, before = run(folder, "calibrate")
    made = [done.folder / CALIBRATION / name for name in (BOUNDS, PSF)]
    inodes = [path.stat().st_ino for path in made]
    done.manifest_path("calibrate").unlink()
    _, after = run(folder, "calibrate")
    assert after == before
    assert [path.stat().st_ino for path in made] == inodes


def test_the_evidence_is_of_the_first_block(folder):
    done, _ = run(folder, "calibrate")
    evidence = read_bundle(done.folder / CALIBRATION / BOUNDS)
    block = first_block(folder).reshape(BLOCK, -1).astype(complex)
    np.testing.assert_allclose(
        evidence["singular_values"], np.linalg.svd(block, compute_uv=False), rtol=1e-4
    )


def test_the_bandpass_filter_needs_no_cut(folder, phantom):
    run(folder, "calibrate")
    sample_folder, summary = both(folder, clutter={"method": "bandpass"})
    assert "keep_from" not in summary
    assert {path.name for path in (sample_folder / CALIBRATION).iterdir()} == {PSF}
    # Slow bubbles go with the tissue, and what is found is where bubbles are.
    found = scores(sample_folder, phantom)
    assert found.precision > 0.5
    assert found.recall > 0.3


@pytest.mark.parametrize(
    ("clutter", "says"),
    [
        ({"method": "bandpass", "band_hz": [50, 500]}, "not below half the frame rate"),
        ({"keep_from": "centroid", "band_hz": [600, 700]}, "not below half the frame rate"),
        ({"keep_from": "centroid", "block_frames": 4}, "a block of 4 frames is too short"),
        ({"keep_from": 2, "block_frames": 6}, "a block of 6 frames is too short"),
        ({"method": "bandpass", "block_frames": 10}, "too short: the filter needs 16"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_work_is_refused_before_anything_runs(folder, clutter, says):
    done = job_of(folder, "calibrate", {"clutter": clutter})
    with pytest.raises(UserError, match=says):
        job.check_sample(done.config, done.sample)


@pytest.mark.parametrize(
    ("clutter", "says"),
    [
        ({"keep_from": "centroid", "band_hz": [480, 490]}, "is faster than 480 Hz"),
        ({"keep_from": 79, "keep_to": "noise"}, "would be kept: none"),
    ],
    ids=str,
)
def test_a_cut_that_leaves_nothing_is_told(folder, clutter, says):
    with pytest.raises(UserError, match=says):
        run(folder, "calibrate", clutter=clutter)
