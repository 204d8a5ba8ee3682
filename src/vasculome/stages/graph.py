"""Skeleton → graph: branch points and ends, the vessels between them, and a GraphML of all."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.memory import MemoryBound
from vasculome.config import RunConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile, TileGrid
from vasculome.stages.ingest_image import expected_shape
from vasculome.stages.job import Job, Outcome, content_of
from vasculome.stages.raw_tiles import mapped_tiles
from vasculome.stages.skeleton import POINTS, SKELETON
from vasculome.stages.volume import shard_voxels
from vasculome.stages.whole import write_whole
from vasculome.storage.bundles import read_bundle, write_bundle
from vasculome.storage.graphml import write_graphml
from vasculome.storage.omezarr import Image, ImageSpec, open_image
from vasculome.storage.tables import Columns, part_path, read_table, write_table
from vasculome.vessels.graph import HALO_VOXELS, Edges, Nodes, Seam, graph_of_tile
from vasculome.vessels.graph_join import GraphJoiner
from vasculome.vessels.graph_measure import Ways

GRAPH, SEAMS = "graph", "graph_seams"
NODES, EDGES, PATHS, GRAPHML = "nodes", "edges", "paths", "vessels.graphml"

_EDGES_AT_ONCE = 10_000
_EDGES_BYTES = 40_000_000
# As the maps take it: skeleton points a voxel of the mask, at the most.
_POINTS_PER_VOXEL = 0.01
_SEAM_POINT_BYTES = 40
# Lines of one voxel with two voxels between them fill a ninth of a volume; vessels a thousandth.
# A tile with more than this in it, and with more than a handful, holds no lines.
_MOST_POINTS_PER_VOXEL = 0.04
_HANDFUL = 10_000
_POINT_BYTES = 250


def settings(config: RunConfig) -> tuple[()]:
    """Return the settings that the output depends on: none."""
    return ()


def bound(job: Job) -> MemoryBound:
    """Return the memory bound: skeleton and kinds of voxels with halo, and lists of points.

    It holds for as many points as a tile may have. The main process holds what waits for the next
    layer of tiles, and the edges that it writes at once.
    """
    outer = shard_voxels(job, (2 * HALO_VOXELS,) * 3)
    points = _POINTS_PER_VOXEL * shard_voxels(job)
    shard = job.config.storage.shard_zyx
    shape = expected_shape(job, mapped_tiles(job))
    layer = math.prod(math.ceil(n / s) for n, s in zip(shape[1:], shard[1:], strict=True))
    waiting = 2 * layer * points * _SEAM_POINT_BYTES
    most = max(_MOST_POINTS_PER_VOXEL * shard_voxels(job), _HANDFUL)
    workers = MemoryBound(int(5 * outer + most * _POINT_BYTES), job.workers)
    return dataclasses.replace(workers, main_bytes=int(waiting) + _EDGES_BYTES)


def run(job: Job) -> Outcome:
    """Write the tables ``nodes``, ``edges`` and ``paths``, and ``vessels.graphml``."""
    skeleton = open_image(job.folder / SKELETON)
    spec = skeleton.spec
    halo = (HALO_VOXELS,) * len(spec.shape)
    grid = TileGrid(Box.of_shape(spec.shape), spec.shard, halo)
    with job.cluster() as cluster:
        results = map_tiles(
            functools.partial(_trace, skeleton=skeleton, grid=grid, folder=job.folder),
            grid,
            total=len(grid),
            store=job.folder / SEAMS,
            digest=job.digest(),
            cluster=cluster,
            label=GRAPH,
            bytes_per_tile=math.prod(spec.shard),
        )
    joined = write_whole(
        functools.partial(_join, spec=spec, grid=grid, folder=job.folder),
        store=job.folder / GRAPH,
        digest=job.digest(),
    )
    parts = [*results.values(), joined]
    return Outcome(content_of(parts), _summary([p.record for p in parts], spec), (SEAMS, GRAPH))


def _trace(tile: Tile, *, skeleton: Image, grid: TileGrid, folder: Path) -> TileResult:
    """Write the nodes and edges that lie in one tile, and what it must tell the others."""
    spec = skeleton.spec
    number = grid.number(tile)
    lines = skeleton.read(tile.outer) > 0
    _check_lines(lines[tile.core_in_outer], tile, skeleton.path)
    nodes, edges, seam = graph_of_tile(
        lines,
        read_table(part_path(folder / POINTS, number), ["radius_um"])["radius_um"],
        core=tile.core,
        outer=tile.outer,
        shape=spec.shape,
        spacing_um=spec.spacing_um,
    )
    path = _seam_path(folder, tile)
    files = {path.name: write_bundle(path, _arrays(seam))}
    for name, checksum in _write_part(folder / GRAPH, number, nodes, edges, spec).items():
        files[f"../{GRAPH}/{name}"] = checksum
    return TileResult(files, _record(nodes, edges))


def _check_lines(core: NDArray[np.bool_], tile: Tile, path: Path) -> None:
    """Raise UserError for a tile that holds more than centre lines can fill."""
    points = int(np.count_nonzero(core))
    if points > max(_MOST_POINTS_PER_VOXEL * core.size, _HANDFUL):
        first = ", ".join(map(str, tile.core.start))
        raise UserError(
            f"{points / core.size:.0%} of the block at voxel ({first}) is centre line, and lines "
            f"fill {_MOST_POINTS_PER_VOXEL:.0%} at most: its mask is solid or noise",
            where=path,
            fix="look at mask.ome.zarr there; raise microscopy.skeleton.max_radius_um if vessels "
            "are wider, or the thresholds of microscopy.segment if it is no vessel",
        )


def _join(
    *, spec: ImageSpec, grid: TileGrid, folder: Path
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write the nodes and edges across tiles, in parts after those of tiles, and the GraphML."""
    joiner = GraphJoiner(shape=spec.shape, spacing_um=spec.spacing_um)
    files: dict[str, str] = {}
    records: list[dict[str, Any]] = []

    def write() -> None:
        nodes, edges = joiner.take()
        number = len(grid) + len(records)
        files.update(_write_part(folder / GRAPH, number, nodes, edges, spec))
        records.append(_record(nodes, edges))

    for tile in grid:
        joiner.add(_seam(read_bundle(_seam_path(folder, tile))))
        if joiner.finished >= _EDGES_AT_ONCE:
            write()
    joiner.finish()
    write()
    parts = len(grid) + len(records)
    files[GRAPHML] = write_graphml(
        folder / GRAPH / GRAPHML,
        nodes=_for_graphml(folder, NODES, parts, _NODE_NAMES),
        edges=_for_graphml(folder, EDGES, parts, _EDGE_NAMES),
    )
    return files, {key: sum(record[key] for record in records) for key in records[0]}


def _seam_path(folder: Path, tile: Tile) -> Path:
    return folder / SEAMS / f"{tile.id}.npz"


def _arrays(seam: Seam) -> dict[str, NDArray[Any]]:
    """Return a seam as named arrays; those of its tables as ``nodes.radius_um`` and so on."""
    arrays: dict[str, NDArray[Any]] = {}
    for field in dataclasses.fields(seam):
        value = getattr(seam, field.name)
        if dataclasses.is_dataclass(value):
            for column in dataclasses.fields(value):
                arrays[f"{field.name}.{column.name}"] = getattr(value, column.name)
        else:
            arrays[field.name] = value
    return arrays


def _seam(arrays: dict[str, NDArray[Any]]) -> Seam:
    tables = {
        name: kind(**{f.name: arrays.pop(f"{name}.{f.name}") for f in dataclasses.fields(kind)})
        for name, kind in (("nodes", Nodes), ("ways", Ways))
    }
    return Seam(**tables, **arrays)


def _write_part(
    folder: Path, number: int, nodes: Nodes, edges: Edges, spec: ImageSpec
) -> dict[str, str]:
    """Write one part of each table; return checksums by paths from ``folder``."""
    tables = {
        NODES: {
            "node": nodes.node,
            **_positions(nodes.position_um, spec),
            "radius_um": nodes.radius_um,
            "length_um": (nodes.course_nm / 1e3).astype(np.float32),
            "degree": nodes.degree.astype(np.int32),
            "voxels": nodes.voxels,
            "euler_number": nodes.euler_number,
        },
        EDGES: {
            "edge": edges.edge,
            "source": edges.nodes[:, 0],
            "target": edges.nodes[:, 1],
            "length_um": edges.length_um,
            "radius_um": edges.radius_um,
            "tortuosity": edges.tortuosity,
        },
        PATHS: {
            "edge": np.repeat(edges.edge, np.diff(edges.path_start)),
            **_positions(edges.path_um, spec),
            "radius_um": edges.path_radius_um,
        },
    }
    paths = {name: part_path(folder / name, number) for name in tables}
    return {
        f"{name}/{paths[name].name}": write_table(paths[name], columns)
        for name, columns in tables.items()
    }


def _positions(position_um: NDArray[np.float64], spec: ImageSpec) -> Columns:
    placed = (position_um + np.asarray(spec.origin_um or (0.0, 0.0, 0.0))).astype(np.float32)
    return {f"{axis}_um": placed[:, i] for i, axis in enumerate("zyx")}


# What VesselVio calls the same, so that it finds them.
_NODE_NAMES = {"node": "node", "x_um": "X", "y_um": "Y", "z_um": "Z", "radius_um": "radius"}
_EDGE_NAMES = {
    "edge": "edge",
    "source": "source",
    "target": "target",
    "length_um": "length",
    "radius_um": "radius_avg",
    "tortuosity": "tortuosity",
}


def _for_graphml(folder: Path, table: str, parts: int, names: dict[str, str]) -> Iterator[Columns]:
    for number in range(parts):
        columns = read_table(part_path(folder / GRAPH / table, number), list(names))
        yield {names[key]: values for key, values in columns.items()}


def _record(nodes: Nodes, edges: Edges) -> dict[str, Any]:
    """Return what sums over the parts to the numbers of the whole."""
    told = ~np.isnan(edges.tortuosity)
    return {
        "nodes": len(nodes.node),
        "edges": len(edges.edge),
        "branch_points": int(np.count_nonzero(nodes.degree >= 3)),
        "ends": int(np.count_nonzero(nodes.degree == 1)),
        "euler_number": int(nodes.euler_number.sum()) - len(edges.edge),
        "length_um": float(edges.length_um.sum(dtype=np.float64)),
        "length_in_nodes_um": float(nodes.course_nm.sum() / 1e3),
        "tortuosity": float(edges.tortuosity[told].sum(dtype=np.float64)),
        "open_edges": int(np.count_nonzero(told)),
    }


def _summary(records: list[dict[str, Any]], spec: ImageSpec) -> dict[str, Any]:
    total = {key: sum(record[key] for record in records) for key in records[0]}
    volume_mm3 = math.prod(spec.shape) * math.prod(spec.spacing_um) / 1e9
    edges, open_edges = total["edges"], total["open_edges"]
    return {
        "nodes": total["nodes"],
        "edges": edges,
        "branch_points": total["branch_points"],
        "branch_points_per_mm3": round(total["branch_points"] / volume_mm3, 1),
        "ends": total["ends"],
        "graph_length_mm": round((total["length_um"] + total["length_in_nodes_um"]) / 1e3, 3),
        "mean_edge_length_um": round(total["length_um"] / edges, 3) if edges else None,
        "mean_tortuosity": round(total["tortuosity"] / open_edges, 4) if open_edges else None,
        "euler_number": total["euler_number"],
    }
