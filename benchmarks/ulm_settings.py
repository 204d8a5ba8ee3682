"""What each setting of the classical ultrasound chain does to a simulated acquisition.

One setting at a time is changed from its default, on bubbles in a simulated artery and vein. This
is how the defaults in config/config.yaml were chosen; benchmarks/real_ulm.py then tests them on the
vessels of a real brain.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vasculome.config import ClutterConfig, RunConfig, UltrasoundConfig, parse_config
from vasculome.geometry import Box
from vasculome.metrics.localization import match, score_localization
from vasculome.metrics.segmentation import dice
from vasculome.metrics.tracking import relative_speed_error, score_links
from vasculome.simulate.acquisition import make_iq
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread
from vasculome.simulate.phantoms import ultrasound_phantom
from vasculome.simulate.speckle import TissueMotion
from vasculome.stages.track import link_rule
from vasculome.ultrasound.clutter import svd_filter
from vasculome.ultrasound.detect import find_peaks, noise_level
from vasculome.ultrasound.localize import LOCALIZERS, positions_um
from vasculome.ultrasound.render import accumulate, empty_sums, maps
from vasculome.ultrasound.smooth import add_velocities, smooth
from vasculome.ultrasound.track import advance, finish, start

SHAPE = (100, 100)
WAVELENGTH_UM = 98.56
SPACING_UM = (WAVELENGTH_UM / 2,) * 2
FRAME_RATE_HZ = 1000.0
CONCENTRATIONS = (50, 150)
STRONG_MOTION = TissueMotion(breathing_um=18.0, heartbeat_um=6.0, decorrelation_s=5.0)
WIDE = PointSpread(WAVELENGTH_UM, 0.6 * WAVELENGTH_UM, 0.8 * WAVELENGTH_UM, 0.0033)
NARROW = PointSpread(WAVELENGTH_UM, 0.3 * WAVELENGTH_UM, 0.38 * WAVELENGTH_UM)

# Acquisitions of the same bubbles that differ from the usual one.
ACQUISITIONS = {
    "usual": {},
    "strong motion": {"motion": STRONG_MOTION},
    "more noise": {"noise_db": -12.0},
    "wide spots": {"psf": WIDE},
    "narrow spots": {"psf": NARROW},
}
PATCHES = [{"localizer": name, "half_width_px": n} for name in LOCALIZERS for n in (1, 2, 3)]
# Acquisition, part of the settings, values tried.
SWEEPS = [
    ("usual", "clutter", [{"keep_from": n} for n in (4, 5, 7, 10, 15, 20)]),
    ("strong motion", "clutter", [{"keep_from": n} for n in (5, 7, 10, 15, 20)]),
    ("usual", "clutter", [{"block_frames": n} for n in (250, 500, 1000)]),
    ("usual", "localize", [{"threshold_snr": n} for n in (3.0, 3.5, 4.0, 5.0, 6.0)]),
    *(
        (name, "localize", PATCHES)
        for name in ("usual", "more noise", "wide spots", "narrow spots")
    ),
    ("usual", "track", [{"max_speed_mm_s": n} for n in (30.0, 45.0, 60.0, 90.0)]),
    ("usual", "track", [{"max_gap_frames": n} for n in (0, 1, 2, 3)]),
    ("usual", "track", [{"min_length_frames": n} for n in (5, 10, 15, 20)]),
    ("usual", "track", [{"weights": {"amplitude": w}} for w in (0.0, 0.5, 1.0)]),
    (
        "usual",
        "track",
        [{"kalman": None}]
        + [
            {"kalman": {"position_error_um": p, "speed_change_mm_s": v}}
            for p in (8.0, 15.0)
            for v in (1.0, 3.0)
        ],
    ),
    ("usual", "clutter", [{"randomized": flag} for flag in (True, False)]),
    ("usual", "track", [{"smooth_sigma_frames": n} for n in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)]),
]
QUICK_SWEEPS = [("usual", "clutter", [{"keep_from": n} for n in (5, 10)])]


class Chain:
    """The chain on one acquisition in memory; filtered frames are kept for the next settings."""

    def __init__(self, iq: NDArray[np.complex64]) -> None:
        self._iq = iq
        self._filtered: tuple[ClutterConfig, NDArray[np.float32]] | None = None

    def run(self, chosen: UltrasoundConfig) -> tuple[dict, dict]:
        """Return detections and tracks."""
        block = chosen.clutter.block_frames
        magnitude = self._magnitude(block, chosen.clutter)
        how, link = chosen.localize, chosen.track
        parts = []
        for first in range(0, len(magnitude), block):
            frames = magnitude[first : first + block]
            peaks = find_peaks(
                frames,
                threshold=how.threshold_snr * noise_level(frames),
                half_width=how.half_width_px,
                max_per_frame=how.max_per_frame,
            )
            found = LOCALIZERS[how.localizer](
                frames, peaks, half_width=how.half_width_px, first_frame=first
            )
            parts.append(positions_um(found, spacing_um=SPACING_UM, origin_um=(0.0, 0.0)))
        detections = _joined(parts)
        rule = link_rule(link, frame_rate_hz=FRAME_RATE_HZ)
        state, ended = advance(start(2), detections, stop_frame=len(magnitude), rule=rule)
        tracks = _joined([ended, finish(state, rule=rule)])
        sigma = link.smooth_sigma_frames
        moving = add_velocities(tracks, frame_rate_hz=FRAME_RATE_HZ, sigma_frames=sigma)
        return detections, smooth(moving, sigma_frames=sigma)

    def _magnitude(self, block: int, clutter: ClutterConfig) -> NDArray[np.float32]:
        if self._filtered is None or self._filtered[0] != clutter:
            blocks = [self._iq[i : i + block] for i in range(0, len(self._iq), block)]
            how = {"keep_from": clutter.keep_from, "randomized": clutter.randomized}
            parts = [np.abs(svd_filter(part, **how)) for part in blocks]
            self._filtered = clutter, np.concatenate(parts)
        return self._filtered[1]


def _joined(parts: list[dict]) -> dict:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draw(tracks: dict) -> NDArray[np.bool_]:
    """Return the pixels of a map at λ/10 that tracks cross."""
    box = Box.of_shape(tuple(5 * n for n in SHAPE))
    sums = empty_sums(box)
    pixel_um = WAVELENGTH_UM / 10
    origin_um = (pixel_um - SPACING_UM[0]) / 2
    accumulate(sums, tracks, box=box, pixel_um=(pixel_um,) * 2, origin_um=(origin_um,) * 2)
    return maps(sums)["density"] > 0


def score(detections: dict, tracks: dict, truth: BubbleTable) -> dict[str, float]:
    """Compare with the true bubbles; distances in wavelengths, hits within λ/4."""
    true = truth.frame, truth.position_um / WAVELENGTH_UM
    found = score_localization(
        detections["frame"],
        _positions(detections),
        *true,
        pair_distance=1 / 2,
        true_positive_distance=1 / 4,
    )
    points = _positions(tracks)
    i, j = match(tracks["frame"], points, *true, pair_distance=1 / 2)
    bubble = np.full(len(points), -1)
    bubble[i] = truth.track[j]
    links = score_links(
        tracks["track"],
        tracks["frame"],
        bubble,
        true_bubble=truth.track,
        true_frame=truth.frame,
    )
    velocity = np.stack([tracks["vz_mm_s"], tracks["vx_mm_s"]], axis=1)
    order = np.lexsort((truth.frame, truth.track))
    paths = {name: column[order] for name, column in truth.columns().items()}
    # Positions in the pixel, in ten bins: how far from even, where the bubbles' own are even.
    share = np.histogram((points * 2 + 0.5) % 1, bins=10, range=(0, 1))[0] / points.size * 10
    return {
        "jaccard": found.jaccard,
        "rmse_wavelengths": found.rmse,
        "link_precision": links.precision,
        "link_recall": links.recall,
        "speed_error": relative_speed_error(velocity[i], truth.velocity_mm_s[j]),
        "dice": dice(draw(tracks), draw(paths)),
        "gridding": float(share.std()),
    }


def _positions(table: dict) -> NDArray[np.float64]:
    return np.stack([table["z_um"], table["x_um"]], axis=1) / WAVELENGTH_UM


def sweep(
    sweeps: list, *, concentrations: tuple[int, ...], n_frames: int, seed: int
) -> Iterator[dict]:
    """Yield a row for each setting tried."""
    default = RunConfig().ultrasound
    for bubbles in concentrations:
        truth = ultrasound_phantom(
            seed, n_frames=n_frames, shape=SHAPE, mean_bubbles=bubbles
        ).bubbles
        make = functools.partial(
            make_iq, truth, shape=SHAPE, n_frames=n_frames, spacing_um=SPACING_UM, seed=seed
        )
        for name in dict.fromkeys(acquisition for acquisition, _, _ in sweeps):
            how = {"psf": PointSpread.typical(WAVELENGTH_UM), **ACQUISITIONS[name]}
            chain = Chain(np.concatenate(list(make(frame_rate_hz=FRAME_RATE_HZ, **how))))
            for acquisition, part, values in sweeps:
                if acquisition != name:
                    continue
                for value in values:
                    changed = {**getattr(default, part).model_dump(), **value}
                    settings = {**default.model_dump(), part: changed}
                    chosen = parse_config({"ultrasound": settings}, where="benchmark").ultrasound
                    scored = score(*chain.run(chosen), truth)
                    yield {
                        "case": f"{bubbles} bubbles, {name}",
                        "method": ", ".join(f"{k} {v}" for k, v in value.items()),
                        **{metric: round(float(v), 3) for metric, v in scored.items()},
                    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    results = []
    for row in sweep(
        QUICK_SWEEPS if options.quick else SWEEPS,
        concentrations=CONCENTRATIONS[:1] if options.quick else CONCENTRATIONS,
        n_frames=500 if options.quick else 2000,
        seed=options.seed,
    ):
        if not results:
            print(f"{'case':<28} {'method':<46}", *(name[:12].rjust(12) for name in list(row)[2:]))
        numbers = (f"{value:>12.3f}" for value in list(row.values())[2:])
        print(f"{row['case']:<28} {row['method']:<46}", *numbers, flush=True)
        results.append(row)
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(
        json.dumps(
            {"benchmark": "ulm_settings", "machine": machine, "results": results, "goals": []}
        )
    )


if __name__ == "__main__":
    main()
