"""IQ frames of an ultrasound acquisition: bubbles, tissue clutter and noise, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import Psf, add_echoes
from vasculome.simulate.noise import complex_noise
from vasculome.simulate.speckle import Tissue, TissueMotion

_CHUNK_FRAMES = 8


class Scanner:
    """Makes IQ frames; any frame can be asked for at any time, with the same bytes.

    Bubbles do not move with the tissue: their table stays the truth.

    Parameters
    ----------
    shape
        Pixels of a frame (z, [y,] x).
    spacing_um, origin_um
        Pixel size, and centre of pixel 0 (0 by default); z is the depth below the array.
    frame_rate_hz
        Frames a second.
    psf
        Echo of a bubble of amplitude 1, whose peak is 1.
    seed
        Of tissue and noise.
    clutter_db, noise_db
        Root-mean-square of tissue, and of noise, over the peak of a bubble of amplitude 1;
        ``-inf`` leaves either out.
    noise_sigma_px
        Standard deviation of the Gaussian that noise is smoothed with: 0 is white, PALA has 1.5.
    motion
        How tissue moves.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        spacing_um: Sequence[float],
        frame_rate_hz: float,
        psf: Psf,
        seed: int,
        clutter_db: float = 30.0,
        noise_db: float = -20.0,
        noise_sigma_px: float = 0.0,
        motion: TissueMotion | None = None,
        origin_um: Sequence[float] | None = None,
    ) -> None:
        self._shape = tuple(shape)
        self._spacing_um = spacing_um
        self._origin_um = origin_um
        self._psf = psf
        self._seed = seed
        self._clutter = np.float32(10 ** (clutter_db / 20))
        self._noise = np.float32(10 ** (noise_db / 20))
        self._noise_sigma_px = noise_sigma_px
        self._tissue = Tissue(
            shape,
            spacing_um=spacing_um,
            origin_um=origin_um,
            psf=psf,
            frame_rate_hz=frame_rate_hz,
            motion=motion or TissueMotion(),
            rng=np.random.default_rng(seed),
        )

    def frames(
        self, bubbles: BubbleTable, first: int, stop: int, *, threads: int = 1
    ) -> NDArray[np.complex64]:
        """Return frames ``first`` to ``stop`` − 1, complex64 (frames, z, [y,] x).

        Parameters
        ----------
        bubbles
            Truth; rows of other frames are passed over.
        threads
            Threads that frames are shared among; the result is the same.
        """
        iq = np.zeros((stop - first, *self._shape), dtype=np.complex64)

        def fill(begin: int) -> None:
            part = iq[begin : begin + _CHUNK_FRAMES]
            for i in range(len(part)):
                frame = first + begin + i
                if self._clutter > 0:
                    part[i] += self._clutter * self._tissue.frame(frame)
                if self._noise > 0:
                    part[i] += self._noise * complex_noise(
                        self._shape, seed=self._seed, frame=frame, sigma_px=self._noise_sigma_px
                    )
            add_echoes(
                part,
                bubbles,
                first_frame=first + begin,
                spacing_um=self._spacing_um,
                origin_um=self._origin_um,
                psf=self._psf,
            )

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(0, len(iq), _CHUNK_FRAMES)))
        return iq


def make_iq(
    bubbles: BubbleTable,
    *,
    shape: Sequence[int],
    n_frames: int,
    spacing_um: Sequence[float],
    frame_rate_hz: float,
    psf: Psf,
    seed: int,
    clutter_db: float = 30.0,
    noise_db: float = -20.0,
    motion: TissueMotion | None = None,
    origin_um: Sequence[float] | None = None,
    block_frames: int = 100,
) -> Iterator[NDArray[np.complex64]]:
    """Yield the IQ frames of a :class:`Scanner` from frame 0 on, ``block_frames`` at a time.

    Parameters
    ----------
    bubbles
        Truth, numbered from frame 0.
    block_frames
        Frames yielded at a time; their number changes no byte.

    Yields
    ------
    numpy.ndarray
        Complex64 (frames, z, [y,] x), ``block_frames`` of them but for the last.
    """
    scanner = Scanner(
        shape=shape,
        spacing_um=spacing_um,
        frame_rate_hz=frame_rate_hz,
        psf=psf,
        seed=seed,
        clutter_db=clutter_db,
        noise_db=noise_db,
        motion=motion,
        origin_um=origin_um,
    )
    for first in range(0, n_frames, block_frames):
        yield scanner.frames(bubbles, first, min(first + block_frames, n_frames))
