import numpy as np
import pytest
from scipy import ndimage
from skimage import filters

from vasculome.geometry import Box, TileGrid
from vasculome.vessels import enhance
from vasculome.vessels.hessian import derivative_kernels, hessian_planes

FILTERS = [enhance.frangi, enhance.sato]


def smooth_noise(shape, sigma, seed=0):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    image -= image.min()
    return (image / image.max()).astype(np.float32)


@pytest.mark.parametrize("filter_", FILTERS)
@pytest.mark.parametrize(
    ("shape", "tile", "spacing_um"),
    [((21, 30, 33), (9, 16, 33), (5.0, 2.0, 2.5)), ((60, 47), (16, 13), (2.0, 1.0))],
)
def test_tiles_give_the_whole_bit_for_bit(filter_, shape, tile, spacing_um):
    image = smooth_noise(shape, 1)
    scales_um = (1.5, 4.0)
    whole = filter_(image, scales_um=scales_um, spacing_um=spacing_um)
    assert whole.any()
    halo = enhance.halo_voxels(scales_um=scales_um, spacing_um=spacing_um)
    tiled = np.full_like(whole, np.nan)
    for t in TileGrid(Box.of_shape(shape), tile, halo):
        tiled[t.core.slices] = filter_(
            image[t.outer.slices],
            scales_um=scales_um,
            spacing_um=spacing_um,
            core=t.core_in_outer,
        )
    np.testing.assert_array_equal(tiled, whole)


def test_the_halo_is_not_larger_than_needed():
    spacing_um, scales_um = (5.0, 2.0, 2.0), (3.0,)
    halo = enhance.halo_voxels(scales_um=scales_um, spacing_um=spacing_um)
    image = np.zeros([2 * h + 21 for h in halo], np.float32)
    image[tuple(n // 2 for n in image.shape)] = 1
    reached = np.zeros(image.shape, bool)
    core = [slice(0, n) for n in image.shape]
    planes = hessian_planes(image, scale_um=3.0, spacing_um=spacing_um, core=core)
    for z, plane in enumerate(planes):
        reached[z] = (plane != 0).any(axis=0)
    for axis, h in enumerate(halo):
        spread = np.flatnonzero(reached.any(axis=tuple({0, 1, 2} - {axis})))
        assert (spread[-1] - spread[0]) // 2 == h


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.3])
def test_kernels_are_exact_on_parabolas(sigma):
    radius = int(np.ceil(4 * sigma))
    x = np.arange(-radius, radius + 1)
    smooth, slope, curve = derivative_kernels(sigma=sigma, radius=radius).astype(float)
    assert smooth.sum() == pytest.approx(1, abs=1e-6)
    assert (slope * (3 + 2 * x)).sum() == pytest.approx(2 * sigma, rel=1e-5)
    assert (curve * (3 + 2 * x + x**2)).sum() == pytest.approx(2 * sigma**2, rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 40, 40), (80, 80)])
@pytest.mark.parametrize("sigma", [2.0, 3.0])
def test_agrees_with_scikit_image_away_from_the_border(shape, sigma):
    image = smooth_noise(shape, 1.5)
    spacing_um = (2.0,) * image.ndim
    inner = (slice(13, -13),) * image.ndim
    ours = enhance.sato(image, scales_um=[2 * sigma], spacing_um=spacing_um)[inner]
    theirs = filters.sato(image, sigmas=[sigma], black_ridges=False)[inner]
    np.testing.assert_allclose(ours, theirs, atol=0.03 * theirs.max())
    ours = enhance.frangi(image, scales_um=[2 * sigma], spacing_um=spacing_um, structure=0.1)
    theirs = filters.frangi(image, sigmas=[sigma], black_ridges=False, gamma=0.1 / sigma**2)
    assert np.corrcoef(ours[inner].ravel(), theirs[inner].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("filter_", FILTERS)
def test_an_anisotropic_grid_sees_the_same_vessel(filter_):
    scales_um = (2.0, 3.0)

    def response(spacing_um):
        z, y, x = (
            np.arange(-16, 16.1, step).reshape([-1 if i == axis else 1 for i in range(3)])
            for axis, step in enumerate(spacing_um)
        )
        across = (0.6 * z + 0.8 * y) ** 2 + x**2  # runs along (0.8, -0.6, 0)
        vessel = np.exp(-across / (2 * 3.0**2)).astype(np.float32)
        centre = tuple(n // 2 for n in vessel.shape)
        return filter_(vessel, scales_um=scales_um, spacing_um=spacing_um)[centre]

    assert response((2.0, 1.0, 1.0)) == pytest.approx(response((1.0, 1.0, 1.0)), rel=0.03)


@pytest.mark.parametrize("filter_", FILTERS)
def test_tubes_answer_and_blobs_plates_and_dark_tubes_do_not(filter_):
    z, y, x = np.mgrid[-12:13, -12:13, -12:13]
    tube = np.exp(-(y**2 + x**2) / 8).astype(np.float32)
    plate = np.exp(-(x**2) / 8 + 0 * z).astype(np.float32)
    at_centre = {
        name: filter_(image, scales_um=[2.0], spacing_um=(1.0, 1.0, 1.0))[12, 12, 12]
        for name, image in (("tube", tube), ("plate", plate), ("dark", 1 - tube))
    }
    assert at_centre["tube"] > 0.2
    assert at_centre["plate"] < 0.02 * at_centre["tube"]
    assert at_centre["dark"] == 0


def test_frangi_prefers_tubes_to_blobs():
    z, y, x = np.mgrid[-12:13, -12:13, -12:13]
    blob = np.exp(-(z**2 + y**2 + x**2) / 8).astype(np.float32)
    tube = np.exp(-(y**2 + x**2) / 8).astype(np.float32)
    of_blob, of_tube = (
        enhance.frangi(i, scales_um=[2.0], spacing_um=(1.0,) * 3)[12, 12, 12] for i in (blob, tube)
    )
    assert of_blob < 0.2 * of_tube


def test_the_best_scale_grows_with_the_vessel():
    scales_um = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    x = np.broadcast_to(np.arange(-40, 41), (81, 81))
    best = []
    for radius in (2.0, 4.0, 8.0):
        vessel = (np.abs(x) <= radius).astype(np.float32)
        answers = [
            enhance.sato(vessel, scales_um=[s], spacing_um=(1.0, 1.0))[40, 40] for s in scales_um
        ]
        best.append(scales_um[int(np.argmax(answers))])
    assert best == sorted(set(best))


def test_hysteresis_classes():
    classes = enhance.hysteresis_classes(
        np.array([[0.1, 0.2, 0.3, 0.5, 0.6]], np.float32), low=0.2, high=0.5
    )
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, [[0, 0, 1, 1, 2]])
    with pytest.raises(ValueError, match="above"):
        enhance.hysteresis_classes(np.zeros((1, 1), np.float32), low=0.5, high=0.2)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="float32"):
        enhance.sato(np.zeros((5, 5)), scales_um=[1.0], spacing_um=(1.0, 1.0))
    with pytest.raises(ValueError, match="spacing"):
        enhance.sato(np.zeros((5, 5), np.float32), scales_um=[1.0], spacing_um=(1.0,))
