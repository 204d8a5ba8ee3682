import dataclasses

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.stats import kstest

from vasculome.simulate.bubble_pairs import FramePair, PairScene, frame_pairs, psf_bank

SCENE = PairScene((40, 60), max_step_um=100.0, unpaired=0.1, shape=(120, 150))


def bank(n=6, seed=0):
    return psf_bank(n, wavelength_um=50, pixel_um=4.928, rng=np.random.default_rng(seed))


def same(a: FramePair, b: FramePair):
    return all(
        getattr(a, f.name).tobytes() == getattr(b, f.name).tobytes()
        for f in dataclasses.fields(FramePair)
    )


def test_pairs_do_not_depend_on_those_before_them():
    whole = list(frame_pairs(SCENE, bank(), count=4, seed=5))
    later = list(frame_pairs(SCENE, bank(), count=2, seed=5, first=2))
    assert same(whole[2], later[0]) and same(whole[3], later[1])
    assert not same(whole[0], whole[1])
    assert not same(whole[0], next(frame_pairs(SCENE, bank(), count=1, seed=6)))


def test_partners_are_one_to_one_and_near():
    numbers, differ = set(), 0
    unpaired = np.zeros((2, 2))
    for pair in frame_pairs(SCENE, bank(), count=40, seed=1):
        m, n = len(pair.before_um), len(pair.after_um)
        numbers.add(m)
        differ += m != n
        paired = pair.partner >= 0
        unpaired += [[m - paired.sum(), n - paired.sum()], [m, n]]
        assert 40 <= m <= 60
        assert len(np.unique(pair.partner[paired])) == paired.sum()
        step = pair.after_um[pair.partner[paired]] - pair.before_um[paired]
        assert np.linalg.norm(step, axis=1).max() <= 100
        for place in (pair.before_um, pair.after_um):
            pixel = place / 4.928
            assert pixel.min() >= -0.5 and (pixel <= np.array([119.5, 149.5])).all()
    assert len(numbers) > 5 and differ > 10
    # Some 2000 bubbles a frame, one in ten unpaired: 0.02 is three standard deviations.
    np.testing.assert_allclose(unpaired[0] / unpaired[1], 0.1, atol=0.02)


def test_steps_are_uniform_in_the_disc_and_order_tells_nothing():
    scene = PairScene((400, 400), max_step_um=30.0)  # short, so that few would leave the field
    radius, order = [], []
    for pair in frame_pairs(scene, bank(1), count=5, seed=2):
        paired = pair.partner >= 0
        step = pair.after_um[pair.partner[paired]] - pair.before_um[paired]
        radius.append(np.linalg.norm(step, axis=1) / 30)
        order.append(np.corrcoef(np.flatnonzero(paired), pair.partner[paired])[0, 1])
    assert kstest(np.concatenate(radius) ** 2, "uniform").pvalue > 0.01
    assert np.abs(np.mean(order)) < 0.1


def test_a_lone_bubble_is_its_point_spread_function_times_its_brightness():
    one = dataclasses.replace(SCENE, bubbles=(1, 1), unpaired=0.0, brightness=(0.5, 0.8))
    shapes = bank(1)
    reach = shapes.shape[1] // 2
    for pair in frame_pairs(one, shapes, count=10, seed=3):
        peaks = []
        for frame, place in zip(pair.frames, (pair.before_um[0], pair.after_um[0]), strict=True):
            z, x = np.mgrid[:120, :150]
            where = [z - place[0] / 4.928 + reach, x - place[1] / 4.928 + reach]
            expected = map_coordinates(
                shapes[0].astype(float), where, order=1, mode="grid-constant"
            )
            seen = expected > 0.05
            peaks.append(np.median(frame[seen] / expected[seen]))
            np.testing.assert_allclose(frame, peaks[-1] * expected, atol=1e-5)
        assert min(peaks) >= 0.5 - 1e-5 and max(peaks) <= 0.8 + 1e-5
        assert abs(peaks[1] / peaks[0] - 1) <= 0.2 + 1e-5


def test_unpaired_bubbles_alone():
    scene = dataclasses.replace(SCENE, unpaired=1.0)
    pair = next(frame_pairs(scene, bank(), count=1, seed=0))
    assert (pair.partner == -1).all() and len(pair.after_um) > 0


def test_bank_holds_different_images_with_their_peak_in_the_middle():
    images = bank(30)
    middle = images.shape[1] // 2
    assert images.dtype == np.float32 and images.shape[1:] == (2 * middle + 1,) * 2
    assert (images[:, middle, middle] == 1).all() and images.max() == 1 and images.min() >= 0
    unit = images.reshape(30, -1) / np.linalg.norm(images.reshape(30, -1), axis=1)[:, None]
    alike = (unit @ unit.T)[np.triu_indices(30, 1)]
    assert alike.min() > 0.7 and alike.max() < 0.999
    width = (images > 0.5).sum(axis=(1, 2)) * 4.928**2
    assert 0.4 * 50**2 < np.median(width) < 2 * 50**2


@pytest.mark.parametrize(
    "wrong",
    [
        {"bubbles": (0, 5)},
        {"bubbles": (9, 5)},
        {"max_step_um": -1.0},
        {"unpaired": 1.5},
        {"brightness": (0.0, 1.0)},
        {"brightness_change": 1.0},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(SCENE, **wrong)
    with pytest.raises(ValueError, match="odd"):
        next(frame_pairs(SCENE, np.ones((2, 4, 5), np.float32), count=1, seed=0))
