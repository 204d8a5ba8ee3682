"""How well the classical ultrasound chain finds bubbles that flow in a real brain's vessels.

Vessels and speeds are those of super-resolved maps of a mouse brain (mouse04week2.mat and
mouse04week3.mat of ekerwang/ULMQuantitativeAnalysis). Bubbles are seeded on them, their IQ is
simulated with tissue clutter and noise, the stages of the workflow run on it from the raw file on,
and what they find is compared with the bubbles and with the maps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from real_ulm_parts.pictures import draw_beside
from scipy.io import loadmat

from vasculome.config import Sample, parse_config
from vasculome.geometry import Box
from vasculome.metrics.localization import match, score_localization
from vasculome.metrics.segmentation import dice
from vasculome.metrics.tracking import relative_speed_error, score_links
from vasculome.simulate.acquisition import make_iq
from vasculome.simulate.bubbles import BubbleTable
from vasculome.simulate.echoes import PointSpread
from vasculome.simulate.flow_field import FlowField, flow_field
from vasculome.simulate.map_flow import flow_on_map
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import Job, execute
from vasculome.storage.omezarr import open_image
from vasculome.storage.raw_files import write_npy_blocks
from vasculome.storage.tables import iter_parts
from vasculome.ultrasound.render import accumulate, empty_sums, maps

DATA = Path(os.environ.get("VASCULOME_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
MAPS = {"week 2": "ultrasound/mouse04week2.mat", "week 3": "ultrasound/mouse04week3.mat"}
# The file states no units: a tenth of a 15.6 MHz wavelength (at 1,540 m/s) a pixel, and m/s.
MAP_PIXEL_UM = 4.928
WAVELENGTH_UM = 98.56
IQ_SPACING_UM = WAVELENGTH_UM / 2
FRAME_RATE_HZ = 1000.0
# Cortex, hippocampus and thalamus, 5 x 5 mm; ten map pixels an IQ pixel, two a pixel at λ/10.
CROP_START = (300, 290)
CROP_PIXELS = 1020
IQ_PIXELS = CROP_PIXELS // 10
AREA_MM2 = (CROP_PIXELS * MAP_PIXEL_UM / 1000) ** 2
IQ_ORIGIN_UM = (IQ_SPACING_UM - MAP_PIXEL_UM) / 2
DEFAULT = "default"
# On the first map; the default on all.
LOCALIZERS: dict[str, dict[str, str | int]] = {
    DEFAULT: {},
    "weighted_centroid, 3 pixels": {"localizer": "weighted_centroid", "half_width_px": 1},
    "radial_symmetry, 5 pixels": {"localizer": "radial_symmetry", "half_width_px": 2},
    "bubbles_2d, a network": {"localizer": "stulm"},
}


@dataclass(frozen=True)
class Brain:
    """The crop of the real map: flow inferred from it, and the bubbles counted in it."""

    flow: FlowField
    counts: NDArray[np.uint16]


def load_brain(data: Path, week: str = "week 2") -> Brain:
    """Read the map and infer which way blood flows in the crop."""
    stored = loadmat(data / MAPS[week])["ULM_final"][0, 0]
    cut = tuple(slice(start, start + CROP_PIXELS) for start in CROP_START)
    counts, speed_m_s = stored["mapCounter"], stored["mapVelocity"]
    whole = flow_field(counts, 1e3 * speed_m_s, pixel_um=(MAP_PIXEL_UM, MAP_PIXEL_UM))
    return Brain(
        flow=FlowField(
            density=whole.density[cut],
            speed_mm_s=whole.speed_mm_s[cut],
            direction=whole.direction[cut],
            growth_per_s=whole.growth_per_s[cut],
            pixel_um=whole.pixel_um,
            origin_um=whole.origin_um,
        ),
        counts=counts[cut],
    )


def acquire(
    brain: Brain, raw: Path, *, mean_bubbles: float, n_frames: int, seed: int
) -> BubbleTable:
    """Write IQ of bubbles in the brain's vessels to an .npy file; return their truth."""
    bubbles = flow_on_map(
        brain.flow,
        n_frames=n_frames,
        frame_rate_hz=FRAME_RATE_HZ,
        mean_bubbles=mean_bubbles,
        rng=np.random.default_rng(seed),
    )
    shape = (IQ_PIXELS, IQ_PIXELS)
    blocks = make_iq(
        bubbles,
        shape=shape,
        n_frames=n_frames,
        spacing_um=(IQ_SPACING_UM, IQ_SPACING_UM),
        frame_rate_hz=FRAME_RATE_HZ,
        psf=PointSpread.typical(WAVELENGTH_UM),
        seed=seed,
        origin_um=(IQ_ORIGIN_UM, IQ_ORIGIN_UM),
    )
    write_npy_blocks(raw, blocks, shape=(n_frames, *shape), dtype="complex64")
    return bubbles


def reconstruct(
    raw: Path, results: Path, *, localize: Mapping[str, str | int] = MappingProxyType({})
) -> Path:
    """Run all stages on a raw file with default settings, but for those given; return results."""
    config = parse_config(
        {
            "results": str(results),
            "compute": {"scheduler": "inline"},
            "ultrasound": {"localize": dict(localize)},
        },
        where="benchmark",
    )
    sample = Sample(
        sample="mouse",
        modality="ultrasound",
        path=str(raw),
        format="iq",
        spacing_um=(IQ_SPACING_UM, IQ_SPACING_UM),
        axes="tzx",
        frame_rate_hz=FRAME_RATE_HZ,
        wavelength_um=WAVELENGTH_UM,
        pose_mm=(IQ_ORIGIN_UM / 1000, IQ_ORIGIN_UM / 1000),
    )
    for stage in stages_of(sample):
        execute(Job(stage, config, sample))
    return results / sample.sample


def score(folder: Path, bubbles: BubbleTable, brain: Brain) -> dict[str, float]:
    """Compare detections, tracks and maps with the bubbles and with the real map.

    Distances are in wavelengths. A detection is a hit within λ/4 of a bubble and paired with one
    within λ/2 (PALA). All bubbles count whose centre is in the image, also the two pixels along
    its edge where none can be found.
    """
    detections, tracks = _table(folder / "detections"), _table(folder / "tracks")
    truth = _in_image(bubbles)
    found = (detections["frame"], _positions(detections) / WAVELENGTH_UM)
    true = (truth.frame, truth.position_um / WAVELENGTH_UM)
    gates = {"pair_distance": 1 / 2, "true_positive_distance": 1 / 4}
    ours = score_localization(*found, *true, **gates)
    pala = score_localization(*found, *true, **gates, matching="pala")

    points = _positions(tracks) / WAVELENGTH_UM
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

    density, speed = (read_map(folder, name) for name in ("density", "speed"))
    seen = density > 0
    passages = draw_truth(bubbles, density.shape)["density"]
    path = passages > 0
    real = pool(brain.counts > 0)
    return {
        "jaccard": ours.jaccard,
        "jaccard_pala": pala.jaccard,
        "precision": ours.precision,
        "recall": ours.recall,
        "rmse_wavelengths": ours.rmse,
        "track_rmse_wavelengths": float(
            np.sqrt(np.mean(np.sum((points[i] - true[1][j]) ** 2, axis=1)))
        ),
        "link_precision": links.precision,
        "link_recall": links.recall,
        "speed_error": relative_speed_error(velocity[i], truth.velocity_mm_s[j]),
        "map_speed_error": _map_speed_error(speed, brain.flow),
        "density_correlation": float(
            np.corrcoef(np.sqrt(density).ravel(), np.sqrt(passages).ravel())[0, 1]
        ),
        "dice_truth": dice(seen, path),
        "dice_map": dice(seen, real),
        "dice_map_of_truth": dice(path, real),
        "part_on_map": float(np.mean(real[seen])),
    }


def draw_truth(bubbles: BubbleTable, shape: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    """Return maps of the true bubbles, drawn as the workflow draws what it finds."""
    order = np.lexsort((bubbles.frame, bubbles.track))
    paths = {name: column[order] for name, column in bubbles.columns().items()}
    box = Box.of_shape(shape)
    sums = empty_sums(box)
    pixel_um = WAVELENGTH_UM / 10
    origin_um = IQ_ORIGIN_UM - IQ_SPACING_UM / 2 + pixel_um / 2
    accumulate(sums, paths, box=box, pixel_um=(pixel_um,) * 2, origin_um=(origin_um,) * 2)
    return maps(sums)


def pool(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether any of the 2 x 2 pixels is set that one pixel of ours covers."""
    return mask.reshape(CROP_PIXELS // 2, 2, CROP_PIXELS // 2, 2).any(axis=(1, 3))


def _map_speed_error(speed_mm_s: NDArray[np.float32], flow: FlowField) -> float:
    """Return the median relative difference of the speed maps where both have a speed."""
    vessel = flow.density > 0
    blocks = (CROP_PIXELS // 2, 2, CROP_PIXELS // 2, 2)
    pixels = vessel.reshape(blocks).sum(axis=(1, 3))
    total = np.where(vessel, flow.speed_mm_s, 0.0).reshape(blocks).sum(axis=(1, 3))
    both = (pixels > 0) & np.isfinite(speed_mm_s)
    true = total[both] / pixels[both]
    return float(np.median(np.abs(speed_mm_s[both] - true) / true))


def _in_image(bubbles: BubbleTable) -> BubbleTable:
    end_um = IQ_ORIGIN_UM + (IQ_PIXELS - 0.5) * IQ_SPACING_UM
    start_um = IQ_ORIGIN_UM - IQ_SPACING_UM / 2
    inside = ((bubbles.position_um >= start_um) & (bubbles.position_um < end_um)).all(axis=1)
    return BubbleTable(
        track=bubbles.track[inside],
        frame=bubbles.frame[inside],
        position_um=bubbles.position_um[inside],
        velocity_mm_s=bubbles.velocity_mm_s[inside],
        amplitude=bubbles.amplitude[inside],
    )


def _table(folder: Path) -> dict[str, NDArray[np.generic]]:
    parts = list(iter_parts(folder))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _positions(table: dict[str, NDArray[np.generic]]) -> NDArray[np.float64]:
    return np.stack([table["z_um"], table["x_um"]], axis=1).astype(np.float64)


def read_map(folder: Path, name: str) -> NDArray[np.float32]:
    image = open_image(folder / f"maps/{name}.ome.zarr")
    return image.read(Box.of_shape(image.spec.shape))


def draw(path: Path, folder: Path, bubbles: BubbleTable, *, title: str) -> None:
    """Write a picture of the bubbles' own maps beside those that were found."""
    density, speed = (read_map(folder, name) for name in ("density", "speed"))
    truth = draw_truth(bubbles, density.shape)
    draw_beside(
        path,
        density=(truth["density"], density),
        speed_mm_s=(np.nan_to_num(truth["speed_mm_s"]), np.nan_to_num(speed)),
        extent_mm=CROP_PIXELS * MAP_PIXEL_UM / 1000,
        title=title,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; its figures say little")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real data")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the default's maps")
    options = parser.parse_args()
    n_frames, concentrations = (600, (2,)) if options.quick else (3000, (1, 2, 4, 8))
    results = []
    for week in MAPS:
        brain = load_brain(options.data, week)
        for per_mm2 in concentrations:
            results += _compare(
                brain, week, per_mm2, n_frames=n_frames, seed=options.seed, folder=options.pictures
            )
    metrics = [key for key in results[0] if key not in ("case", "method")]
    for metric in ("case", "method", *metrics):
        print(f"{metric:<24}", *(f"{row[metric]:>28}" for row in results))
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(
        json.dumps({"benchmark": "real_ulm", "machine": machine, "results": results, "goals": []})
    )


def _compare(
    brain: Brain, week: str, per_mm2: int, *, n_frames: int, seed: int, folder: Path | None
) -> list[dict[str, str | float]]:
    """Return a row for each localizer on one acquisition, and draw the default's maps."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "mouse.npy"
        bubbles = acquire(brain, raw, mean_bubbles=per_mm2 * AREA_MM2, n_frames=n_frames, seed=seed)
        for number, (method, localize) in enumerate(LOCALIZERS.items()):
            if method != DEFAULT and week != next(iter(MAPS)):
                continue
            started = time.perf_counter()
            results = reconstruct(raw, Path(name) / str(number), localize=localize)
            seconds = time.perf_counter() - started
            scored = score(results, bubbles, brain)
            case = f"{week}, {per_mm2} bubbles/mm2"
            rows.append(
                {
                    "case": case,
                    "method": method,
                    **{metric: round(value, 4) for metric, value in scored.items()},
                    "seconds": round(seconds, 1),
                }
            )
            if folder is not None and method == DEFAULT:
                picture = folder / f"{week.replace(' ', '')}_{per_mm2}_per_mm2.png"
                draw(picture, results, bubbles, title=f"{case}, {n_frames / FRAME_RATE_HZ:g} s")
    return rows


if __name__ == "__main__":
    main()
