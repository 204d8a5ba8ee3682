import numpy as np
import pytest

from vasculome.metrics.tracking import relative_speed_error, score_links, score_tracks


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


def score_paths(tracks, truth, **options):
    """Score tracks given as {track: [(frame, bubble), ...]} against {bubble: frames}."""
    points = [(t, f, b) for t, path in tracks.items() for f, b in path]
    track, frame, bubble = np.array(points, int).reshape(-1, 3).T
    true = np.array([(b, f) for b, frames in truth.items() for f in frames], int).reshape(-1, 2)
    return score_tracks(
        track, frame, bubble, true_bubble=true[:, 0], true_frame=true[:, 1], **options
    )


def along(frames, bubble):
    return [(f, bubble) for f in frames]


def test_perfect_tracks():
    truth = {4: range(10), 9: range(5, 20)}
    score = score_paths({0: along(range(10), 4), 1: along(range(5, 20), 9)}, truth)
    assert (score.n_true, score.n_found, score.right, score.followed) == (2, 2, 2, 2)
    assert score.precision == score.recall == score.point_precision == score.point_recall == 1
    assert score.switches == score.fragments == 0


def test_two_bubbles_that_are_swapped_halfway():
    tracks = {
        0: along(range(5), 0) + along(range(5, 10), 1),
        1: along(range(5), 1) + along(range(5, 10), 0),
    }
    score = score_paths(tracks, {0: range(10), 1: range(10)})
    assert (score.right, score.followed, score.switches, score.fragments) == (0, 0, 2, 0)
    assert score.point_precision == score.point_recall == 0.5
    half = score_paths(tracks, {0: range(10), 1: range(10)}, least_part=0.5)
    assert half.right == half.followed == 2


def test_a_bubble_lost_and_found_again():
    # Frames 4 and 5 are in no track: one switch, one fragment. Only the longer piece is paired.
    broken = {0: along(range(4), 0), 1: along(range(6, 16), 0)}
    score = score_paths(broken, {0: range(16)})
    assert (score.switches, score.fragments) == (1, 1)
    assert (score.n_found, score.right, score.followed) == (2, 1, 0)
    assert score.point_precision == pytest.approx(10 / 14)
    assert score.point_recall == pytest.approx(10 / 16)
    # One track over the gap holds it; a bubble that was away in those frames was not lost.
    assert score_paths({0: along([*range(4), *range(6, 16)], 0)}, {0: range(16)}).switches == 0
    away = score_paths(broken, {0: [*range(4), *range(6, 16)]})
    assert (away.switches, away.fragments) == (1, 0)


def test_pairing_of_tracks_is_the_best_and_not_the_first():
    # Track 0 shares 6 points with bubble 0 and 5 with bubble 1, track 1 shares 5 with bubble 0:
    # the largest pair first would leave 6 points, crossing them has 10.
    tracks = {0: along(range(6), 0) + along(range(6, 11), 1), 1: along(range(6, 11), 0)}
    score = score_paths(tracks, {0: range(11), 1: range(11)})
    assert score.point_precision == pytest.approx(10 / 16)


def test_false_tracks_and_missed_bubbles():
    score = score_paths({0: along(range(8), -1), 1: along(range(8), 3)}, {3: range(8), 5: range(9)})
    assert (score.precision, score.recall) == (0.5, 0.5)
    assert (score.point_precision, score.point_recall) == (8 / 16, 8 / 17)
    nothing = score_paths({}, {3: range(8)})
    assert nothing.recall == 0 and np.isnan(nothing.precision) and nothing.switches == 0


def test_tracks_that_cannot_be_scored():
    with pytest.raises(ValueError, match="not in the truth"):
        score_paths({0: [(0, 7)]}, {3: range(8)})
    with pytest.raises(ValueError, match="part"):
        score_paths({0: [(0, 3)]}, {3: range(8)}, least_part=0)
    with pytest.raises(ValueError, match="length"):
        one = np.zeros(1, int)
        score_tracks(one, one, one[:0], true_bubble=one, true_frame=one)
