"""Paths of bubbles, drawn on a grid finer than the movie's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray


def fine_paths(
    track: NDArray[np.int64],
    frame: NDArray[np.int64],
    position_px: NDArray[np.float64],
    *,
    shape_px: Sequence[int],
    n_frames: int,
    factor: int,
    chunk_frames: int,
) -> NDArray[np.bool_]:
    """Return where tracks go in each chunk of frames, on a grid finer by ``factor``.

    Paths are straight from one position to the next, which may come some frames later. A position
    p (pixels, the centre of pixel 0 at 0) lies in the fine pixel floor((p + ½) factor); a step
    belongs to the chunk of its end.

    Parameters
    ----------
    track, frame, position_px
        Of each point, (n,), (n,) and (n, D), in any order.
    shape_px, n_frames
        Of the movie.
    factor
        Fine pixels along a pixel's edge.
    chunk_frames
        Frames that are put together.

    Returns
    -------
    bool array (chunks, z · factor, [y · factor,] x · factor).
    """
    shape = np.array(shape_px) * factor
    chunks = -(-n_frames // chunk_frames)
    target = np.zeros((chunks, *shape), np.bool_)
    order = np.lexsort((frame, track))
    _draw(
        target.reshape(chunks, -1),
        shape,
        track[order],
        frame[order],
        (position_px[order] + 0.5) * factor,
        chunk_frames,
    )
    return target


@njit(cache=True, nogil=True)
def _draw(
    target: NDArray[np.bool_],
    shape: NDArray[np.int64],
    track: NDArray[np.int64],
    frame: NDArray[np.int64],
    fine: NDArray[np.float64],
    chunk_frames: int,
) -> None:  # pragma: no cover - compiled
    n_dims = len(shape)
    for i in range(len(track)):
        goes_on = i > 0 and track[i] == track[i - 1]
        steps = 1
        if goes_on:
            # Four points a fine pixel: at most a corner of one is missed.
            steps = 1 + int(4 * np.abs(fine[i] - fine[i - 1]).max())
        for step in range(steps):
            place = 0
            inside = True
            for d in range(n_dims):
                at = fine[i, d]
                if goes_on:
                    at -= (fine[i, d] - fine[i - 1, d]) * step / steps
                cell = int(np.floor(at))
                if cell < 0 or cell >= shape[d]:
                    inside = False
                    break
                place = place * shape[d] + cell
            if inside:
                target[frame[i] // chunk_frames, place] = True
