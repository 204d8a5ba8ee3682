"""How well and how fast each localizer places bubbles that flow, beside the least error possible.

Bubbles drift in simulated vessels. Four questions, each a group of cases:

- *apart*: PALA's in-silico protocol. The same number of bubbles in each frame, of equal echo and at
  least 3 λ apart; PALA's noise at its seven levels on the magnitude; as many of the brightest
  maxima are localized as there are bubbles. At pixels of λ (PALA's) and λ/2 (ours).
- *apart, complex noise*: the same bubbles, but white noise on the IQ, as a scanner's is.
- *crowd*: all bubbles at their own brightness, complex noise at -20 dB, detection above 4 times the
  estimated noise: what the workflow does. The default was chosen from these cases.
- *volumes*: the first in 3-D.

Lengths are in wavelengths. The Cramér-Rao bounds hold for a known width and an unknown ground,
over the patch of the localizer, averaged over the bubbles. ``bound_white`` takes the noise of
PALA's model for white, at the same standard deviation; ``bound`` with its true covariance, which a
filter of 1.5 pixels makes smooth and so nearly predictable from neighbours. Localizers that know
nothing of it can only be expected to come near the first; biased ones may fall below either.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from vasculome.metrics.cramer_rao import position_bound_px, smoothed_noise_covariance
from vasculome.metrics.gridding import gridding_index_db
from vasculome.metrics.localization import score_localization
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread, add_echoes
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.ultrasound.clutter import svd_filter
from vasculome.ultrasound.detect import find_peaks, noise_level
from vasculome.ultrasound.localize import LOCALIZERS

WAVELENGTH_UM = 98.56
FIELD_WAVELENGTHS = {2: (40, 60), 3: (24, 22, 22)}
MARGIN_WAVELENGTHS = 4
APART_WAVELENGTHS = 3
NOISE_DB = (-60, -40, -30, -25, -20, -15, -10)
# PALA's noise: wgn of -2 dBW in 0.2 ohm, 10 dB above the level, under imgaussfilt of 1.5 pixels.
NOISE_BEFORE_FILTER = 0.355 * 10 ** (10 / 20)
FILTER_PX, FILTER_RADIUS_PX = 1.5, 3
PSF = PointSpread.typical(WAVELENGTH_UM)
GOAL_RMSE = 0.12
GOAL_FRAMES_PER_S = 1000


@dataclass(frozen=True)
class Scene:
    """Echoes of bubbles without noise, and their truth in voxels."""

    iq: NDArray[np.complex64]
    bubbles: BubbleTable
    pixel_wavelengths: float

    @property
    def position_px(self) -> NDArray[np.float64]:
        return self.bubbles.position_um / (self.pixel_wavelengths * WAVELENGTH_UM)

    @property
    def widths_px(self) -> NDArray[np.float64]:
        """Standard deviations of each echo, (n, d)."""
        lateral = PSF.lateral_sigma_um + PSF.lateral_growth * self.bubbles.position_um
        widths_um = np.repeat(lateral[:, :1], self.bubbles.ndim, axis=1)
        widths_um[:, 0] = PSF.axial_sigma_um
        return widths_um / (self.pixel_wavelengths * WAVELENGTH_UM)


def flow(seed: int, *, ndim: int, n_frames: int, mean_bubbles: float) -> BubbleTable:
    """Return bubbles that flow through an artery and a vein."""
    shape = tuple(2 * n for n in FIELD_WAVELENGTHS[ndim])
    return ultrasound_phantom(
        seed, n_frames=n_frames, shape=shape, mean_bubbles=mean_bubbles
    ).bubbles


def apart(bubbles: BubbleTable, per_frame: int) -> BubbleTable:
    """Return so many bubbles of every frame, of equal echo, none near another or the edge."""
    size_um = WAVELENGTH_UM * np.array(FIELD_WAVELENGTHS[bubbles.ndim])
    margin_um, distance_um = WAVELENGTH_UM * MARGIN_WAVELENGTHS, WAVELENGTH_UM * APART_WAVELENGTHS
    inside = ((bubbles.position_um > margin_um) & (bubbles.position_um < size_um - margin_um)).all(
        axis=1
    )
    kept = []
    for frame in np.unique(bubbles.frame):
        chosen: list[int] = []
        for row in np.flatnonzero(inside & (bubbles.frame == frame)):
            away = np.linalg.norm(bubbles.position_um[chosen] - bubbles.position_um[row], axis=1)
            if len(chosen) < per_frame and (away > distance_um).all():
                chosen.append(row)
        kept.extend(chosen)
    rows = _rows(bubbles, np.array(kept))
    return replace(rows, amplitude=np.ones(len(rows), np.float32))


def _rows(bubbles: BubbleTable, index: NDArray[np.integer] | NDArray[np.bool_]) -> BubbleTable:
    return BubbleTable(
        track=bubbles.track[index],
        frame=bubbles.frame[index],
        position_um=bubbles.position_um[index],
        velocity_mm_s=bubbles.velocity_mm_s[index],
        amplitude=bubbles.amplitude[index],
    )


def draw(bubbles: BubbleTable, *, n_frames: int, pixel_wavelengths: float) -> Scene:
    """Draw the echoes."""
    shape = tuple(round(n / pixel_wavelengths) for n in FIELD_WAVELENGTHS[bubbles.ndim])
    iq = np.zeros((n_frames, *shape), np.complex64)
    spacing_um = (pixel_wavelengths * WAVELENGTH_UM,) * bubbles.ndim
    add_echoes(iq, bubbles, first_frame=0, spacing_um=spacing_um, psf=PSF)
    return Scene(iq, bubbles, pixel_wavelengths)


def pala_noise(magnitude: NDArray[np.float32], noise_db: float, seed: int) -> NDArray[np.float32]:
    """Add PALA's noise: a ground and smoothed Gaussian noise, relative to the brightest voxel."""
    level = magnitude.max() * 10 ** (noise_db / 20)
    ndim = magnitude.ndim - 1
    white = np.random.default_rng(seed).standard_normal(magnitude.shape, np.float32)
    smooth = gaussian_filter(
        white, (0, *[FILTER_PX] * ndim), mode="nearest", radius=(0, *[FILTER_RADIUS_PX] * ndim)
    )
    return magnitude + np.float32(level) * (1 + np.float32(NOISE_BEFORE_FILTER) * smooth)


def complex_noise(iq: NDArray[np.complex64], noise_db: float, seed: int) -> NDArray[np.float32]:
    """Return the magnitude of IQ with white noise; its root mean square over a bubble's peak."""
    parts = np.random.default_rng(seed).standard_normal((*iq.shape, 2), np.float32)
    noise = parts.view(np.complex64)[..., 0] * np.float32(10 ** (noise_db / 20) / np.sqrt(2))
    return np.abs(iq + noise)


def bounds(scene: Scene, half_width: int, noise_db: float) -> dict[str, float]:
    """Return the least root-mean-square error under PALA's noise, in wavelengths."""
    shift = scene.position_px - np.rint(scene.position_px)
    # The echo's width changes slowly with depth: bubbles are taken in ten layers.
    layers = np.array_split(np.argsort(scene.position_px[:, 0])[:: max(1, len(shift) // 1000)], 10)
    level = np.abs(scene.iq).max() * 10 ** (noise_db / 20)
    covariance = smoothed_noise_covariance(
        half_width,
        shift.shape[1],
        noise=NOISE_BEFORE_FILTER * level,
        sigma_px=FILTER_PX,
        radius_px=FILTER_RADIUS_PX,
    )
    result = {}
    for name, noise in (("bound", covariance), ("bound_white", float(covariance[0, 0] ** 0.5))):
        square = [
            np.sum(
                position_bound_px(
                    shift[layer],
                    amplitude=1.0,
                    widths_px=scene.widths_px[layer].mean(axis=0),
                    half_width=half_width,
                    noise=noise,
                    known_ground=False,
                )
                ** 2,
                axis=1,
            )
            for layer in layers
        ]
        result[name] = float(np.sqrt(np.mean(np.concatenate(square)))) * scene.pixel_wavelengths
    return result


def evaluate(
    scene: Scene, magnitude: NDArray[np.float32], method: str, half_width: int, **detection: float
) -> dict[str, float]:
    """Localize and score; distances in wavelengths, hits within λ/4, pairs within λ/2."""
    peaks = find_peaks(magnitude, half_width=half_width, **detection)
    localizer = LOCALIZERS[method]
    localizer(magnitude, peaks[:8], half_width=half_width)
    started = time.perf_counter()
    table = localizer(magnitude, peaks, half_width=half_width)
    seconds = time.perf_counter() - started
    found = np.stack([table[axis] for axis in "zyx" if axis in table], axis=1)
    both = (
        table["frame"],
        found * scene.pixel_wavelengths,
        scene.bubbles.frame,
        scene.bubbles.position_um / WAVELENGTH_UM,
    )
    limits = {"pair_distance": 1 / 2, "true_positive_distance": 1 / 4}
    ours = score_localization(*both, **limits)
    pala = score_localization(*both, **limits, matching="pala")
    return {
        "rmse": ours.rmse,
        "mean_error": ours.mean_error,
        "axial": ours.rmse_axes[0],
        "lateral": ours.rmse_axes[-1],
        "jaccard": ours.jaccard,
        "precision": ours.precision,
        "recall": ours.recall,
        "rmse_pala": pala.rmse,
        "jaccard_pala": pala.jaccard,
        "gridding_db": gridding(found, magnitude.shape[1:]),
        "us_per_bubble": 1e6 * seconds / max(len(peaks), 1),
    }


def gridding(found: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Return the gridding index of the density of localizations, ten pixels to a voxel."""
    if len(shape) == 3:  # seen from the side: a whole volume at this pixel would be too large
        found, shape = found[:, [0, 2]], (shape[0], shape[2])
    edges = [np.linspace(-0.5, n - 0.5, 10 * n + 1) for n in shape]
    return gridding_index_db(np.histogramdd(found, edges)[0])


def accuracy(options: argparse.Namespace) -> Iterator[dict]:
    """Yield a row for each case and method."""
    n_frames = 60 if options.quick else 1000
    levels = (-30,) if options.quick else NOISE_DB
    separate = apart(flow(options.seed, ndim=2, n_frames=n_frames, mean_bubbles=60), 20)
    for pixel in (1.0, 0.5):
        scene = draw(separate, n_frames=n_frames, pixel_wavelengths=pixel)
        for noise_db in levels:
            noisy = pala_noise(np.abs(scene.iq), noise_db, options.seed)
            case = f"apart, {_pixel(pixel)}, {noise_db} dB"
            yield from _methods(case, scene, noisy, (1, 2), noise_db, threshold=0, max_per_frame=20)
        for noise_db in (-20,) if options.quick else (-30, -20, -15, -10):
            noisy = complex_noise(scene.iq, noise_db, options.seed)
            case = f"apart, complex noise, {_pixel(pixel)}, {noise_db} dB"
            yield from _methods(case, scene, noisy, (1, 2), None, threshold=0, max_per_frame=20)
    for mean_bubbles in (50,) if options.quick else (25, 50, 100, 200):
        crowd = flow(options.seed, ndim=2, n_frames=n_frames // 2, mean_bubbles=mean_bubbles)
        scene = draw(crowd, n_frames=n_frames // 2, pixel_wavelengths=0.5)
        end_um = (np.array(scene.iq.shape[1:]) - 0.5) * WAVELENGTH_UM / 2
        inside = ((crowd.position_um > -WAVELENGTH_UM / 4) & (crowd.position_um < end_um)).all(1)
        scene = replace(scene, bubbles=_rows(crowd, inside))
        noisy = complex_noise(scene.iq, -20, options.seed)
        case = f"crowd of {mean_bubbles}"
        yield from _methods(case, scene, noisy, (1, 2), None, threshold=4 * noise_level(noisy))
    n_volumes = 20 if options.quick else 150
    separate = apart(flow(options.seed, ndim=3, n_frames=n_volumes, mean_bubbles=60), 12)
    scene = draw(separate, n_frames=n_volumes, pixel_wavelengths=0.5)
    for noise_db in (-30,) if options.quick else (-30, -20, -10):
        noisy = pala_noise(np.abs(scene.iq), noise_db, options.seed)
        case = f"volumes, apart, {_pixel(0.5)}, {noise_db} dB"
        yield from _methods(case, scene, noisy, (1, 2), noise_db, threshold=0, max_per_frame=12)


def _pixel(wavelengths: float) -> str:
    return {1.0: "pixel λ", 0.5: "pixel λ/2"}[wavelengths]


def _methods(
    case: str,
    scene: Scene,
    noisy: NDArray[np.float32],
    half_widths: tuple[int, ...],
    pala_noise_db: float | None,
    **detection: float,
) -> Iterator[dict]:
    for half_width in half_widths:
        least = {} if pala_noise_db is None else bounds(scene, half_width, pala_noise_db)
        for method in LOCALIZERS:
            scored = evaluate(scene, noisy, method, half_width, **detection)
            name = f"{method}, {2 * half_width + 1} pixels"
            yield {"case": case, "method": name, **_rounded({**scored, **least})}
    true = gridding(scene.position_px, noisy.shape[1:])
    yield {"case": case, "method": "truth", **_rounded({"gridding_db": true})}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def speed(options: argparse.Namespace) -> Iterator[dict]:
    """Yield frames per second of each step on a block of 78 × 118 pixels, 50 bubbles a frame."""
    n_frames = 100 if options.quick else 800
    shape = (78, 118)
    phantom = ultrasound_phantom(
        options.seed, n_frames=n_frames, shape=shape, mean_bubbles=50, wavelength_um=WAVELENGTH_UM
    )
    block = np.concatenate(list(phantom.blocks))
    filtered = svd_filter(block, keep_from=10)
    magnitude = np.abs(filtered)
    threshold = 4 * noise_level(magnitude)
    peaks = find_peaks(magnitude, threshold=threshold, half_width=1)
    steps = {
        "svd_filter": lambda: svd_filter(block, keep_from=10),
        "magnitude": lambda: np.abs(filtered),
        "noise_level": lambda: noise_level(magnitude),
        "find_peaks": lambda: find_peaks(magnitude, threshold=threshold, half_width=1),
        **{
            name: lambda name=name: LOCALIZERS[name](magnitude, peaks, half_width=1)
            for name in LOCALIZERS
        },
    }
    for name, step in steps.items():
        step()
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        yield {
            "case": f"speed, {n_frames} frames of 78 x 118, {len(peaks) / n_frames:.0f} found each",
            "method": name,
            "frames_per_s": round(n_frames / min(seconds)),
        }


def goals(rows: list[dict]) -> list[dict]:
    """Return the figures that were asked for, and whether they were met."""
    found = []
    for method in ("radial_symmetry", "gaussian_fit"):
        for pixel in (1.0, 0.5):
            case = f"apart, {_pixel(pixel)}, -30 dB"
            name = f"{method}, 5 pixels"
            rmse = next(r["rmse"] for r in rows if (r["case"], r["method"]) == (case, name))
            found.append((f"RMSE in wavelengths, {name}, {case}", rmse, "<=", GOAL_RMSE))
    rate = {r["method"]: r["frames_per_s"] for r in rows if "frames_per_s" in r}
    for method in ("radial_symmetry", "gaussian_fit_common_width"):
        chain = ("svd_filter", "magnitude", "noise_level", "find_peaks", method)
        total = 1 / sum(1 / rate[step] for step in chain)
        name = f"frames/s from IQ to detections on one core, {method}"
        found.append((name, round(total), ">=", GOAL_FRAMES_PER_S))
    return [
        {"name": n, "value": v, "op": op, "goal": g, "met": v <= g if op == "<=" else v >= g}
        for n, v, op, g in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    shown = (
        "rmse", "bound_white", "bound", "axial", "lateral", "jaccard", "precision", "recall",
        "rmse_pala", "jaccard_pala", "gridding_db", "us_per_bubble",
    )  # fmt: skip
    rows, last = [], None
    for row in itertools.chain(accuracy(options), speed(options)):
        columns = ("frames_per_s",) if "frames_per_s" in row else shown
        if row["case"] != last:
            print(f"\n{row['case']}\n{'':<38}", *(f"{name:>13}" for name in columns))
            last = row["case"]
        cells = (f"{row.get(name, ''):>13}" for name in columns)
        print(f"{row['method']:<38}", *cells, flush=True)
        rows.append(row)
    asked = goals(rows)
    for goal in asked:
        print(
            f"{'met' if goal['met'] else 'MISSED'}: {goal['name']}: {goal['value']} "
            f"{goal['op']} {goal['goal']}"
        )
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(
        json.dumps(
            {"benchmark": "localization", "machine": machine, "results": rows, "goals": asked}
        )
    )


if __name__ == "__main__":
    main()
