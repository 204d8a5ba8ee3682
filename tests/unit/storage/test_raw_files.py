import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from vasculome.storage.raw_files import write_acquisition
from vasculome.storage.tables import read_parts

SHAPE = (6, 9)


def blocks(n_blocks: int, n_frames: int = 10) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    for number in range(n_blocks):
        rng = np.random.default_rng(number)
        frame = np.sort(rng.integers(n_frames, size=25)) + number * n_frames
        iq = rng.normal(size=(n_frames, *SHAPE, 2)) @ [1, 1j]
        yield iq.astype(np.complex64), {"frame": frame, "z_um": rng.random(25)}


def test_blocks_are_read_back_as_one(tmp_path):
    write_acquisition(tmp_path / "some/where", blocks(4), shape=(40, *SHAPE))
    iq = np.load(tmp_path / "some/where/iq.npy", mmap_mode="r")
    assert np.array_equal(iq, np.concatenate([b for b, _ in blocks(4)]))
    truth = read_parts(tmp_path / "some/where/truth")
    for name, column in truth.items():
        assert np.array_equal(column, np.concatenate([t[name] for _, t in blocks(4)]))


def test_another_acquisition_takes_its_place_whole(tmp_path):
    write_acquisition(tmp_path, blocks(4), shape=(40, *SHAPE))
    write_acquisition(tmp_path, blocks(2), shape=(20, *SHAPE))
    assert len(np.load(tmp_path / "iq.npy")) == 20
    assert len(read_parts(tmp_path / "truth")["frame"]) == 50


def test_what_ends_early_leaves_no_iq(tmp_path):
    write_acquisition(tmp_path, blocks(4), shape=(40, *SHAPE))
    with pytest.raises(ValueError, match="20 of 30 frames"):
        write_acquisition(tmp_path, blocks(2), shape=(30, *SHAPE))
    assert not (tmp_path / "iq.npy").exists()


def test_memory_does_not_grow_with_the_length(tmp_path):
    def peak(n_blocks: int) -> int:
        tracemalloc.start()
        write_acquisition(tmp_path, blocks(n_blocks, 200), shape=(200 * n_blocks, *SHAPE))
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return largest

    peak(2)
    assert peak(16) < 1.2 * peak(4)
