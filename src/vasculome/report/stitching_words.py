"""Stitching in words: a sentence of counts, every fault by name, and the pairs, worst first."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vasculome.errors import some_of
from vasculome.report.mosaic import EDGES, TILES, Mosaic
from vasculome.report.page import Alert, Table
from vasculome.report.words import MISSING

MOST_NAMES = 10
"""Names that a list in the report holds; the tables on disk hold all."""

MOST_PAIRS = 25
_MOST_UNUSED = 15
"""Rows of the table of pairs that those not used may take, while there are others to show."""

_TILE_NUMBER = re.compile(r"\btile \d+\b")


def alerts(mosaic: Mosaic) -> list[Alert]:
    """Return what nobody may overlook: tiles placed by the stage or left out, and light."""
    tiles, found = mosaic.tiles, []
    count = len(tiles.names)
    adrift = np.flatnonzero(tiles.by_stage)
    if adrift.size:
        found.append(
            Alert(
                f"{adrift.size} of {_many(count, 'tile')} placed by the stage alone.",
                f"{_why_adrift(mosaic)}: expect seams as large as the error of the stage. "
                f"Tiles: {_names(mosaic, adrift)}.",
            )
        )
    dark = np.flatnonzero(tiles.state == "dark")
    if dark.size:
        found.append(
            Alert(
                f"{dark.size} of {_many(count, 'tile')} left out as dark.",
                "There is no image in them: what no neighbour covers is 0 in the volume. "
                f"Tiles: {_names(mosaic, dark)}.",
            )
        )
    if mosaic.light_fault:
        found.append(
            Alert(
                "Light left as it is.",
                f"Neither a flat field nor gains could be found, as {mosaic.light_fault}.",
            )
        )
    return found


def _why_adrift(mosaic: Mosaic) -> str:
    if not len(mosaic.edges.ends):
        return "No overlap was registered"
    return "No trusted overlap joins them to the rest"


def summary(mosaic: Mosaic) -> str:
    """Return what stitching did in numbers, one paragraph a line."""
    tiles, edges = mosaic.tiles, mosaic.edges
    accepted, outliers = int(edges.accepted.sum()), int(edges.outlier.sum())
    rejected = len(edges.ends) - accepted
    states = {
        "placed by the stage": tiles.by_stage,
        "dark": tiles.state == "dark",
        "misreported by the stage": tiles.stage_outlier,
    }
    lost = tiles.missing_planes
    lines = [
        f"{_many(len(tiles.names), 'tile')} with {_many(len(edges.ends), 'overlapping pair')}: "
        f"{rejected:,} rejected, {accepted:,} accepted; {outliers:,} of the latter are outliers: "
        "they contradict the others and were not used. "
        f"Tiles: {', '.join(f'{int(which.sum()):,} {what}' for what, which in states.items())}, "
        f"{int((lost > 0).sum()):,} with missing planes ({int(lost.sum()):,} planes).",
        _moves(mosaic),
        _fit(mosaic),
    ]
    return "\n".join(line for line in lines if line)


def _moves(mosaic: Mosaic) -> str:
    """Say how far tiles lie from where the stage put them."""
    tiles = mosaic.tiles
    seen = np.flatnonzero(tiles.state != "dark")
    if not seen.size:
        return ""
    moved_px = np.linalg.norm(tiles.displacement_px, axis=1)
    moved_um = np.linalg.norm(tiles.displacement_px * mosaic.spacing_um, axis=1)
    far = seen[np.argmax(moved_um[seen])]
    return (
        f"From where the stage put them, tiles moved by {np.median(moved_um[seen]):.3g} µm "
        f"({np.median(moved_px[seen]):.3g} px) in the median, and at most by "
        f"{moved_um[far]:.3g} µm ({moved_px[far]:.3g} px): {tiles.names[far]}."
    )


def _fit(mosaic: Mosaic) -> str:
    """Say how well the positions fit the pairs, or that nothing can tell."""
    tiles, edges = mosaic.tiles, mosaic.edges
    if not edges.used.any():
        return "No pair holds any tile in its place."
    if int(edges.used.sum()) <= len(tiles.names) - len(np.unique(tiles.part)):
        return (
            "The pairs that were used close no loop: they fit exactly whatever their errors, and "
            "residuals say nothing here."
        )
    root = np.sqrt(np.square(edges.residual_px[edges.used]).mean(axis=0))
    axes = ", ".join(
        f"{axis} {px:.3g} px ({px * um:.3g} µm)"
        for axis, px, um in zip("zyx", root, mosaic.spacing_um, strict=True)
    )
    return (
        f"Final positions miss the offsets of the {_many(int(edges.used.sum()), 'pair')} used by "
        f"{axes}, root mean square."
    )


def fault_table(mosaic: Mosaic) -> Table | None:
    """Return what is wrong by kind, how often, and where; None where nothing is."""
    tiles, edges = mosaic.tiles, mosaic.edges
    moved = np.linalg.norm(tiles.displacement_px, axis=1)
    misreported = _largest_first(tiles.stage_outlier, moved)
    lacking = _largest_first(tiles.missing_planes > 0, tiles.missing_planes)
    blank = np.where(tiles.state == "dark", 0, mosaic.blank_planes - tiles.missing_planes)
    pairs = _unused(mosaic)
    found: list[tuple[str, Sequence[int] | NDArray[np.int_], Callable[[int], str]]] = [
        ("placed by the stage", np.flatnonzero(tiles.by_stage), tiles.names.__getitem__),
        ("dark: left out", np.flatnonzero(tiles.state == "dark"), tiles.names.__getitem__),
        (
            "misreported by the stage",
            misreported,
            lambda k: f"{tiles.names[k]} (by {moved[k]:.1f} px)",
        ),
        (
            "with missing planes",
            lacking,
            lambda k: f"{tiles.names[k]} ({tiles.missing_planes[k]})",
        ),
        (
            "with blank planes: one value throughout",
            _largest_first(blank > 0, blank),
            lambda k: f"{tiles.names[k]} ({blank[k]})",
        ),
        ("outlier pairs", [k for k in pairs if edges.accepted[k]], _pair_namer(mosaic)),
        ("rejected pairs", [k for k in pairs if not edges.accepted[k]], _pair_namer(mosaic)),
    ]
    rows = [
        (what, f"{len(which):,}", some_of([name(int(k)) for k in which], most=MOST_NAMES))
        for what, which, name in found
        if len(which)
    ]
    if not rows:
        return None
    caption = f"What is wrong, by name; where there are more than {MOST_NAMES}, all are in "
    return Table(f"{caption}{TILES} and {EDGES}", ("kind", "count", "which"), rows)


def _largest_first(which: NDArray[np.bool_], size: NDArray[np.generic]) -> NDArray[np.int_]:
    rows = np.flatnonzero(which)
    return rows[np.argsort(-size[rows], kind="stable")]


def _unused(mosaic: Mosaic) -> list[int]:
    """Return the pairs that hold no tile: outliers, then what was rejected without an excuse.

    A dark tile explains why its pairs were rejected.
    """
    edges = mosaic.edges
    excused = (mosaic.tiles.state[edges.ends] == "dark").any(axis=1)
    rows = np.flatnonzero(~edges.used)
    misfit = np.nan_to_num(edges.misfit_px[rows], nan=0.0)
    order = np.lexsort((-misfit, excused[rows], ~edges.accepted[rows]))
    return rows[order].tolist()


def pair_table(mosaic: Mosaic) -> Table:
    """Return the pairs, worst first: outliers and rejected ones, then by their residuals."""
    edges = mosaic.edges
    unused, used = _unused(mosaic), _largest_first(edges.used, edges.misfit_px).tolist()
    room = max(_MOST_UNUSED, MOST_PAIRS - len(used))
    shown_unused = unused[:room]
    shown_used = used[: MOST_PAIRS - len(shown_unused)]
    caption = (
        "Overlapping pairs, worst first; Δ: offset by registration less that by the stage. "
        f"{len(shown_unused):,} of {len(unused):,} that were not "
        f"used, {len(shown_used):,} of {len(used):,} that were; all are in {EDGES}."
    )
    header = (
        "pair",
        *(f"Δ{axis} (px)" for axis in "zyx"),
        "NCC",
        "sharpness",
        "agreement (px)",
        "residual (px)",
        "residual (µm)",
        "verdict",
    )
    name = _pair_namer(mosaic)
    rows = [(name(k), *_cells(mosaic, k)) for k in [*shown_unused, *shown_used]]
    return Table(caption, header, rows)


def _cells(mosaic: Mosaic, k: int) -> list[str]:
    edges = mosaic.edges
    # Without sub-slabs that agree there is no offset, only the stage's in its place.
    measured = np.isfinite(edges.agreement_px[k])
    residual = edges.residual_px[k]
    return [
        *(f"{px:+.2f}" if measured else MISSING for px in edges.correction_px[k]),
        f"{edges.ncc[k]:.2f}" if measured else MISSING,
        f"{edges.peak_sharpness[k]:.2f}" if edges.peak_height[k] > 0 else MISSING,
        _finite(edges.agreement_px[k]),
        _finite(np.linalg.norm(residual)),
        _finite(np.linalg.norm(residual * mosaic.spacing_um)),
        verdict(mosaic, k),
    ]


def verdict(mosaic: Mosaic, k: int) -> str:
    """Return what was made of pair ``k``, and why it was not used."""
    if mosaic.edges.used[k]:
        return "used"
    if mosaic.edges.accepted[k]:
        return "outlier: contradicts the others"
    # Registration knows tiles by their rows only.
    named = {f"tile {end}": mosaic.tiles.names[end] for end in mosaic.edges.ends[k]}
    reason = _TILE_NUMBER.sub(lambda m: named.get(m[0], m[0]), mosaic.edges.reason[k])
    return f"rejected: {reason}"


def _finite(value: float | np.floating) -> str:
    return f"{value:.2f}" if np.isfinite(value) else MISSING


def _pair_namer(mosaic: Mosaic) -> Callable[[int], str]:
    return lambda k: pair_name(mosaic, k)


def pair_name(mosaic: Mosaic, k: int) -> str:
    """Return the names of the two tiles of pair ``k``."""
    return " – ".join(mosaic.tiles.names[end] for end in mosaic.edges.ends[k])


def _names(mosaic: Mosaic, rows: NDArray[np.int_]) -> str:
    return some_of([mosaic.tiles.names[k] for k in rows], most=MOST_NAMES)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)
