"""Pairs of frames in which bubbles move, with the truth of who became whom.

This is the simulation that pairing methods are compared on, and that networks for pairing learn
from: no vessels and no flow, only bubbles that each move some way, so that nothing but distance,
brightness and shape can tell which is which.

Source: Chen et al., Improved Microbubble Tracking for Super-Resolution Ultrasound Localization
Microscopy using a Bi-Directional Long Short-term Memory Neural Network, section II.C.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_CENTRING_ROUNDS = 3


@dataclass(frozen=True)
class PairScene:
    """What a pair of frames may hold.

    Parameters
    ----------
    bubbles
        Fewest and most bubbles in a frame, both included; the number is uniform between.
    max_step_um
        Farthest that a bubble moves between the frames; steps are uniform in the disc.
    unpaired
        Chance of a bubble of either frame not to be in the other, so that numbers differ.
    shape
        Pixels of a frame along z and x. The default is 4 mm².
    pixel_um
        Size of a pixel.
    brightness
        Least and largest brightness; uniform between.
    brightness_change
        Largest relative change of a bubble's brightness between the frames; uniform below.
    """

    bubbles: tuple[int, int]
    max_step_um: float
    unpaired: float = 0.005
    shape: tuple[int, int] = (406, 406)
    pixel_um: float = 4.928
    brightness: tuple[float, float] = (0.2, 1.0)
    brightness_change: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.bubbles[0] <= self.bubbles[1]:
            raise ValueError(f"bubbles must be a range of positive numbers, not {self.bubbles}")
        if not (self.max_step_um >= 0 and self.pixel_um > 0 and 0 <= self.unpaired <= 1):
            raise ValueError("steps must not be negative, nor unpaired be outside 0 to 1")
        if not (0 < self.brightness[0] <= self.brightness[1] and 0 <= self.brightness_change < 1):
            raise ValueError("brightness must be a range above 0, and change by less than itself")


@dataclass(frozen=True)
class FramePair:
    """Two frames and the truth.

    Attributes
    ----------
    frames
        Float32 (2, z, x): the magnitude, bubbles added up.
    before_um, after_um
        Float64 (m, 2) and (n, 2): bubbles in the first and the second frame, in random order;
        (z, x) with the centre of pixel 0 as origin.
    partner
        Int64 (m,): for each bubble of the first frame its row in the second, or -1.
    """

    frames: NDArray[np.float32]
    before_um: NDArray[np.float64]
    after_um: NDArray[np.float64]
    partner: NDArray[np.int64]


def frame_pairs(
    scene: PairScene, bank: NDArray[np.float32], *, count: int, seed: int, first: int = 0
) -> Iterator[FramePair]:
    """Yield ``count`` frame pairs, one at a time.

    Each depends on the seed and its own number alone: pairs 100 to 199 of a seed are the same
    bytes whether they come after others or from a worker that starts at ``first=100``.

    Parameters
    ----------
    scene
        What a pair may hold.
    bank
        Point spread functions, float32 (n, odd, odd), such as :func:`psf_bank` gives.
    count, seed, first
        How many, from which seed, and the number of the first.

    Raises
    ------
    ValueError
        If the bank does not fit.
    """
    if bank.ndim != 3 or not len(bank) or not (bank.shape[1] % 2 and bank.shape[2] % 2):
        raise ValueError(f"the bank must have shape (n, odd, odd), not {bank.shape}")
    for number in range(first, first + count):
        yield _frame_pair(scene, bank, np.random.default_rng([seed, number]))


def psf_bank(
    count: int,
    *,
    wavelength_um: float,
    pixel_um: float,
    rng: np.random.Generator,
    half_width_wavelengths: float = 2.0,
) -> NDArray[np.float32]:
    """Draw magnitudes of point spread functions, each unlike the others.

    A Gaussian, wider across than along the beam and more so the deeper it lies, leaning to a side,
    with a trailing edge (the ring-down of the bubble) and two unequal side lobes, its edge made
    ragged by speckle. These are the ways in which measured ones differ from bubble to bubble.

    Parameters
    ----------
    count
        Point spread functions drawn.
    wavelength_um, pixel_um
        Wavelength of the pulse, and size of a pixel.
    half_width_wavelengths
        Reach of the images from their centre.

    Returns
    -------
    float32 (count, n, n), n odd: the largest value of each is 1 and at its centre.
    """
    reach = int(np.ceil(half_width_wavelengths * wavelength_um / pixel_um))
    z, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * pixel_um / wavelength_um
    made = np.empty((count, *z.shape), np.float32)
    for image in made:
        depth = rng.random()
        axial, lateral = rng.uniform(0.28, 0.42), rng.uniform(0.32, 0.42) + 0.28 * depth
        lean = np.deg2rad(rng.normal(0, 12))
        along, across = np.cos(lean) * z + np.sin(lean) * x, np.cos(lean) * x - np.sin(lean) * z
        tail = np.where(along > 0, axial * (1 + rng.uniform(0, 0.8)), axial)
        profile = np.exp(-0.5 * (along / tail) ** 2)
        drawn = profile * np.exp(-0.5 * (across / lateral) ** 2)
        for side in (-1, 1):
            away = side * rng.uniform(2.6, 3.4) * lateral
            lobe = np.exp(-0.5 * ((across - away) / (0.7 * lateral)) ** 2)
            drawn += rng.uniform(0.02, 0.15) * profile * lobe
        grain = gaussian_filter(rng.normal(size=z.shape), 0.25 * wavelength_um / pixel_um)
        drawn *= np.exp(rng.uniform(0.05, 0.25) * grain / grain.std())
        image[:] = _centred(drawn)
    return made


def _centred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift an image so that its maximum is at its centre, where it is made 1."""
    for _ in range(_CENTRING_ROUNDS):  # wrapped edges are dark, but a far maximum may come up
        peak = np.unravel_index(np.argmax(image), image.shape)
        shift = [n // 2 - int(k) for n, k in zip(image.shape, peak, strict=True)]
        image = np.roll(image, shift, axis=(0, 1))
    return image / image.max()


def _frame_pair(scene: PairScene, bank: NDArray[np.float32], rng: np.random.Generator) -> FramePair:
    size_um = np.array(scene.shape) * scene.pixel_um
    n = int(rng.integers(scene.bubbles[0], scene.bubbles[1], endpoint=True))
    stays = n - int(rng.binomial(n, scene.unpaired))
    n_after = stays + int(rng.binomial(n, scene.unpaired))
    before = rng.random((n, 2)) * size_um
    after = rng.random((n_after, 2)) * size_um
    after[:stays] = _moved(before[:stays], scene.max_step_um, size_um, rng)
    bright_before = rng.uniform(*scene.brightness, n)
    bright_after = rng.uniform(*scene.brightness, n_after)
    change = rng.uniform(-scene.brightness_change, scene.brightness_change, stays)
    bright_after[:stays] = np.clip(bright_before[:stays] * (1 + change), *scene.brightness)
    shape_before, shape_after = (
        rng.integers(len(bank), size=n),
        rng.integers(len(bank), size=n_after),
    )
    shape_after[:stays] = shape_before[:stays]

    # Half a pixel: the field begins at the edge of pixel 0, the origin is its centre.
    before, after = before - scene.pixel_um / 2, after - scene.pixel_um / 2
    frames = np.zeros((2, *scene.shape), np.float32)
    _stamp(frames[0], before / scene.pixel_um, bright_before, shape_before, bank)
    _stamp(frames[1], after / scene.pixel_um, bright_after, shape_after, bank)
    order_before, order_after = rng.permutation(n), rng.permutation(n_after)
    row_after = np.argsort(order_after)
    partner = np.full(n, -1, np.int64)
    partner[:stays] = row_after[:stays]
    return FramePair(
        frames=frames,
        before_um=before[order_before],
        after_um=after[order_after],
        partner=partner[order_before],
    )


def _moved(
    start: NDArray[np.float64],
    max_step_um: float,
    size_um: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Move points by steps uniform in a disc; a step out of the field is drawn again."""
    moved = np.empty_like(start)
    left = np.arange(len(start))
    while len(left):
        radius = max_step_um * np.sqrt(rng.random(len(left)))
        angle = rng.uniform(0, 2 * np.pi, len(left))
        moved[left] = start[left] + radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
        left = left[((moved[left] < 0) | (moved[left] >= size_um)).any(axis=1)]
    return moved


@njit(cache=True, nogil=True)
def _stamp(
    frame: NDArray[np.float32],
    centre: NDArray[np.float64],
    brightness: NDArray[np.float64],
    which: NDArray[np.int64],
    bank: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    """Add a point spread function at each centre (pixels), shifted bilinearly by its fraction."""
    nz, nx = frame.shape
    _, hz, hx = bank.shape
    for i in range(len(centre)):
        z0, x0 = int(np.floor(centre[i, 0])), int(np.floor(centre[i, 1]))
        fz, fx = centre[i, 0] - z0, centre[i, 1] - x0
        weights = (
            (0, 0, np.float32(brightness[i] * (1 - fz) * (1 - fx))),
            (0, 1, np.float32(brightness[i] * (1 - fz) * fx)),
            (1, 0, np.float32(brightness[i] * fz * (1 - fx))),
            (1, 1, np.float32(brightness[i] * fz * fx)),
        )
        image = bank[which[i]]
        for dz, dx, weight in weights:
            top, left = z0 + dz - hz // 2, x0 + dx - hx // 2
            for z in range(max(0, -top), min(hz, nz - top)):
                for x in range(max(0, -left), min(hx, nx - left)):
                    frame[top + z, left + x] += weight * image[z, x]
