"""Blocks of frames, pauses of the recording, and what a filter makes of the ends of both."""

import numpy as np
import pytest
from tiny_ultrasound import job_of

from vasculome.config import ClutterConfig
from vasculome.errors import UserError
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.stages import job
from vasculome.stages.clutter_filter import filtered_block, frame_blocks
from vasculome.storage.tables import read_parts
from vasculome.ultrasound.bandpass import bandpass

N_FRAMES, RUN = 240, 120


class _InMemory:
    """IQ as the filter sees it."""

    def __init__(self, iq, frames_per_run):
        self.iq, self.shape = iq, iq.shape
        self.attributes = {"frame_rate_hz": 1000.0, "frames_per_run": frames_per_run}

    def read(self, box):
        return self.iq[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]


@pytest.mark.parametrize(
    ("frames_per_run", "wanted", "length"),
    [(800, 500, 400), (800, 1000, 800), (797, 500, 797), (None, 500, 480)],
)
def test_no_block_spans_a_pause(frames_per_run, wanted, length):
    clutter = ClutterConfig(block_frames=wanted)
    n_frames = 2400 if frames_per_run is None else 3 * frames_per_run
    grid = frame_blocks(n_frames, clutter, frames_per_run=frames_per_run)
    assert grid.core_shape == (length,)
    for tile in grid if frames_per_run else ():
        assert tile.core.start[0] // frames_per_run == (tile.core.stop[0] - 1) // frames_per_run


@pytest.mark.parametrize("frames_per_run", [600, 300])
def test_the_bandpass_filter_leaves_no_seams(frames_per_run):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 600, 6, 5))
    time_s = np.arange(600)[:, None, None] / 1000
    tissue = 1000 * np.exp(2j * np.pi * (8 * time_s + rng.random((6, 5))))
    iq = (tissue + noise[0] + 1j * noise[1]).astype(np.complex64)
    clutter = ClutterConfig(method="bandpass", block_frames=100)
    grid = frame_blocks(600, clutter, frames_per_run=frames_per_run)
    stored = _InMemory(iq, frames_per_run)
    blocks = np.concatenate([filtered_block(stored, tile, clutter, None) for tile in grid])
    assert blocks.shape == iq.shape
    for start in range(0, 600, frames_per_run):
        run = slice(start, start + frames_per_run)
        whole = bandpass(iq[run], frame_rate_hz=1000.0)
        inside = np.abs(blocks[run][20:-20])
        np.testing.assert_allclose(blocks[run][20:-20], whole[20:-20], atol=0.05)
        # What tissue leaves at the ends of a run would be taken for bubbles.
        assert np.abs(whole).max() > 2 * inside.max()
        assert not blocks[run][:20].any()
        assert not blocks[run][-20:].any()


def test_no_track_spans_a_pause(tmp_path):
    phantom = ultrasound_phantom(seed=4, n_frames=N_FRAMES, shape=(56, 60), mean_bubbles=6.0)
    np.save(tmp_path / "iq.npy", np.concatenate(list(phantom.blocks)))
    spanning = {}
    for frames_per_run in (None, RUN):
        for stage in ("ingest_iq", "calibrate", "localize", "track"):
            done = job_of(tmp_path, stage, {"clutter": {"block_frames": 60}})
            sample = done.sample.model_copy(update={"frames_per_run": frames_per_run})
            job.execute(job.Job(stage, done.config, sample))
        tracks = read_parts(done.folder / "tracks")
        early = {t for t, f in zip(tracks["track"], tracks["frame"], strict=True) if f < RUN}
        late = {t for t, f in zip(tracks["track"], tracks["frame"], strict=True) if f >= RUN}
        assert len(early) > 3
        assert len(late) > 3
        spanning[frames_per_run] = len(early & late)
    assert spanning[None] > 0
    assert spanning[RUN] == 0


def test_runs_that_do_not_fill_the_acquisition_are_refused(tmp_path):
    np.save(tmp_path / "iq.npy", np.ones((100, 8, 8), np.complex64))
    done = job_of(tmp_path, "ingest_iq")
    sample = done.sample.model_copy(update={"frames_per_run": 30})
    with pytest.raises(UserError, match="no multiple of frames_per_run"):
        job.execute(job.Job("ingest_iq", done.config, sample))
