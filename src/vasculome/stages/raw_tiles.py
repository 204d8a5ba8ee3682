"""What the stages of stitching share: the raw tiles of a sample, opened lazily."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.config import Sample
from vasculome.errors import UserError, some_of
from vasculome.geometry import Box
from vasculome.readers.acquisition import open_acquisition
from vasculome.readers.files import changed_ns
from vasculome.readers.tile_set import Acquisition, TileSet, Volume
from vasculome.stages.job import Job
from vasculome.stitching.place import connected_parts
from vasculome.stitching.register import MIN_OVERLAP_PX, find_pairs

_SPARSE = 10.0


@dataclass(frozen=True)
class LazyTile:
    """A raw volume as something to slice, so that only what is looked at is read."""

    volume: Volume

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels (z, y, x)."""
        return self.volume.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self.volume.dtype

    def __getitem__(self, index: tuple[slice, ...], /) -> NDArray[Any]:
        """Read the voxels of ``index``."""
        box = Box.of_shape(self.shape)
        bounds = [part.indices(n)[:2] for part, n in zip(index, box.stop, strict=True)]
        return self.volume.read(Box(*(tuple(side) for side in zip(*bounds, strict=True))))


def mapped_tiles(job: Job) -> TileSet:
    """Return the tiles of the channel that is mapped; raises UserError for what is wrong."""
    return _acquisition(job).tiles(job.sample.channel, where=Path(job.sample.path))


def registered_tiles(job: Job) -> TileSet:
    """Return the tiles of the channel on which they are registered; raises as `mapped_tiles`."""
    chosen = job.sample.register_channel
    if chosen is None:
        return mapped_tiles(job)
    return _acquisition(job).tiles(chosen, where=Path(job.sample.path))


def raw_fingerprint_of(job: Job, tiles: TileSet) -> str:
    """Return the identity of the files of ``tiles``, without reading pixels."""
    return _fingerprint(tiles, changed_ns(Path(job.sample.path)))


def _acquisition(job: Job) -> Acquisition:
    return _opened(job.sample, changed_ns(Path(job.sample.path)))


# A terabyte is a million files: a process looks at them once, not once a stage.
@functools.lru_cache(maxsize=16)
def _fingerprint(tiles: TileSet, _changed_ns: int) -> str:
    return tiles.fingerprint()


@functools.lru_cache(maxsize=16)
def _opened(sample: Sample, _changed_ns: int) -> Acquisition:
    return open_acquisition(
        Path(sample.path),
        format=sample.format,  # type: ignore[arg-type]
        spacing_um=sample.spacing_um,
        pattern=sample.pattern,
        grid=sample.grid,
        order=sample.order,
        overlap_percent=sample.overlap_percent,
        stage_axes=sample.stage_axes,
        allow_missing_planes=bool(sample.allow_missing_planes),
    )


def nominal_starts(tiles: TileSet, spacing_um: tuple[float, ...]) -> NDArray[np.float64]:
    """Return where the stage says that tiles begin, in voxels from the least, (tiles, 3)."""
    positions_um = np.asarray(tiles.positions_um, float)
    return (positions_um - positions_um.min(0)) / spacing_um


def shapes_of(tiles: TileSet) -> NDArray[np.int64]:
    """Return the voxels of each tile, (tiles, 3)."""
    return np.array([volume.shape for volume in tiles.volumes])


def check_positions(job: Job, tiles: TileSet) -> None:
    """Raise UserError where the tiles' positions cannot be right, without reading pixels."""
    where = Path(job.sample.path)
    starts, shapes = nominal_starts(tiles, job.sample.spacing_um), shapes_of(tiles)
    extent = np.ceil((starts + shapes).max(0)).astype(int).tolist()
    if np.prod(extent, dtype=float) > _SPARSE * shapes.prod(1, dtype=float).sum():
        raise UserError(
            f"the tiles cover less than a tenth of the volume {tuple(extent)} that holds them",
            where=where,
            fix="check the tiles' positions and spacing_um: both are in micrometres",
        )
    if len(np.unique(shapes[:, 1:], axis=0)) > 1 and job.config.microscopy.stitch.light.flat_field:
        raise UserError(
            "tiles differ in height or width: there is no one flat field",
            where=where,
            fix="set microscopy.stitch.light.flat_field: false",
        )
    chosen = job.config.microscopy.stitch.positions
    if chosen.source == "pairs" and not chosen.allow_stage_positions:
        _refuse_strays(tiles, starts, shapes, where)


def _refuse_strays(
    tiles: TileSet, starts: NDArray[np.float64], shapes: NDArray[np.int64], where: Path
) -> None:
    """Raise UserError that names tiles which no pair can join to the rest."""
    pairs = np.array(find_pairs(starts, shapes), int).reshape(-1, 2)
    count = len(starts)
    alone = ~np.isin(np.arange(count), pairs)
    apart = connected_parts(pairs, np.ones(count, bool)) > 0
    strays = alone if alone.any() else apart
    if count == 1 or not strays.any():
        return
    whom = "no other" if alone.any() else "none of the rest"
    names = some_of([tiles.names[k] for k in np.flatnonzero(strays)])
    least = " × ".join(map(str, MIN_OVERLAP_PX))
    raise UserError(
        f"{strays.sum()} of {count} tiles overlap {whom}: {names}",
        where=where,
        fix=f"neighbours must share {least} voxels at least: check positions, overlap, stage_axes "
        "and spacing_um, all lengths in micrometres; or set microscopy.stitch.positions."
        "allow_stage_positions: true",
    )
