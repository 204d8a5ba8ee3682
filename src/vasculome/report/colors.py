"""Colour maps for pictures on black: even in lightness where brightness tells something else.

Where brightness already shows density, colour must not change its own lightness (Kovesi 2015,
"Good colour maps: how to design them", arXiv:1509.03700); such maps are built in CIELAB here.
"""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from skimage.color import lab2xyz

_RGB_OF_XYZ = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)
"""Linear sRGB from CIE XYZ (IEC 61966-2-1)."""

_SMOOTHING = 41
"""Width, in colours, over which saturation follows the edge of the sRGB gamut."""


def _linear_rgb(
    lightness: float, chroma: NDArray[np.floating], hue: NDArray[np.floating]
) -> NDArray[np.floating]:
    lab = [np.full(hue.shape, lightness), chroma * np.cos(hue), chroma * np.sin(hue)]
    return lab2xyz(np.stack(lab, axis=-1)) @ _RGB_OF_XYZ.T


def _even_lightness(
    name: str, *, lightness: float, hue_degrees: NDArray[np.floating], edge: str
) -> ListedColormap:
    """Return hues of one lightness, as saturated as sRGB allows without an edge in the map."""
    hue = np.deg2rad(hue_degrees)
    chroma = np.zeros(hue.shape)
    reachable = np.ones(hue.shape, bool)
    for trial in np.arange(1.0, 76.0):
        rgb = _linear_rgb(lightness, np.full(hue.shape, trial), hue)
        reachable &= ((rgb >= 0) & (rgb <= 1)).all(axis=-1)
        chroma[reachable] = trial
    chroma = minimum_filter1d(chroma, _SMOOTHING, mode=edge)
    chroma = uniform_filter1d(chroma, _SMOOTHING, mode=edge)
    return ListedColormap(_srgb(_linear_rgb(lightness, chroma, hue)), name=name)


def _signed(name: str, *, below_degrees: float, above_degrees: float) -> ListedColormap:
    """Return two hues that leave black alike: at one size, of one lightness and saturation."""
    size = np.linspace(0, 1, 128)
    hues = np.deg2rad([below_degrees, above_degrees])
    sides = np.zeros((2, len(size), 3))
    for k, lightness in enumerate(88 * size):
        for chroma in np.arange(48.0):
            rgb = _linear_rgb(lightness, np.full(2, chroma), hues)
            if ((rgb < -1e-3) | (rgb > 1)).any():
                break
            sides[:, k] = _srgb(rgb)
    return ListedColormap(np.concatenate([sides[0, ::-1], sides[1]]), name=name)


def _srgb(linear: NDArray[np.floating]) -> NDArray[np.floating]:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _on_black(cmap: Colormap) -> Colormap:
    return cmap.with_extremes(bad="black")


INTENSITY = _on_black(matplotlib.colormaps["gray"])
"""Microscope intensity, masks and power Doppler."""

DENSITY = _on_black(matplotlib.colormaps["inferno"])
"""Densities: black is none. Perceptually uniform."""

LENGTH_DENSITY = _on_black(matplotlib.colormaps["magma"])
"""Length density, told apart from volume fraction at a glance. Perceptually uniform."""

RADIUS = _on_black(ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0.25, 1, 256))))
"""Radii on a grey image: plasma without its darkest quarter, which black would swallow."""

SPEED = _on_black(
    _even_lightness("speed", lightness=70, hue_degrees=np.linspace(290, 25, 256), edge="nearest")
)
"""Speeds: violet and blue are slow, orange and red fast, lightness even."""

DIRECTION = _even_lightness("direction", lightness=68, hue_degrees=np.arange(360.0), edge="wrap")
"""In-plane direction, cyclic, lightness even; the index is the angle in degrees."""

AXIAL = _on_black(
    LinearSegmentedColormap.from_list(
        "axial",
        [
            (0.0, "#c4e6ff"),
            (0.22, "#3b97ff"),
            (0.4, "#1646b8"),
            (0.5, "#000000"),
            (0.6, "#a81d0c"),
            (0.78, "#ff5a36"),
            (1.0, "#ffdcb4"),
        ],
    )
)
"""Signed axial velocity as in colour Doppler: red toward the probe, blue away, black at rest."""

SHIFT = _on_black(_signed("shift", below_degrees=265.0, above_degrees=60.0))
"""Signed displacements and differences: blue is less, orange more, black none."""

PAIR = ("#ff8c1a", "#0073e5")
"""Two maps over each other: orange and blue, told apart by all, are white together."""

FLAT_FIELD = _on_black(matplotlib.colormaps["cividis"])
"""Relative brightness over a camera's field. Perceptually uniform for all colour vision."""

TILE_STATES = {
    "placed": ("#22364d", "#55779c"),
    "stage": ("#6b4700", "#ffb000"),
    "dark": ("#000000", "#a8a8a8"),
}
"""Face and edge of a tile by its state; hatching tells them apart without colour."""

MISREPORTED = "#ff7ac2"
"""Edge of tiles that the stage misreported."""
