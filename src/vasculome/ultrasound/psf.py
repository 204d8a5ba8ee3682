"""The point spread function of an acquisition: given, or learnt from its own isolated bubbles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftfreq, fftn, ifftn

from vasculome.errors import UserError
from vasculome.ultrasound.columns import Table, axis_names
from vasculome.ultrasound.detect import widths

_MARGIN_PX = 2
"""Voxels more on every side while a patch is moved: what the Fourier shift carries round the edge
stays out of the result."""

_VALUES_AVERAGED = 1 << 20
"""Values of patches that a depth band averages: hundreds of bubbles in 3-D, thousands in 2-D."""


@dataclass(frozen=True)
class DepthPsf:
    """Complex echoes of a bubble at one or more depths, each of unit energy.

    Attributes
    ----------
    depth_px
        Depths along z in voxels, float64 (bands,), rising.
    echoes
        complex64 (bands, z, [y,] x), odd along each spatial axis; the bubble is at the centre of
        the middle voxel, where the echo is real and positive.
    bubbles
        How many each echo is the mean of, int64 (bands,); None where it is not learnt from any.
    """

    depth_px: NDArray[np.float64]
    echoes: NDArray[np.complex64]
    bubbles: NDArray[np.int64] | None = None

    def at_depths(self, n_rows: int) -> NDArray[np.complex64]:
        """Return the echo at each row 0 to n_rows − 1, (n_rows, z, [y,] x), of unit energy.

        Between two depths it changes evenly from one to the other, beyond the last it stays.
        """
        rows = np.arange(n_rows, dtype=np.float64)
        last = len(self.depth_px) - 1
        upper = np.clip(np.searchsorted(self.depth_px, rows), 1, max(last, 1))
        upper = np.minimum(upper, last)
        lower = np.maximum(upper - 1, 0)
        gap = np.where(upper > lower, self.depth_px[upper] - self.depth_px[lower], 1.0)
        part = np.clip((rows - self.depth_px[lower]) / gap, 0, 1)
        part = part.reshape(-1, *[1] * (self.echoes.ndim - 1))
        return _unit_energy((1 - part) * self.echoes[lower] + part * self.echoes[upper])


def given_psf(
    echoes: NDArray[np.number], *, depth_px: Sequence[float] | None = None, where: str = "PSF"
) -> DepthPsf:
    """Take a point spread function that the user has.

    Parameters
    ----------
    echoes
        One echo, shape (z, x) or (z, y, x); or, where ``depth_px`` is given, one for each depth,
        shape (bands, z, [y,] x). Real (a magnitude) or complex, odd along each spatial axis, with
        the bubble in the middle voxel.
    depth_px
        Depths of the echoes along z, in voxels, rising.
    where
        Whose it is, for errors.

    Raises
    ------
    UserError
        If shapes do not fit, a value is not finite, depths do not rise, or the middle is empty.
    """
    bands = echoes[None] if depth_px is None else echoes
    depths = np.zeros(1) if depth_px is None else np.asarray(depth_px, np.float64)
    if bands.ndim not in (3, 4) or any(n % 2 == 0 for n in bands.shape[1:]):
        raise UserError(
            f"a point spread function of shape {echoes.shape} has no middle voxel",
            where=where,
            fix="give it 2 or 3 spatial axes, each with an odd number of voxels",
        )
    if len(depths) != len(bands) or (np.diff(depths) <= 0).any():
        raise UserError(
            f"{len(bands)} echoes do not go with the depths {depths.tolist()}",
            where=where,
            fix="give one depth for each echo, in rising order",
        )
    middle = bands[(slice(None), *(n // 2 for n in bands.shape[1:]))]
    if not np.isfinite(bands).all() or (middle == 0).any():
        raise UserError(
            "the point spread function is empty in the middle, or not finite",
            where=where,
            fix="put the bubble in the middle voxel",
        )
    return DepthPsf(depths, _unit_energy(_real_in_the_middle(bands)))


def estimate_psf(
    iq_t: NDArray[np.complexfloating],
    detections: Table,
    *,
    half_width: int | Sequence[int],
    bands: int = 1,
    min_bubbles: int = 20,
) -> DepthPsf:
    """Average the echoes of isolated bubbles, aligned to a fraction of a voxel and in phase.

    A bubble is isolated if its patch lies in the frame, has one maximum, and no other detection of
    its frame is in the patch of twice this reach. Each patch is freed of the mean phase slope of
    all (the carrier), moved by the Fourier shift theorem so that the bubble comes to the middle of
    a voxel, turned to phase 0 there, and added up, so that bright ones count more. The carrier is
    then put back.

    Parameters
    ----------
    iq_t
        Clutter-filtered IQ, complex, shape (t, z, x) or (t, z, y, x).
    detections
        Table from a localizer, frames counted from the first of ``iq_t``; the better the
        localizer, the sharper the result.
    half_width
        Voxels that the echo reaches from its middle, one for all axes or one for each.
    bands
        Depth bands of equal height, each with an echo of its own, placed at the mean depth of its
        bubbles. Of thousands of bubbles an even selection is taken.
    min_bubbles
        Fewest isolated bubbles in a band; one with fewer has no echo of its own.

    Raises
    ------
    UserError
        If no band has enough isolated bubbles.
    ValueError
        If ``bands`` is not at least 1.
    """
    if bands < 1:
        raise ValueError(f"bands must be at least 1, not {bands}")
    ndim = iq_t.ndim - 1
    reach = np.array(widths(half_width, ndim))[[0, 2] if ndim == 2 else [0, 1, 2]]
    position = np.stack([detections[name] for name in axis_names(ndim)], axis=1)
    chosen = _isolated(detections, position, reach, iq_t.shape[1:])
    frame, position = detections["frame"][chosen], position[chosen]
    height = iq_t.shape[1] / bands
    band = np.clip((position[:, 0] + 0.5) // height, 0, bands - 1).astype(np.int64)
    count = np.bincount(band, minlength=bands)
    if count.max() < min_bubbles:
        raise UserError(
            f"only {count.max()} isolated bubbles, not {min_bubbles}, in "
            + (f"the fullest of {bands} depth bands" if bands > 1 else "the whole depth"),
            where="point spread function",
            fix="use more frames, fewer depth bands, or frames with fewer bubbles",
        )
    most = max(min_bubbles, _VALUES_AVERAGED // _patch_size(reach))
    echoes, depths, bubbles = [], [], []
    for number in np.flatnonzero(count >= min_bubbles):
        rows = _evenly(np.flatnonzero(band == number), most)
        echoes.append(_aligned(iq_t, frame[rows], position[rows], reach).sum(axis=0))
        depths.append(float(position[rows, 0].mean()))
        bubbles.append(len(rows))
    mean = given_psf(np.stack(echoes), depth_px=depths)
    return replace(mean, bubbles=np.array(bubbles))


def estimate_bytes(half_width: int, *, ndim: int, min_bubbles: int) -> int:
    """Return the memory that `estimate_psf` takes for patches."""
    patch = _patch_size(np.full(ndim, half_width))
    return 8 * 16 * max(_VALUES_AVERAGED, min_bubbles * patch)


def _patch_size(reach: NDArray[np.int64]) -> int:
    return math.prod(int(2 * (n + _MARGIN_PX) + 1) for n in reach)


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return ``most`` of the rows, from all over them; all, if there are fewer."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _isolated(
    detections: Table,
    position: NDArray[np.float64],
    reach: NDArray[np.int64],
    shape: Sequence[int],
) -> NDArray[np.int64]:
    """Return the rows of bubbles whose patch, and twice its reach around, hold no other."""
    frame = detections["frame"]
    voxel = np.rint(position)
    wide = reach + _MARGIN_PX
    inside = ((voxel >= wide) & (voxel < np.array(shape) - wide)).all(axis=1)
    alone = np.ones(len(frame), bool)
    order = np.lexsort((position[:, 0], frame))
    # Sorted by frame and depth, neighbours within reach follow each other closely.
    for step in range(1, len(order)):
        a, b = order[:-step], order[step:]
        near = (frame[a] == frame[b]) & (position[b, 0] - position[a, 0] <= 2 * reach[0])
        if not near.any():
            break
        near &= (np.abs(position[b] - position[a]) <= 2 * reach).all(axis=1)
        alone[a[near]] = alone[b[near]] = False
    return np.flatnonzero(inside & alone & (detections["maxima"] == 1))


def _aligned(
    iq_t: NDArray[np.complexfloating],
    frame: NDArray[np.int64],
    position: NDArray[np.float64],
    reach: NDArray[np.int64],
) -> NDArray[np.complex128]:
    """Return patches (n, z, [y,] x) with the bubble in the middle voxel, at phase 0 there."""
    ndim = len(reach)
    wide = reach + _MARGIN_PX
    voxel = np.rint(position).astype(np.int64)
    index = [frame.reshape(-1, *[1] * ndim)]
    for axis, n in enumerate(wide):
        index.append(_along(axis, voxel[:, axis, None] + np.arange(-n, n + 1), ndim))
    patches = iq_t[tuple(index)].astype(np.complex128)
    turn, shift = np.zeros(()), np.zeros(())
    for axis, n in enumerate(wide):
        ahead = np.roll(patches, -1, axis=axis + 1) * patches.conj()
        slope = np.angle(ahead.take(range(2 * n), axis=axis + 1).sum())
        turn = turn + _along(axis, slope * np.arange(-n, n + 1)[None], ndim)
        fraction = position[:, axis, None] - voxel[:, axis, None]
        shift = shift + _along(axis, fraction * fftfreq(2 * n + 1), ndim)
    space = tuple(range(1, ndim + 1))
    patches = ifftn(
        fftn(patches * np.exp(-1j * turn), axes=space) * np.exp(2j * np.pi * shift), axes=space
    )
    patches = _real_in_the_middle(patches) * np.exp(1j * turn)
    return patches[(slice(None), *(slice(_MARGIN_PX, -_MARGIN_PX) for _ in range(ndim)))]


def _along(axis: int, values: NDArray[np.number], ndim: int) -> NDArray[np.number]:
    """Return values (n, k) as (n, 1, ..., k, ..., 1), k along a spatial axis."""
    return values.reshape(len(values), *(-1 if a == axis else 1 for a in range(ndim)))


def _real_in_the_middle(echoes: NDArray[np.number]) -> NDArray[np.complex128]:
    middle = echoes[(slice(None), *(n // 2 for n in echoes.shape[1:]))]
    turned: NDArray[np.complex128] = echoes * np.exp(-1j * np.angle(middle)).reshape(
        -1, *[1] * (echoes.ndim - 1)
    )
    return turned


def _unit_energy(echoes: NDArray[np.number]) -> NDArray[np.complex64]:
    axes = tuple(range(1, echoes.ndim))
    norm = np.sqrt(np.sum(np.abs(echoes) ** 2, axis=axes, keepdims=True))
    return (echoes / norm).astype(np.complex64)
