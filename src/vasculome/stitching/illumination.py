"""Uneven light, from the tiles themselves: flat field, dark level, and a gain for each tile.

A tile's value is ``dark + gain * flat(y, x) * sample``. Where two tiles overlap the sample is
the same, and what remains of their ratio is light. The mean of many tiles adds what overlaps
cannot tell, the middle of the field against its rim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from vasculome.stitching.levels import FieldSample, OverlapSample
from vasculome.stitching.network import Floats, Network
from vasculome.stitching.weighted_median import weighted_median

_DEGREE = 4
_TERMS = [(p, q) for p in range(_DEGREE + 1) for q in range(_DEGREE + 1 - p) if p + q]
"""Degree of the flat field's polynomial, and the orders in y and x of its terms but for the
constant."""
_ROUNDS = 12
_DARK_START = 0.5
_DARK_STOP = 0.95
_GAIN_SIGMA = 0.3
_LEAST_SIGNAL = 1e-3
_PRIOR_SPREAD = 0.2
"""Expected size of coefficients of order 2; it falls with the fourth power of the order."""
_PRIOR_TILT = 0.02
"""The same of order 1: a tilt is hard to tell from gains that rise along the grid."""
_BLOCKS_A_VOICE = 32.0
"""Blocks that err together, as what they err by is the sample's, not noise."""
_TILES_A_VOICE = 10.0
"""Tiles that show the same structure, as neighbours do."""
_FEWEST_FIELDS = 9


@dataclass(frozen=True)
class Shading:
    """The light over a camera's field, the same for every tile of a channel.

    Attributes
    ----------
    flat
        Relative brightness of each pixel of a tile, float32 (y, x), with mean 1.
    dark
        Grey level at no light.
    """

    flat: NDArray[np.float32]
    dark: float


def estimate_shading(
    fields: Sequence[FieldSample],
    overlaps: Sequence[OverlapSample],
    shape_yx: Sequence[int],
    *,
    dark: float | None = None,
) -> Shading:
    """Return the flat field that explains overlaps and mean levels best.

    The logarithm of the flat field is a polynomial, fitted by robust least squares to the ratios
    of overlapping blocks (each pair free in its mean, which is gain) and to the mean of all
    tiles' levels, weighted by how far those differ from tile to tile.

    Parameters
    ----------
    fields, overlaps
        Of one channel, from `sample_field` and `sample_overlap`; a few hundred are plenty.
    shape_yx
        Voxels of a tile in the plane.
    dark
        Grey level at no light, where it is known. By default the level, between 0 and the
        darkest seen, at which overlapping blocks differ least; 0 where levels reach below it, as
        the camera's level has then been taken off before.

    Raises
    ------
    ValueError
        If there are neither fields nor overlaps.
    """
    if not fields and not overlaps:
        raise ValueError("shading needs at least one field or one overlap")
    coefficients, level = _fit(fields, overlaps, shape_yx, dark)
    in_y, in_x = (legvander(np.linspace(-1, 1, n), _DEGREE) for n in shape_yx)
    # Row by column: a plane for each of its terms would take a gigabyte of a large camera.
    square = np.zeros((_DEGREE + 1, _DEGREE + 1))
    for (p, q), coefficient in zip(_TERMS, coefficients, strict=True):
        square[p, q] = coefficient
    flat = np.exp(in_y @ square @ in_x.T)
    return Shading((flat / flat.mean()).astype(np.float32), level)


def solve_gains(overlaps: Iterable[OverlapSample], count: int, *, shading: Shading) -> Floats:
    """Return the brightness of each of ``count`` tiles relative to their geometric mean.

    Robust least squares on the logarithms of the ratios that the overlaps show once the shading
    is taken out. Tiles without an overlap have 1.
    """
    ends, ratios = [], []
    for sample in overlaps:
        levels = [
            np.maximum(level - shading.dark, _LEAST_SIGNAL)
            / shading.flat[tuple(np.rint(field).astype(int).T)]
            for level, field in (
                (sample.levels_i, sample.field_i),
                (sample.levels_j, sample.field_j),
            )
        ]
        valid = np.minimum(sample.levels_i, sample.levels_j) > shading.dark
        if valid.any():
            ends.append((sample.i, sample.j))
            logs = np.log(levels[1][valid] / levels[0][valid])
            ratios.append(weighted_median(logs, levels[0][valid]))
    if not ends:
        return np.ones(count)
    network = Network(
        np.array(ends),
        np.array(ratios)[:, None],
        np.zeros((count, 1)),
        np.array([1 / _GAIN_SIGMA**2]),
    )
    precision = np.full((len(ends), 1), 1 / 0.005**2)
    weights = network.robust_weights(precision)
    logs = network.solve(weights[:, None] * precision)[:, 0]
    touched = np.unique(np.array(ends))
    gains = np.ones(count)
    gains[touched] = np.exp(logs[touched] - logs[touched].mean())
    return gains


def _basis(at: Floats, shape_yx: Sequence[int]) -> Floats:
    """Return each term of the polynomial, a product of Legendre's, at places (n, 2)."""
    y, x = (2 * at[:, k] / max(n - 1, 1) - 1 for k, n in enumerate(shape_yx))
    in_y, in_x = legvander(y, _DEGREE), legvander(x, _DEGREE)
    return np.stack([in_y[:, p] * in_x[:, q] for p, q in _TERMS], 1)


def _fit(
    fields: Sequence[FieldSample],
    overlaps: Sequence[OverlapSample],
    shape_yx: Sequence[int],
    dark: float | None,
) -> tuple[Floats, float]:
    """Return the coefficients of the flat field's logarithm, and the dark level.

    Robust Gauss-Newton steps on the log ratios of overlapping blocks.
    """
    lowest = min(
        [float(min(s.levels_i.min(), s.levels_j.min())) for s in overlaps]
        or [float(f.levels.min()) for f in fields]
    )
    level = _DARK_START * max(lowest, 0.0) if dark is None else dark
    if dark is None and not overlaps:
        level = 0.0
    wanted, precision = _expected_terms(fields, shape_yx, level)
    if not overlaps:
        return wanted, level
    pair = np.concatenate([np.full(len(s.levels_i), k) for k, s in enumerate(overlaps)])
    field_i, field_j = (np.concatenate([s[k] for s in overlaps]) for k in (2, 3))
    values_i, values_j = (np.concatenate([s[k] for s in overlaps]) for k in (4, 5))
    # What is not brighter than no light says nothing of light.
    lit = np.minimum(values_i, values_j) > level
    if not lit.any():
        return wanted, level
    _, pair = np.unique(pair[lit], return_inverse=True)
    field_i, field_j, values_i, values_j = (
        part[lit] for part in (field_i, field_j, values_i, values_j)
    )
    design = _basis(field_j, shape_yx) - _basis(field_i, shape_yx)
    coefficients, free = wanted, dark is None and lowest > 0
    fitted = np.zeros(len(pair))
    for _ in range(_ROUNDS):
        wanted, precision = _expected_terms(fields, shape_yx, level)
        signal_i, signal_j = (
            np.maximum(v - level, _LEAST_SIGNAL * np.maximum(v, 1)) for v in (values_i, values_j)
        )
        ratio = np.log(signal_j / signal_i)
        misfit = ratio - fitted
        root = np.sqrt((signal_i + signal_j) / 2)
        # The noise is not known beforehand, only how it goes with brightness.
        size = np.abs(misfit) * root
        scale = max(1.4826 * float(np.median(size)), 1e-9)
        weights = np.square(root / scale) * np.minimum(1.0, 1.345 * scale / np.maximum(size, 1e-9))
        weights /= _BLOCKS_A_VOICE
        # How the ratio goes with the dark level, by the fit: by the data it would share its noise.
        middle = np.sqrt(signal_i * signal_j)
        slope = (np.exp(fitted / 2) - np.exp(-fitted / 2)) / middle
        columns = np.concatenate([design, -slope[:, None] * free, ratio[:, None]], 1)
        centred = columns - _pair_means(columns, pair, weights)
        left, right = centred[:, :-1], centred[:, -1]
        weak = np.concatenate([precision, [1 / (0.5 * (lowest or 1.0)) ** 2]])
        solved = np.linalg.solve(
            left.T @ (weights[:, None] * left) + np.diag(weak),
            left.T @ (weights * right) + weak * np.concatenate([wanted, [0.0]]),
        )
        coefficients = solved[:-1]
        rest = ratio - design @ coefficients
        fitted = design @ coefficients + _pair_means(rest[:, None], pair, weights)[:, 0]
        if free:
            level = float(np.clip(level + solved[-1], 0.0, _DARK_STOP * lowest))
    return coefficients, level


def _pair_means(columns: Floats, pair: NDArray[np.int_], weights: Floats) -> Floats:
    """Return the weighted mean of each column over the blocks of a pair, at each block."""
    total = np.bincount(pair, weights)
    means = [np.bincount(pair, weights * column) / total for column in columns.T]
    return np.stack(means, 1)[pair]


def _expected_terms(
    fields: Sequence[FieldSample], shape_yx: Sequence[int], dark: float
) -> tuple[Floats, Floats]:
    """Return what the mean levels say of each coefficient, and the precision of that.

    Each tile's levels are fitted on their own, as their error is the sample's own structure,
    which a block shares with its neighbours but not with other tiles. The light's higher orders
    are weaker: that is the prior.
    """
    orders = np.array([p + q for p, q in _TERMS])
    prior = 1 / np.square(_PRIOR_SPREAD * (2 / np.maximum(orders, 2)) ** 4)
    prior[orders == 1] = 1 / _PRIOR_TILT**2
    found = []
    for field in fields:
        signal = field.levels - dark
        if signal.min() > _LEAST_SIGNAL * signal.max() > 0:
            design = _basis(field.places, shape_yx)
            free = np.concatenate([np.ones((len(design), 1)), design], 1)
            found.append(np.linalg.lstsq(free, np.log(signal), rcond=None)[0][1:])
    if len(found) < _FEWEST_FIELDS:
        return np.zeros(len(orders)), prior
    terms = np.array(found)
    middle = np.median(terms, axis=0)
    variance = np.var(terms, axis=0, ddof=1)
    for order in range(1, _DEGREE + 1):
        # Terms of one order are alike; together they are enough to know how they vary.
        variance[orders == order] = variance[orders == order].mean()
    precision = len(terms) / (_TILES_A_VOICE * np.maximum(1.57 * variance, 1e-8))
    return precision * middle / (precision + prior), precision + prior
