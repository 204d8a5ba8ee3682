"""Robust least squares on a network: values at nodes from measured differences over edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, diags_array
from scipy.sparse.linalg import splu

Floats = NDArray[np.float64]

_HUBER_ROUNDS = 12
_TUKEY_ROUNDS = 8
_SETTLED = 0.02
_HUBER = 1.345
_TUKEY = 4.685
_LEAST_SCALE = 0.5
"""In the edges' sigmas: a perfect fit must not make outliers of good edges."""


class Network:
    """Weighted least squares for values at nodes; only the weights change between solutions.

    Parameters
    ----------
    ends
        Nodes i and j of each edge, shape (edges, 2).
    differences
        Wanted value at j less that at i, shape (edges, axes).
    expected
        What the values are expected to be, shape (nodes, axes).
    prior
        Weight of that, one an axis, more than 0.
    """

    def __init__(
        self, ends: NDArray[np.int_], differences: Floats, expected: Floats, prior: Floats
    ) -> None:
        rows = np.arange(len(ends)).repeat(2)
        signs = np.tile([-1.0, 1.0], len(ends))
        shape = (len(ends), len(expected))
        self._incidence = csr_array((signs, (rows, ends.ravel())), shape=shape)
        # Solved for the way from the expected values: small numbers lose no digits.
        self._wanted = differences - self._incidence @ expected
        self._expected, self._prior = expected, prior

    def solve(self, weights: Floats) -> Floats:
        """Return the values, for weights of shape (edges, axes); axes of one weight cost one."""
        moves = np.empty_like(self._expected)
        factors = {}
        for axis in range(moves.shape[1]):
            weighted = self._incidence.T @ diags_array(weights[:, axis])
            key = weights[:, axis].tobytes() + self._prior[axis].tobytes()
            if key not in factors:
                stay = diags_array(np.full(len(moves), self._prior[axis]))
                factors[key] = splu(
                    csc_array(weighted @ self._incidence + stay),
                    permc_spec="MMD_AT_PLUS_A",
                    diag_pivot_thresh=0.0,
                    options={"SymmetricMode": True},
                )
            moves[:, axis] = factors[key].solve(weighted @ self._wanted[:, axis])
        return self._expected + moves

    def residuals(self, values: Floats) -> Floats:
        """Return the difference over each edge less what was wanted, shape (edges, axes)."""
        residuals: Floats = self._incidence @ (values - self._expected) - self._wanted
        return residuals

    def robust_weights(self, precision: Floats) -> Floats:
        """Return the weight of each edge, 0 for those that contradict the others, at most 1.

        Iterated reweighting, first by Huber's function, which has one minimum, with so small a
        scale that it is all but the sum of absolute errors: false edges of a small network would
        widen any scale taken from the misfits. Then by Tukey's biweight, which gives gross errors
        no weight (Holland and Welsch 1977).

        Parameters
        ----------
        precision
            1 / sigma² of each edge along each axis, 0 for edges that do not count.
        """
        counts = precision.any(1)
        weights = counts.astype(float)
        if not counts.any():
            return weights
        # A false edge may think itself better than all others: none counts for more than most.
        precision = np.minimum(precision, np.median(precision[counts], axis=0))
        # One precision for all axes: one factorization a round instead of one an axis.
        same = np.repeat(precision.mean(1, keepdims=True), precision.shape[1], 1)
        for round_ in range(_HUBER_ROUNDS + _TUKEY_ROUNDS):
            residuals = self.residuals(self.solve(weights[:, None] * same))
            misfit = np.sqrt((np.square(residuals) * precision).mean(1))
            before = weights
            if round_ < _HUBER_ROUNDS:
                weights = counts * _huber(misfit / _LEAST_SCALE)
            else:
                scale = max(float(np.median(misfit[counts])), _LEAST_SCALE)
                weights = counts * _tukey(misfit / scale)
                if np.abs(weights - before).max() < _SETTLED:
                    break
        return weights


def _huber(ratio: Floats) -> Floats:
    weights: Floats = np.minimum(1.0, _HUBER / np.maximum(ratio, 1e-9))
    return weights


def _tukey(ratio: Floats) -> Floats:
    weights: Floats = np.square(np.maximum(0.0, 1 - np.square(ratio / _TUKEY)))
    return weights
