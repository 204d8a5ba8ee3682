"""Pictures of one sample, and a sentence for each that could not be drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure as Drawing

from vasculome.report.page import Figure
from vasculome.report.panels import png_bytes
from vasculome.storage.shards import write_bytes_atomic


@dataclass
class Album:
    """Pictures by file name without suffix, in the order of the report, and what is missing."""

    figures: dict[str, Figure] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        *,
        what: str,
        needs: Sequence[Path],
        draw: Callable[[], Drawing | str],
        caption: str,
        alt: str,
        detailed: bool = False,
    ) -> None:
        """Draw and keep a picture, or say in words why there is none.

        Parameters
        ----------
        name
            File name without suffix.
        what
            The picture in words, to be put after "No".
        needs
            Files or folders without which it cannot be drawn.
        draw
            Returns the drawing, or the reason why there is nothing to draw.
        caption, alt, detailed
            As in `Figure`.
        """
        if not self.has(needs, what=what):
            return
        drawing = draw()
        if isinstance(drawing, str):
            self.missing.append(f"No {what}: {drawing}.")
        else:
            self.figures[name] = Figure(png_bytes(drawing), caption, alt, detailed)

    def has(self, needs: Sequence[Path], *, what: str) -> bool:
        """Tell whether all files are there; where one is not, say so in the report."""
        absent = ", ".join(path.name for path in needs if not path.exists())
        if absent:
            self.missing.append(f"No {what}: {absent} is not among the results.")
        return not absent


def write_figures(album: Album, folder: Path) -> list[Path]:
    """Write each picture as ``folder/<name>.png``, for slides; return the paths."""
    paths = [folder / f"{name}.png" for name in album.figures]
    for path, figure in zip(paths, album.figures.values(), strict=True):
        write_bytes_atomic(path, figure.png)
    return paths
