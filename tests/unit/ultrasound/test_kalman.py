import numpy as np
import pytest

from vasculome.ultrasound.kalman import ConstantVelocity, predict, update

ERROR, CHANGE, NEW = 9.0, 0.5, 100.0


def textbook(measured, elapsed):
    """Run the filter in matrices, one axis, as any textbook has it."""
    state, cov = np.array([measured[0], 0.0]), np.diag([ERROR, NEW])
    observe = np.array([[1.0, 0.0]])
    for z, t in zip(measured[1:], elapsed, strict=True):
        move = np.array([[1, t], [0, 1]])
        noise = CHANGE * np.array([[t**3 / 3, t**2 / 2], [t**2 / 2, t]])
        state, cov = move @ state, move @ cov @ move.T + noise
        gain = cov @ observe.T / (observe @ cov @ observe.T + ERROR)
        state = state + gain[:, 0] * (z - state[0])
        cov = (np.eye(2) - gain @ observe) @ cov
    return state, cov


@pytest.mark.parametrize("ndim", [2, 3])
def test_equals_the_filter_in_matrices(ndim):
    rng = np.random.default_rng(0)
    elapsed = rng.integers(1, 4, 12).astype(float)
    measured = np.cumsum(rng.normal(5, 3, (13, ndim)), axis=0)
    position, velocity, covariance = measured[0].copy(), np.zeros(ndim), (ERROR, 0.0, NEW)
    for z, t in zip(measured[1:], elapsed, strict=True):
        position += t * velocity
        covariance = update(position, velocity, predict(covariance, t, CHANGE), z, ERROR)
    for axis in range(ndim):
        state, cov = textbook(measured[:, axis], elapsed)
        np.testing.assert_allclose([position[axis], velocity[axis]], state, rtol=1e-9)
        np.testing.assert_allclose(covariance, [cov[0, 0], cov[0, 1], cov[1, 1]], rtol=1e-9)


def test_stated_uncertainty_is_that_of_the_estimate():
    # Bubbles that move as the model says: the error has the covariance that the filter claims.
    rng = np.random.default_rng(1)
    n, frames = 4000, 15
    velocity_true = rng.normal(0, NEW**0.5, n)
    where = np.zeros(n)
    position, velocity = where + rng.normal(0, ERROR**0.5, n), np.zeros(n)
    covariance = (ERROR, 0.0, NEW)
    step = np.linalg.cholesky(CHANGE * np.array([[1 / 3, 1 / 2], [1 / 2, 1]]))
    for _ in range(frames):
        kick = step @ rng.normal(size=(2, n))
        where, velocity_true = where + velocity_true + kick[0], velocity_true + kick[1]
        position += velocity
        measured = where + rng.normal(0, ERROR**0.5, n)
        covariance = update(position, velocity, predict(covariance, 1.0, CHANGE), measured, ERROR)
    error = np.cov(position - where, velocity - velocity_true)
    claimed = [covariance[0], covariance[1], covariance[2]]
    np.testing.assert_allclose([error[0, 0], error[0, 1], error[1, 1]], claimed, rtol=0.1)


def test_errors_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        ConstantVelocity(0, 1)
