"""IQ frames of an ultrasound acquisition: bubbles, tissue clutter and noise, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from vasculome.simulate.bubbles import BubbleSizes, BubbleTable
from vasculome.simulate.echoes import Psf, add_echoes
from vasculome.simulate.flow import flow_blocks
from vasculome.simulate.flow_field import FlowField
from vasculome.simulate.map_flow import map_flow_blocks
from vasculome.simulate.noise import complex_noise
from vasculome.simulate.speckle import Tissue, TissueMotion
from vasculome.simulate.trees import VesselGraph

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
        Of tissue and noise, and of bubbles in :func:`simulate_acquisition`.
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
        self.seed = seed
        self.frame_rate_hz = frame_rate_hz
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
                        self._shape, seed=self.seed, frame=frame, sigma_px=self._noise_sigma_px
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


def simulate_acquisition(
    flow: VesselGraph | FlowField,
    scanner: Scanner,
    *,
    n_frames: int,
    mean_bubbles: float,
    lifetime_s: float = 0.4,
    sizes: BubbleSizes | None = None,
    block_frames: int = 100,
    threads: int = 1,
) -> Iterator[tuple[NDArray[np.complex64], BubbleTable]]:
    """Yield the IQ frames of bubbles that flow, and where the bubbles are, block by block.

    An acquisition is told by its settings and the scanner's seed: neither ``block_frames`` nor
    ``threads`` changes a byte, the first frames are the same whatever ``n_frames`` is, and memory
    does not grow with it.

    Parameters
    ----------
    flow
        Vessels, 2-D or 3-D, or a measured map; their z is the depth below the array too.
    scanner
        What sees the bubbles.
    n_frames
        Frames in all; ``block_frames`` of them in a block, fewer in the last.
    mean_bubbles
        Mean number of bubbles in a frame, those outside the field of view included.
    lifetime_s
        Mean lifetime of a bubble that does not leave.
    sizes
        How bubbles differ in their echoes.
    threads
        Threads that the frames of a block are shared among.

    Yields
    ------
    tuple of numpy.ndarray and BubbleTable
        Complex64 (frames, z, [y,] x), and the truth about the same frames; frames and tracks are
        numbered through.
    """
    drift = flow_blocks if isinstance(flow, VesselGraph) else map_flow_blocks
    tables = drift(
        flow,
        n_frames=n_frames,
        frame_rate_hz=scanner.frame_rate_hz,
        mean_bubbles=mean_bubbles,
        seed=scanner.seed,
        lifetime_s=lifetime_s,
        sizes=sizes,
        block_frames=block_frames,
    )
    for first, bubbles in zip(range(0, n_frames, block_frames), tables, strict=True):
        stop = min(first + block_frames, n_frames)
        yield scanner.frames(bubbles, first, stop, threads=threads), bubbles


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
    """Yield the IQ frames of bubbles whose whole table is there, from frame 0 on.

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
