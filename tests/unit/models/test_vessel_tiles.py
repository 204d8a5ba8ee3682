"""Windows of a volume: nothing that is said depends on how the volume is cut into tiles."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from vasculome.config.segment import SegmentNetworkConfig
from vasculome.geometry import Box, TileGrid
from vasculome.models.student import Student, StudentDesign
from vasculome.models.vessel_tiles import vessel_probability
from vasculome.models.window_sums import WindowSums
from vasculome.models.windows import WindowPlan, seen_plane_voxels

GROUP = StudentDesign(widths=(2, 3), stem_stride=2, norm="group")
LOCAL = StudentDesign(widths=(3, 4, 5), stem_stride=1, norm="batch")


def student(design, seed=0):
    """Return a network whose answers differ from place to place and from window to window."""
    torch.manual_seed(seed)
    network = Student(design).eval()
    with torch.no_grad():
        network.head.weight.mul_(5)
    return network


def noise(shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def said(network, volume, plan, core=None, **settings):
    core = core or Box.of_shape(volume.shape)
    return vessel_probability(network, lambda box: volume[box.slices], core, plan, **settings)


@given(
    volume=st.tuples(*[st.integers(1, 90)] * 3),
    strides=st.integers(2, 5),
    shared=st.integers(0, 16),
    stride=st.sampled_from([1, 4, 8]),
    blend=st.sampled_from(["gaussian", "crop", "aligned"]),
)
@settings(max_examples=60, deadline=None)
def test_windows_cover_every_voxel(volume, strides, shared, stride, blend):
    window = strides * stride
    aligned = blend == "aligned"
    overlap = 2 * stride * ((strides - 1) // 2) if aligned else min(shared, window - stride)
    blend = "crop" if aligned else blend
    plan = WindowPlan(volume, window, overlap, stride, blend, aligned=aligned)
    for n, length, starts in zip(volume, plan.shape, plan.starts, strict=True):
        assert all(start % stride == 0 for start in starts) and length % stride == 0
        assert starts[0] == 0 and n <= starts[-1] + length < n + stride
        steps = np.diff(starts)
        assert (steps > 0).all() and (steps <= length).all()
    count = np.zeros(tuple(s[-1] + n for s, n in zip(plan.starts, plan.shape, strict=True)), int)
    for corner in itertools.product(*plan.starts):
        box = Box(corner, tuple(a + n for a, n in zip(corner, plan.shape, strict=True)))
        count[plan.own(box).slices] += 1
    assert count.min() == 1
    if blend == "crop":
        assert count.max() == 1
    for windows, length in zip(plan.owned if aligned else (), plan.shape, strict=False):
        for start, (first, end) in windows.items():
            assert first % (window - overlap) == 0
            # All that a voxel's surroundings are is seen, but for what is beyond the volume.
            assert start == 0 or first - start >= overlap // 2
            assert start == max(windows) or start + length - end >= overlap // 2


@given(
    volume=st.tuples(*[st.integers(1, 45)] * 3),
    core=st.tuples(*[st.integers(15, 40)] * 3),
    blend=st.sampled_from(["gaussian", "crop"]),
)
@settings(max_examples=25, deadline=None)
def test_windows_of_a_tile_are_all_that_bear_on_it(volume, core, blend):
    plan = WindowPlan(volume, 16, 6, 4, blend)
    everything = {w for layer in plan.layers(Box.of_shape(volume)) for w in layer}
    for tile in TileGrid(Box.of_shape(volume), core, (0, 0, 0)):
        layers = list(plan.layers(tile.core))
        mine = {window for layer in layers for window in layer}
        bearing = {w for w in everything if plan.own(w).intersect(tile.core) is not None}
        assert mine == bearing
        most = seen_plane_voxels(tile.core.shape, plan)
        for layer in layers:
            assert len({w.start[0] for w in layer}) == 1
            assert Box(layer[0].start[1:], layer[-1].stop[1:]).size <= most


@pytest.mark.parametrize("blend", ["gaussian", "crop"])
def test_tiles_say_what_the_whole_says(blend):
    volume = noise((30, 44, 41))
    network, plan = student(GROUP), WindowPlan(volume.shape, 16, 4, 4, blend)
    whole = said(network, volume, plan).probability
    assert whole.std() > 0.01
    for shape, batch_size in (((16, 16, 16), 3), ((30, 23, 17), 7)):
        for tile in TileGrid(Box.of_shape(volume.shape), shape, (0, 0, 0)):
            part = said(network, volume, plan, tile.core, batch_size=batch_size).probability
            np.testing.assert_allclose(part, whole[tile.core.slices], atol=1e-6)


def test_margins_as_wide_as_the_network_sees_make_it_exact():
    """Against the network on the whole volume at once; narrower ones do not."""
    volume = noise((24, 24, 200))
    network = student(LOCAL)
    with torch.no_grad():
        answer = network(torch.from_numpy(volume)[None, None])
    expected = torch.sigmoid(answer.logits)[0, 0].numpy()
    assert expected.std() > 0.01
    margin = -(-LOCAL.reach_voxels // LOCAL.stride) * LOCAL.stride
    for overlap, exact in ((2 * margin, True), (8, False)):
        for aligned in (True, False):
            plan = WindowPlan(
                volume.shape, overlap + 16, overlap, LOCAL.stride, "crop", aligned=aligned
            )
            assert len(plan.starts[2]) > 3
            error = np.abs(said(network, volume, plan).probability - expected).max()
            assert (error < 1e-5) == exact


@pytest.mark.parametrize("overlap", [8, 16])
def test_windows_are_blended_as_by_monai(overlap):
    volume = noise((32, 48 + 32, 64))
    network = student(GROUP)
    plan = WindowPlan(volume.shape, 32, overlap, 4)
    with torch.no_grad():
        expected = sliding_window_inference(
            torch.from_numpy(volume)[None, None],
            (32, 32, 32),
            2,
            lambda x: torch.sigmoid(network(x).logits),
            overlap=overlap / 32,
            mode="gaussian",
        )
    ours = said(network, volume, plan).probability
    np.testing.assert_allclose(ours, expected[0, 0].numpy(), atol=1e-5)


class _Counts(torch.nn.Module):
    """Says 1 of every voxel, and counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.asked = []

    def forward(self, x):
        self.asked.append(tuple(x.shape))
        return SimpleNamespace(logits=torch.full_like(x, 20.0) + self.nothing)


def test_background_is_not_looked_at():
    volume = np.full((16, 16, 64), 0.1, np.float32)
    volume[8, 8, 40] = 0.9
    plan = WindowPlan(volume.shape, 16, 0, 4)
    network = _Counts()
    found = said(network, volume, plan, background_contrast=0.5)
    assert (found.windows, found.skipped) == (4, 3)
    # A lone window is asked about twice at once, which is faster.
    assert network.asked == [(2, 1, 16, 16, 16)]
    np.testing.assert_array_equal(found.probability[8, 8], np.repeat([0, 0, 1, 0], 16))
    noisy = volume + np.float32(0.01) * noise(volume.shape)
    assert said(network, noisy, plan).skipped == 0
    assert said(network, noisy, plan, background_contrast=0.1).skipped == 3


def test_what_is_skipped_has_no_say():
    """Windows that see a vessel are believed to their ends, where others see nothing."""
    volume = np.full((16, 16, 64), 0.1, np.float32)
    volume[8, 8, 30] = 0.9
    plan = WindowPlan(volume.shape, 16, 8, 4)
    found = said(_Counts(), volume, plan, background_contrast=0.1)
    assert (found.windows, found.skipped) == (7, 5)
    np.testing.assert_allclose(found.probability[:, :, 16:40], 1, atol=1e-6)
    assert not found.probability[:, :, :16].any() and not found.probability[:, :, 40:].any()


@pytest.mark.parametrize("noise_level", [0, 0.005, 0.03])
@pytest.mark.parametrize("contrast", [0.2, 0.45])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_lone_capillary_of_one_voxel_is_looked_at(axis, contrast, noise_level):
    rng = np.random.default_rng(axis)
    volume = np.full((64, 64, 64), 0.2, np.float32)
    capillary = [21, 42, 11]
    capillary[axis] = slice(None)
    volume[tuple(capillary)] += contrast
    volume += rng.normal(0, noise_level, volume.shape).astype(np.float32)
    plan = WindowPlan(volume.shape, 64, 16, 16)
    default = SegmentNetworkConfig().background_contrast
    found = said(_Counts(), volume, plan, background_contrast=default)
    assert found.skipped == 0 and found.probability.min() > 0.99


def test_the_empty_space_around_a_brain_is_skipped():
    """Noise of a camera, 0.2 to 1 hundredth of the range; a bright inside is looked at."""
    rng = np.random.default_rng(0)
    plan = WindowPlan((64, 64, 64), 64, 16, 16)
    default = SegmentNetworkConfig().background_contrast
    for photons, scale in ((100, 1000), (100, 5000), (3, 255)):
        volume = (rng.poisson(photons, plan.volume) / scale).astype(np.float32)
        assert said(_Counts(), volume, plan, background_contrast=default).skipped == 1
    bright = np.ones(plan.volume, np.float32)
    assert said(_Counts(), bright, plan, background_contrast=default).skipped == 0


MIRRORS = [
    (slice(None, None, a), slice(None, None, b), slice(None, None, c))
    for a, b, c in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("blend", ["gaussian", "crop"])
def test_the_mean_of_mirror_images_counts(blend):
    """Against torch on each mirror image of the one window there is."""
    volume = noise((16, 20, 24))
    network, plan = student(GROUP), WindowPlan(volume.shape, 24, 4, 4, blend)
    expected = np.zeros(volume.shape)
    for mirror in MIRRORS:
        x = torch.from_numpy(volume[mirror].copy())[None, None]
        with torch.no_grad():
            answer = torch.sigmoid(network(x).logits)[0, 0].numpy()
        expected += answer[mirror] / 8
    found = said(network, volume, plan, flips=True).probability
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(said(network, volume, plan).probability - expected).max() > 0.01


@pytest.mark.parametrize("as_student", [True, False])
@pytest.mark.parametrize("blend", ["gaussian", "crop"])
def test_what_is_said_of_a_mirrored_volume_is_mirrored(blend, as_student):
    """Where windows fit the volume, and lie in mirrored places; one way alone it is not."""
    volume = noise((16, 28, 40))
    volume[:, :12, :12] = 0.1
    network, plan = student(GROUP), WindowPlan(volume.shape, 16, 4, 4, blend)
    if not as_student:
        alone = torch.nn.ModuleDict({"network": network})
        alone.forward = network.forward
        network = alone
    for flips in (True, False):
        whole = said(network, volume, plan, flips=flips, batch_size=3)
        apart = []
        for mirror in MIRRORS[1:]:
            turned = np.ascontiguousarray(volume[mirror])
            other = said(network, turned, plan, flips=flips, batch_size=2)
            assert (other.windows, other.skipped) == (whole.windows, whole.skipped)
            apart.append(np.abs(other.probability[mirror] - whole.probability).max())
        assert max(apart) < 1e-5 if flips else min(apart) > 1e-3


def test_batches_are_no_larger_than_told():
    volume = noise((16, 32, 48))
    network = _Counts()
    said(network, volume, WindowPlan(volume.shape, 16, 0, 4), batch_size=4)
    assert [shape[0] for shape in network.asked] == [3, 3]


@pytest.mark.parametrize("where", [(1, 2, 3), ...])
def test_what_is_no_number_is_refused(where):
    volume = noise((8, 8, 8))
    volume[where] = np.nan
    with pytest.raises(FloatingPointError, match="no number"):
        said(student(GROUP), volume, WindowPlan(volume.shape, 8, 0, 4))


@pytest.mark.parametrize(("window", "overlap"), [(10, 0), (16, 13), (16, -1), (8, 0)])
def test_impossible_windows_are_refused(window, overlap):
    with pytest.raises(ValueError, match="window"):
        WindowPlan((20, 20, 20), window, overlap, 4, least=16)


def test_each_plane_is_read_once():
    volume = noise((60, 24, 40))
    plan, core = WindowPlan(volume.shape, 16, 4, 4), Box((20, 4, 0), (55, 24, 33))
    boxes = []

    def read(box):
        boxes.append(box)
        return volume[box.slices]

    found = vessel_probability(student(GROUP), read, core, plan, planes_together=16)
    whole = said(student(GROUP), volume, plan).probability
    np.testing.assert_array_equal(found.probability, whole[core.slices])
    assert [(box.start[0], box.stop[0]) for box in boxes] == [(12, 32), (32, 48), (48, 60)]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_student_is_asked_without_torch(threads, monkeypatch):
    """The engine says what torch does, and the same whatever the threads."""
    volume = noise((32, 48, 40))
    network, plan = student(GROUP), WindowPlan(volume.shape, 16, 4, 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = said(network, volume, plan).probability
    alone = torch.nn.ModuleDict({"network": network})
    alone.forward = network.forward
    np.testing.assert_allclose(found, said(alone, volume, plan).probability, atol=1e-5)
    monkeypatch.setattr(Student, "forward", None)
    np.testing.assert_array_equal(found, said(network, volume, plan).probability)


def test_probabilities_are_those_of_an_exponential_function():
    logits = np.linspace(-40, 40, 16 * 16 * 16, dtype=np.float32).reshape(16, 16, 16)
    planes = []
    plan = WindowPlan(logits.shape, 16, 0, 4)
    sums = WindowSums(Box.of_shape(logits.shape), plan, lambda first, p: planes.append(p.copy()))
    sums.add(Box.of_shape(logits.shape), logits)
    sums.finish(16)
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(np.concatenate(planes), expected, atol=3e-7)
