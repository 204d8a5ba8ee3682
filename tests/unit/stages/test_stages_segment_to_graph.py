"""From raw files by a network to the graph: odd volumes have an answer, or one line that tells why.

The network takes what is bright for a vessel, so that the truth is known.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hand_made_student import bright_student, write_student
from segmented_volume import SPACING_UM, job_of, run, voxels, write_planes

from vasculome.errors import UserError
from vasculome.metrics.segmentation import dice
from vasculome.metrics.topology import betti_numbers
from vasculome.models.student import StudentDesign
from vasculome.storage.tables import read_parts

CHAIN = ("ingest_image", "normalize", "enhance", "mask", "skeleton", "graph")
SHAPE = (20, 40, 48)
WHOLE = {"shard": (32, 64, 64)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A student that says exactly which voxels are brighter than the middle of the range."""
    network = bright_student(slope=200.0)
    return write_student(tmp_path_factory.mktemp("weights") / "exact.safetensors", network=network)


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """The student of the default design, with its stem of stride 2 and its group norms."""
    path = tmp_path_factory.mktemp("weights") / "light.safetensors"
    return write_student(path, network=bright_student(StudentDesign()))


def vessel(axis=2, shape=SHAPE, *, edge=5):
    """Return a straight vessel through a volume, bool (z, y, x)."""
    inside = np.zeros(shape, bool)
    inside[tuple(slice(max(0, n // 2 - edge // 2), n // 2 + edge // 2 + 1) for n in shape)] = True
    middle = inside.any(axis=axis, keepdims=True)
    return np.broadcast_to(middle, shape)


def segmented(volume, folder, weights, **settings):
    """Return the job of a volume, from whose raw files everything was made."""
    job = job_of(write_planes(folder / "raw", volume), folder, weights, **{**WHOLE, **settings})
    run(job, *CHAIN)
    return job


def graph_of(job):
    """Return the graph's summary, checked against the tables and the GraphML."""
    told = job.manifest("graph")["summary"]
    tables = {name: read_parts(job.folder / "graph" / name) for name in ("nodes", "edges")}
    assert len(tables["nodes"]["node"]) == told["nodes"]
    assert len(tables["edges"]["edge"]) == told["edges"]
    drawn = nx.read_graphml(job.folder / "graph/vessels.graphml")
    assert (len(drawn.nodes), len(drawn.edges)) == (told["nodes"], told["edges"])
    return told


@pytest.mark.parametrize(
    ("dtype", "dark", "bright"),
    [
        (np.uint8, 3, 210),
        (np.uint16, 100, 60000),
        (np.uint16, 2000, 4095),
        (np.float32, -1e-7, 1e-6),
        (np.float32, -2e9, 4e9),
    ],
    ids=["8 bit", "16 bit", "12 bit", "small floats", "large floats"],
)
def test_a_vessel_is_the_same_in_all_pixel_types(dtype, dark, bright, weights, tmp_path):
    truth = vessel()
    volume = np.where(truth, dtype(bright), dtype(dark))
    job = segmented(volume, tmp_path, weights)
    assert np.array_equal(voxels(job, "mask.ome.zarr"), truth)
    told = graph_of(job)
    assert (told["nodes"], told["edges"], told["ends"]) == (2, 1, 2)


@pytest.mark.parametrize("spacing_um", [(5.0, 1.0, 1.0), (1.0, 5.0, 5.0)], ids=["5:1", "1:5"])
@pytest.mark.parametrize("axis", [0, 2])
def test_a_vessel_of_long_voxels_has_its_length(axis, spacing_um, weights, tmp_path):
    """It ends about a radius before its ends, and up to a voxel and a half more."""
    job = segmented(vessel(axis).astype(np.uint8), tmp_path, weights, spacing_um=spacing_um)
    told = graph_of(job)
    assert (told["nodes"], told["edges"]) == (2, 1)
    length_um = SHAPE[axis] * spacing_um[axis]
    radius_um = 2.5 * max(spacing_um[other] for other in range(3) if other != axis)
    # What thins at the end of a vessel is counted in layers of the shortest voxels.
    lost_um = 2 * (radius_um + 1.5 * max(spacing_um))
    assert length_um - lost_um <= 1e3 * told["graph_length_mm"] <= 1.02 * length_um


@pytest.mark.parametrize(
    "shape", [(1, 40, 48), (20, 1, 48), (2, 40, 48)], ids=["a plane", "a row", "two planes"]
)
def test_a_vessel_in_a_thin_volume_is_one_edge(shape, weights, light, tmp_path):
    truth = vessel(shape=shape)
    volume = np.where(truth, np.uint16(900), np.uint16(100))
    exact = segmented(volume, tmp_path / "exact", weights)
    assert np.array_equal(voxels(exact, "mask.ome.zarr"), truth)
    coarse = segmented(volume, tmp_path / "light", light, window=32)
    assert dice(voxels(coarse, "mask.ome.zarr") > 0, truth) > 0.6
    for job in (exact, coarse):
        told = graph_of(job)
        assert (told["nodes"], told["edges"]) == (2, 1)
        assert 0.8 < told["graph_length_mm"] / (48 * SPACING_UM[2] / 1e3) < 1.02


@pytest.mark.parametrize("network", ["weights", "light"])
@pytest.mark.parametrize(
    "volume",
    [
        np.full((12, 30, 20), 700, np.uint16),
        np.full((12, 30, 20), 65535, np.uint16),
        np.full((12, 30, 20), -0.3, np.float32),
        np.full((1, 1, 1), 7, np.uint8),
    ],
    ids=["constant", "saturated", "constant float", "a voxel"],
)
def test_nothing_is_found_where_nothing_is(volume, network, tmp_path, request):
    job = segmented(volume, tmp_path, request.getfixturevalue(network), window=32)
    assert not voxels(job, "vessel_probability.ome.zarr").any()
    assert job.manifest("normalize")["summary"]["constant"]
    told = graph_of(job)
    assert (told["nodes"], told["edges"], told["euler_number"]) == (0, 0, 0)
    assert told["mean_edge_length_um"] is None and told["graph_length_mm"] == 0


def test_a_lone_voxel_is_a_node(weights, tmp_path):
    volume = np.zeros((12, 30, 20), np.uint8)
    volume[5, 6, 7] = 255
    job = segmented(volume, tmp_path, weights, normalize={"upper_percent": 100.0})
    assert np.array_equal(voxels(job, "mask.ome.zarr"), volume > 0)
    assert (graph_of(job)["nodes"], graph_of(job)["edges"]) == (1, 0)


@pytest.mark.parametrize(
    ("dtype", "most", "saturated"),
    [(np.uint8, 255, 0.0), (np.uint16, 65535, 0.0), (np.uint16, 65535, 0.6)],
    ids=["noise, 8 bit", "noise, 16 bit", "60 % saturated"],
)
def test_noise_keeps_its_topology_to_the_graph(dtype, most, saturated, weights, tmp_path):
    """Whatever is taken for vessel: χ of the graph is b0 - b1 + b2 of the mask."""
    noise = np.random.default_rng(0).random((9, 33, 30)) / (1 - saturated)
    volume = np.minimum(noise * most, most).astype(dtype)
    job = segmented(volume, tmp_path, weights, spacing_um=(5.0, 1.0, 1.0), shard=(32, 32, 32))
    mask = voxels(job, "mask.ome.zarr") > 0
    spread = job.manifest("normalize")["summary"]
    grey = (volume - spread["low"]) / (spread["high"] - spread["low"])
    # The network says a little of what is around, too.
    assert np.abs(grey - 0.5)[mask != (grey > 0.5)].max(initial=0) < 0.01
    b0, b1, b2 = betti_numbers(mask)
    assert graph_of(job)["euler_number"] == b0 - b1 + b2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_range_that_leaves_no_contrast_is_told(weights, tmp_path, dtype):
    """Less than 0.5 % of the voxels are vessel, on ground of one value."""
    volume = np.zeros((20, 40, 40), dtype)
    volume[:, 20, 20:22] = 200
    with pytest.raises(UserError, match=r"end at the intensity 0.*upper_percent higher"):
        segmented(volume, tmp_path, weights)
    job = segmented(volume, tmp_path / "whole", weights, normalize={"upper_percent": 100.0})
    spread = job.manifest("normalize")["summary"]
    assert spread == {"low": 0, "high": 200, "constant": False}
    assert np.array_equal(voxels(job, "mask.ome.zarr"), volume > 0)


def test_a_hot_pixel_that_hides_the_rest_is_told(weights, tmp_path):
    """Floats are counted in bins of their whole range: all others would be in the first."""
    volume = np.where(vessel(), np.float32(9), np.float32(1))
    volume[0, 0, 0] = 1e30
    with pytest.raises(UserError, match=r"reach from 1 to 1e\+30.*brighter than all others"):
        segmented(volume, tmp_path, weights)


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(fault, weights, tmp_path):
    volume = np.random.default_rng(0).random((4, 20, 20), np.float32)
    volume[2, 3, 4] = fault
    with pytest.raises(UserError, match=rf"plane_002.tif: plane 2 holds {fault} at row 3, column"):
        segmented(volume, tmp_path, weights)
    assert not list(tmp_path.glob("brain/manifests/*"))


@pytest.mark.parametrize("dtype", [np.int16, np.float64, bool])
def test_pixels_of_other_types_are_told(dtype, weights, tmp_path):
    with pytest.raises(UserError, match="convert it to one of uint8, uint16, float32"):
        segmented(vessel().astype(dtype), tmp_path, weights)
