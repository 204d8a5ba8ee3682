"""Examples in the documentation run, and find what is there."""

import re
from pathlib import Path

import numpy as np
import pytest

from vasculome.metrics.localization import match
from vasculome.simulate.phantoms import ultrasound_phantom

ROOT = Path(__file__).resolve().parents[2]


def _run(document: str, *given: str, names: dict) -> dict:
    """Run the only example of a document, with what stands for its data."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)
    for placeholder, name in zip(("[...]", "np.array(...)"), given, strict=False):
        assert placeholder in code
        code = code.replace(placeholder, name, 1)
    exec(compile(code, document, "exec"), names)
    return names


def test_the_example_of_ultrasound_finds_bubbles_and_speeds():
    phantom = ultrasound_phantom(3, n_frames=300, shape=(60, 60), mean_bubbles=8)
    iq = np.concatenate(list(phantom.blocks))
    made = _run("ultrasound.md", "iq", names={"iq": [iq[:150], iq[150:]]})
    tracks, truth = made["tracks"], phantom.bubbles
    found_um = np.stack([tracks["z_um"], tracks["x_um"]], axis=1)
    i, j = match(tracks["frame"], found_um, truth.frame, truth.position_um, pair_distance=98.56 / 4)
    assert len(i) > 0.9 * len(found_um)
    assert len(i) > 0.5 * len(truth.frame)
    speed = np.hypot(tracks["vz_mm_s"], tracks["vx_mm_s"])[i]
    true_speed = np.linalg.norm(truth.velocity_mm_s[j], axis=1)
    assert np.median(np.abs(speed - true_speed) / true_speed) < 0.1


def test_the_example_of_simulation_makes_frames_and_their_truth():
    pytest.importorskip("pymust")
    made = _run("simulation.md", names={})
    assert made["iq"].shape == (100, 78, 118)
    bubbles, scanner = made["bubbles"], made["scanner"]
    assert bubbles.frame.min() >= 900 and bubbles.frame.max() == 999
    assert len(bubbles.frame) / 100 == pytest.approx(50, rel=0.5)
    # In depth, vessels and frames are at the same place.
    inside = (bubbles.position_um - [3000, 0]) / np.multiply((78, 118), 49.28)
    assert inside.min() > 0 and inside.max() < 1
    assert np.array_equal(scanner.frames(bubbles, 900, 1000), made["iq"])


def test_the_example_of_stitching_puts_tiles_back():
    scene = np.random.default_rng(0).random((64, 512, 512)).astype(np.float32)
    scene = np.cumsum(scene - 0.5, axis=0)  # something that correlates over some voxels
    starts = np.array([[0, 0, 0], [0, 0, 212], [0, 212, 0], [0, 212, 212]], float)
    tiles = [scene[:, int(y) : int(y) + 300, int(x) : int(x) + 300] for _, y, x in starts]
    stage = np.add(starts, [[0, 0, 0], [0, 3, -4], [0, -2, 5], [1, 1, 1]])
    made = _run("stitching.md", "tiles", "stage", names={"tiles": tiles, "stage": stage})
    np.testing.assert_allclose(made["starts"], starts, atol=0.02)
    inside = np.s_[1:-1, 1:-1, 1:-1]  # the rim lies a hundredth of a voxel beyond the tiles
    error = made["volume"][inside] - scene[inside]
    assert np.sqrt(np.mean(error**2)) < 0.02 * scene.std()


def test_the_example_of_microscopy_sees_a_volume():
    volume = np.random.default_rng(0).random((20, 64, 90)).astype(np.float32)
    made = _run("microscopy.md", "volume", names={"volume": volume})
    assert made["vessels"].shape == volume.shape
    assert 0 < made["part"].probability.min() < made["part"].probability.max() < 1
