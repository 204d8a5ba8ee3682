import numpy as np
import pytest

from vasculome.training.volume_patches import (
    AdaptedPatches,
    GivenVolume,
    MixedPatches,
    VolumePatches,
)

SHAPE = (8, 8, 8)


def volume(number: int, shape=(20, 24, 24), *, labelled=True, spacing=(2.0, 1.0, 1.0)):
    """A volume whose intensities tell the voxel, and the volume by their tenths."""
    image = 0.1 * number + 0.09 * np.linspace(0, 1, np.prod(shape)).reshape(shape)
    mask = np.zeros(shape, np.bool_)
    mask[2, 6, 7] = mask[:, 20, 3] = True
    return GivenVolume(image.astype(np.float32), mask if labelled else None, spacing)


def patches(**changes) -> VolumePatches:
    arguments = {
        "training": (volume(1), volume(2, labelled=False)),
        "validating": (volume(3),),
        "shape": SHAPE,
        "seed": 0,
    }
    return VolumePatches(**(arguments | changes))


def of_volume(image: np.ndarray) -> set[int]:
    return set((image.ravel() * 10 + 1e-4).astype(int).tolist())


def test_patches_repeat_and_come_from_the_right_volumes() -> None:
    source, again = patches(), patches()
    seen = set()
    for i in range(20):
        image, mask = source.labelled(i)
        assert image.shape == mask.shape == SHAPE
        assert of_volume(image) == {1}
        np.testing.assert_array_equal(image, again.labelled(i)[0])
        assert of_volume(source.validation(i)[0]) == {3}
        seen |= of_volume(source.unlabelled(i))
    assert seen == {1, 2}


def test_image_and_mask_are_cut_alike() -> None:
    whole = volume(1)
    values = whole.image[whole.mask]
    for i in range(20):
        image, mask = patches().labelled(i)
        np.testing.assert_array_equal(np.isin(image, values), mask)


def test_half_of_the_patches_have_a_vessel_in_the_middle() -> None:
    thin = volume(1, shape=(60, 60, 60))
    held = [patches(training=(thin,)).labelled(i)[1].any() for i in range(200)]
    assert 0.45 < np.mean(held) < 0.8


def test_y_and_x_change_places_only_where_voxels_are_square() -> None:
    for spacing, both in (((2.0, 1.0, 1.0), True), ((2.0, 1.0, 1.5), False)):
        source = patches(training=(volume(1, spacing=spacing),))
        along_x = [abs(np.diff(source.labelled(i)[0], axis=2)).mean() for i in range(30)]
        # x is the fastest axis of the intensities, so a step along it is the least one.
        assert (max(along_x) > 5 * min(along_x)) == both


def test_thin_volumes_are_mirrored() -> None:
    source = patches(training=(volume(1, shape=(3, 24, 24)),), shape=(8, 8, 8))
    image, _ = source.labelled(0)
    planes = [image[k].mean() for k in range(8)]
    assert len(np.unique(np.round(planes, 6))) == 3


def test_there_must_be_labels() -> None:
    bare = patches(training=(volume(1, labelled=False),), validating=())
    assert of_volume(bare.unlabelled(0)) == {1}
    with pytest.raises(ValueError, match="no volume with a mask for train"):
        bare.labelled(0)
    with pytest.raises(ValueError, match="no volume with a mask for validation"):
        bare.validation(0)
    with pytest.raises(ValueError, match="no volume to learn from"):
        patches(training=())
    with pytest.raises(ValueError, match="differ"):
        GivenVolume(np.zeros((3, 3, 3), np.float32), np.zeros((3, 3, 4), np.bool_), (1, 1, 1))


def test_volumes_without_labels_are_learnt_beside_others_with() -> None:
    bare = patches(training=(volume(7, labelled=False),), validating=())
    source = AdaptedPatches(patches(), bare)
    assert of_volume(source.labelled(0)[0]) == {1}
    assert of_volume(source.unlabelled(0)) == {7}
    assert of_volume(source.validation(0)[0]) == {3}


def test_mixed_patches_take_their_part_of_each() -> None:
    mixed = MixedPatches(patches(), patches(training=(volume(5),)), part_seldom=0.25)
    found = [of_volume(mixed.labelled(i)[0]) for i in range(40)]
    assert found.count({5}) == 10
    assert all(found[i : i + 4].count({5}) == 1 for i in range(0, 40, 4))
    assert of_volume(mixed.validation(0)[0]) == {3}


class Counting:
    """Remembers which patches it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def labelled(self, index: int) -> int:
        self.asked.append(index)
        return index

    unlabelled = labelled


@pytest.mark.parametrize("part", [0.25, 0.3, 0.5])
def test_mixed_patches_leave_out_none_of_either_source(part: float) -> None:
    often, seldom = Counting(), Counting()
    mixed = MixedPatches(often, seldom, part_seldom=part)
    for i in range(40):
        mixed.labelled(i)
    assert seldom.asked == list(range(int(40 * part)))
    assert often.asked == list(range(40 - int(40 * part)))
    mixed.unlabelled(3)
    assert len(often.asked) + len(seldom.asked) == 41
