"""IQ frames of an ultrasound acquisition: bubbles, tissue clutter and noise, streamed by blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread, add_echoes
from vasculome.simulate.speckle import Tissue, TissueMotion


def make_iq(
    bubbles: BubbleTable,
    *,
    shape: Sequence[int],
    n_frames: int,
    spacing_um: Sequence[float],
    frame_rate_hz: float,
    psf: PointSpread,
    seed: int,
    clutter_db: float = 30.0,
    noise_db: float = -20.0,
    motion: TissueMotion | None = None,
    origin_um: Sequence[float] | None = None,
    block_frames: int = 100,
) -> Iterator[NDArray[np.complex64]]:
    """Yield IQ frames with bubbles, moving tissue and white noise.

    Each frame's noise has a seed of its own, so that the block size changes nothing. Bubbles do
    not move with the tissue: their table stays the truth.

    Parameters
    ----------
    bubbles
        Truth, numbered from frame 0.
    shape
        Pixels of a frame (z, [y,] x).
    clutter_db, noise_db
        Root-mean-square of tissue, and of noise, over the peak of a bubble of amplitude 1;
        ``-inf`` leaves either out.
    block_frames
        Frames yielded at a time.

    Yields
    ------
    numpy.ndarray
        Complex64 (frames, z, [y,] x), ``block_frames`` of them but for the last.
    """
    tissue = Tissue(
        shape,
        spacing_um=spacing_um,
        psf=psf,
        frame_rate_hz=frame_rate_hz,
        motion=motion or TissueMotion(),
        rng=np.random.default_rng(seed),
    )
    clutter, noise = 10 ** (clutter_db / 20), 10 ** (noise_db / 20)
    for first in range(0, n_frames, block_frames):
        frames = range(first, min(first + block_frames, n_frames))
        iq = np.zeros((len(frames), *shape), dtype=np.complex64)
        for i, frame in enumerate(frames):
            if clutter > 0:
                iq[i] += np.float32(clutter) * tissue.frame(frame)
            if noise > 0:
                iq[i] += np.float32(noise) * _white_noise(shape, seed, frame)
        add_echoes(
            iq, bubbles, first_frame=first, spacing_um=spacing_um, psf=psf, origin_um=origin_um
        )
        yield iq


def _white_noise(shape: Sequence[int], seed: int, frame: int) -> NDArray[np.complex64]:
    """Return circular complex noise of root-mean-square 1, the same for the same seed and frame."""
    # The frame sits in the counter's last word, which one frame's draws never reach.
    source = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, frame]))
    parts = source.standard_normal((*shape, 2), dtype=np.float32)
    return parts.view(np.complex64)[..., 0] * np.float32(np.sqrt(0.5))
