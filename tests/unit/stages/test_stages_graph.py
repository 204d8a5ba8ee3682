"""The graph of a mask on disk: the same whatever the shards, and readable by others."""

import json
import tracemalloc

import networkx as nx
import numpy as np
import pytest
from scipy import ndimage

from vasculome.config import RunConfig, Sample
from vasculome.errors import UserError
from vasculome.geometry import Box, Tile
from vasculome.metrics.topology import betti_numbers
from vasculome.stages import graph, skeleton
from vasculome.stages.job import Job
from vasculome.storage.omezarr import ImageSpec, create_image, open_image
from vasculome.storage.tables import read_parts
from vasculome.storage.verify import verify
from vasculome.vessels.graph import graph_of_tile

SHAPE, SPACING_UM, ORIGIN_UM = (40, 48, 56), (4.0, 2.0, 2.0), (100.0, 200.0, 300.0)


def _job(folder, stage, shard):
    config = RunConfig(
        results=str(folder / "results"),
        compute={"scheduler": "inline"},
        storage={"chunk_zyx": (8, 8, 8), "shard_zyx": shard},
        microscopy={"skeleton": {"max_radius_um": 8.0}},
    )
    sample = Sample(
        sample="brain",
        modality="microscopy",
        path=str(folder / "raw"),
        format="tiff_planes",
        spacing_um=SPACING_UM,
    )
    return Job(stage, config, sample)


def _mask():
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random(SHAPE), (1.5, 3, 3))
    mask = noise > np.quantile(noise, 0.75)
    mask[:, :, 40:] = False
    mask[10, 20, 46] = mask[20, 30:32, 50] = True  # a lone voxel, a pair
    mask[25, 28:38, 44:54] = True  # a ring
    mask[25, 29:37, 45:53] = False
    return mask


def _run(folder, mask, shard):
    """Write a mask as its stage would, then skeleton and graph; return the graph's outcome."""
    job = _job(folder, "skeleton", shard)
    spec = ImageSpec(
        name="mask",
        axes=("z", "y", "x"),
        shape=SHAPE,
        dtype="uint8",
        spacing_um=SPACING_UM,
        origin_um=ORIGIN_UM,
        chunk=(8, 8, 8),
        shard=shard,
        reduce="max",
    )
    image = create_image(job.folder / "mask.ome.zarr", spec)
    for start in np.ndindex(*(-(-n // s) for n, s in zip(SHAPE, shard, strict=True))):
        low = tuple(i * s for i, s in zip(start, shard, strict=True))
        high = tuple(min(a + s, n) for a, s, n in zip(low, shard, SHAPE, strict=True))
        box = Box(low, high)
        image.write(box, mask[box.slices].astype(np.uint8))
    _finish(job, "mask", "content", {}, ())
    made = skeleton.run(job)
    _finish(job, "skeleton", made.content, made.summary, made.stores)
    return graph.run(_job(folder, "graph", shard))


def _finish(job, stage, content, summary, stores):
    path = job.manifest_path(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"content": content, "summary": summary, "stores": list(stores)}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same mask in one shard and in many."""
    mask = _mask()
    shards = ((40, 48, 56), (16, 24, 16), (8, 16, 40))
    folders = [tmp_path_factory.mktemp("graph") for _ in shards]
    return mask, [
        (folder, _run(folder, mask, shard)) for folder, shard in zip(folders, shards, strict=True)
    ]


def _table(folder, name, *keys):
    table = read_parts(folder / "results/brain/graph" / name)
    order = np.lexsort([table[key] for key in reversed(keys)]) if keys else slice(None)
    return {key: values[order] for key, values in table.items()}


def test_shards_change_nothing(runs):
    _, ((whole, outcome), *others) = runs
    assert outcome.summary["edges"] > 30
    for folder, other in others:
        assert other.summary == pytest.approx(outcome.summary)
        for name, key in (("nodes", "node"), ("edges", "edge")):
            expected, found = _table(whole, name, key), _table(folder, name, key)
            for column in expected:
                np.testing.assert_array_equal(found[column], expected[column], err_msg=column)


def test_paths_lead_from_node_to_node_along_the_skeleton(runs):
    _, ((whole, _), (folder, _), _) = runs
    nodes, edges = _table(folder, "nodes", "node"), _table(folder, "edges", "edge")
    paths = _table(folder, "paths")
    position = dict(zip(nodes["node"].tolist(), _positions(nodes), strict=True))
    centre = open_image(folder / "results/brain/skeleton.ome.zarr").read(Box.of_shape(SHAPE)) > 0
    voxels_of = dict(zip(nodes["node"].tolist(), nodes["voxels"].tolist(), strict=True))
    on_paths, at_ends = np.zeros_like(centre), np.zeros_like(centre)
    for i, name in enumerate(edges["edge"].tolist()):
        path = _positions(paths)[paths["edge"] == name]
        for end, node in ((path[0], edges["source"][i]), (path[-1], edges["target"][i])):
            if voxels_of[node] == 1:
                np.testing.assert_array_equal(end, position[node])
        voxels = np.rint((path - ORIGIN_UM) / SPACING_UM).astype(int)
        assert np.abs(np.diff(voxels, axis=0)).max() == 1
        on_paths[tuple(voxels[1:-1].T)] = True
        at_ends[tuple(voxels[[0, -1]].T)] = True
        chord = np.linalg.norm(path[-1] - path[0])
        if chord:
            assert edges["length_um"][i] >= 0.999 * chord
            assert edges["tortuosity"][i] == pytest.approx(edges["length_um"][i] / chord, rel=1e-4)
    assert (on_paths <= centre).all() and (at_ends <= centre & ~on_paths).all()
    assert centre.sum() == on_paths.sum() + nodes["voxels"].sum()
    whole_paths = _table(whole, "paths")
    assert len(whole_paths["edge"]) == len(paths["edge"])


def _positions(table):
    return np.stack([table[f"{axis}_um"] for axis in "zyx"], axis=1)


def test_networkx_finds_the_topology_of_the_mask(runs):
    mask, ((_, outcome), (folder, _), _) = runs
    path = folder / "results/brain/graph/vessels.graphml"
    graph_of_file = nx.read_graphml(path, force_multigraph=True)
    betti = betti_numbers(mask)
    assert nx.number_connected_components(graph_of_file) == betti.components
    chi = betti.components - betti.loops + betti.cavities
    assert outcome.summary["euler_number"] == chi
    assert graph_of_file.number_of_edges() == outcome.summary["edges"]
    degree = dict(graph_of_file.degree())
    assert sum(d >= 3 for d in degree.values()) == outcome.summary["branch_points"]
    nodes = _table(folder, "nodes", "node")
    for name, x, y in zip(nodes["node"], nodes["x_um"], nodes["y_um"], strict=True):
        data = graph_of_file.nodes[f"n{name}"]
        assert (np.float32(data["X"]), np.float32(data["Y"])) == (x, y)
    edges = _table(folder, "edges", "edge")
    of_file = {name: data for *_, name, data in graph_of_file.edges(keys=True, data=True)}
    assert np.isnan(edges["tortuosity"]).any()
    for i, name in enumerate(edges["edge"]):
        data = of_file[f"e{name}"]
        expected = {"length": "length_um", "radius_avg": "radius_um", "tortuosity": "tortuosity"}
        for key, column in expected.items():
            # A vessel that returns to its node has no tortuosity.
            assert (key in data) == (not np.isnan(edges[column][i]))
            assert key not in data or np.float32(data[key]) == edges[column][i]


def test_ledgers_tell_of_all_files(runs):
    _, (_, (folder, outcome), _) = runs
    brain = folder / "results/brain"
    assert [verify(brain / store) for store in outcome.stores] == [[], []]
    recorded = sum(1 for _ in (brain / "graph").rglob("*") if _.suffix in (".parquet", ".graphml"))
    assert recorded == 3 * (len(list((brain / "graph_seams").glob("*.npz"))) + 1) + 1
    (brain / "graph/nodes/part-000000.parquet").unlink()
    assert any(damage for store in outcome.stores for damage in verify(brain / store))


def test_a_block_that_holds_no_lines_is_refused(tmp_path):
    # Wider than max_radius_um by far, so that thinning does not come to an end.
    with pytest.raises(UserError, match=r"% of the block at voxel \(0, 0, 0\)") as refused:
        _run(tmp_path, np.ones(SHAPE, bool), SHAPE)
    assert "skeleton.ome.zarr" in str(refused.value)
    assert "max_radius_um" in str(refused.value)


def test_the_fullest_block_that_is_taken_stays_under_the_bound(tmp_path, monkeypatch):
    shard = (64, 64, 64)
    monkeypatch.setattr(graph, "mapped_tiles", lambda job: None)
    monkeypatch.setattr(graph, "expected_shape", lambda job, tiles: shard)
    bound = graph.bound(_job(tmp_path, "graph", shard))
    # Voxels at random, nearly all of them branch points and ends: nothing costs more.
    voxels = np.zeros(shard, bool)
    voxels.ravel()[np.random.default_rng(5).permutation(voxels.size)[: voxels.size // 25]] = True
    tile = Tile((0, 0, 0), Box.of_shape(shard), Box.of_shape(shard))
    graph._check_lines(voxels, tile, tmp_path)
    parts = {"core": tile.core, "outer": tile.core, "shape": shard, "spacing_um": SPACING_UM}
    radius_um = np.ones(voxels.sum(), np.float32)
    graph_of_tile(voxels, radius_um, **parts)  # compiled
    tracemalloc.start()
    graph_of_tile(voxels, radius_um, **parts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < bound.bytes_per_worker


def test_an_empty_mask_has_an_empty_graph(tmp_path):
    outcome = _run(tmp_path, np.zeros(SHAPE, bool), (40, 24, 56))
    assert outcome.summary["nodes"] == outcome.summary["edges"] == 0
    assert outcome.summary["mean_edge_length_um"] is None
    assert len(nx.read_graphml(tmp_path / "results/brain/graph/vessels.graphml")) == 0
