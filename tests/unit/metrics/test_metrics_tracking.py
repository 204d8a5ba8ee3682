import numpy as np
import pytest

from vasculome.metrics.tracking import relative_speed_error, score_links


def test_links_counted_by_hand():
    # Bubble 0 in frames 0-4, bubble 1 in frames 0-2: 4 + 2 true links. Track 0 follows bubble 0
    # over a gap (0, 1, 3: 1 + 2 links), then jumps to a false alarm. Track 1 swaps bubbles once.
    track = np.array([0, 0, 0, 0, 1, 1])
    frame = np.array([0, 1, 3, 4, 0, 1])
    bubble = np.array([0, 0, 0, -1, 1, 0])
    score = score_links(
        track,
        frame,
        bubble,
        true_bubble=np.array([1, 0, 0, 1, 0, 0, 1, 0]),
        true_frame=np.array([2, 4, 0, 0, 1, 2, 1, 3]),
    )
    assert (score.n_true, score.n_found, score.n_right) == (6, 5, 3)
    assert score.precision == pytest.approx(3 / 5) and score.recall == pytest.approx(3 / 6)


def test_false_alarms_do_not_link_with_each_other():
    score = score_links(
        np.array([0, 0]),
        np.array([0, 1]),
        np.array([-1, -1]),
        true_bubble=np.array([], int),
        true_frame=np.array([], int),
    )
    assert score.n_right == 0 and np.isnan(score.recall)


def test_median_relative_speed_error():
    true = np.array([[3.0, 4.0], [0.0, 10.0], [0.0, 0.0], [6.0, 8.0], [1.0, 0.0]])
    found = np.array([[4.5, 6.0], [9.0, 0.0], [5.0, 5.0], [np.nan, 1.0], [1.0, 0.0]])
    # Errors 0.5, 0.1 and 0; the resting point and the one without velocity are left out.
    assert relative_speed_error(found, true) == pytest.approx(0.1)
    assert np.isnan(relative_speed_error(found[:0], true[:0]))
    with pytest.raises(ValueError, match="differ"):
        relative_speed_error(found[:2], true)
