"""Which sites of a correlation movie a network is given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vasculome.ultrasound.sparsify import above, strongest

MOVIE = np.array([[0.1 + 0.2j, 0.6j], [-0.6, 0.3 - 0.4j]], np.complex64)


def test_threshold_is_of_the_squared_magnitude() -> None:
    assert above(MOVIE, threshold=0.3).tolist() == [[False, True], [True, False]]
    assert above(MOVIE, threshold=0.2).tolist() == [[False, True], [True, True]]
    with pytest.raises(ValueError, match="threshold"):
        above(MOVIE, threshold=1.0)


@given(seed=st.integers(0, 99), count=st.integers(1, 70))
def test_strongest_are_those_that_sorting_puts_first(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different magnitudes, so that there are ties.
    movie = rng.integers(0, 5, (4, 4, 4)).astype(np.complex64) * (1 + 1j)
    chosen = strongest(movie, count=count)
    assert np.count_nonzero(chosen) == min(count, movie.size)
    if count < movie.size:
        assert abs(movie[chosen]).min() >= abs(movie[~chosen]).max()
    assert np.array_equal(chosen, strongest(movie.copy(), count=count))


def test_at_least_one_site() -> None:
    with pytest.raises(ValueError, match="too few"):
        strongest(MOVIE, count=0)
