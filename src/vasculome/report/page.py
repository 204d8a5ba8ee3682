"""A report as one HTML file: pictures inside, nothing loaded from elsewhere, no script.

The page reads well on screen, dark or light, and on paper.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

import jinja2

_NUMBER = re.compile(r"[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?( ?%)?|–")
"""What a cell of a column of numbers may hold; the dash stands for a missing value."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WIDE = 1.8
"""Width over height from which a picture fills the page's width."""


@dataclass(frozen=True)
class Figure:
    """A picture: PNG bytes, the caption under it, and words for those who cannot see it.

    ``detailed`` pictures take a row of the page to themselves, whatever their shape.
    """

    png: bytes
    caption: str
    alt: str
    detailed: bool = False

    def __post_init__(self) -> None:
        if self.png[:8] != _PNG_SIGNATURE:
            raise ValueError(f"the picture {self.alt!r} is not a PNG file")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the header."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    @property
    def wide(self) -> bool:
        """Whether the picture takes a row of the page to itself."""
        return self.detailed or self.size[0] > _WIDE * self.size[1]

    @property
    def source(self) -> str:
        """The picture as a data address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Table:
    """A table: caption, one heading a column, rows of text as long as the header."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"table {self.caption!r}: row {list(row)} has not {len(self.header)} cells"
                )

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether all its cells are numbers, to be set flush right."""
        return [
            bool(self.rows) and all(_NUMBER.fullmatch(row[i]) for row in self.rows)
            for i in range(len(self.header))
        ]


@dataclass(frozen=True)
class KeyNumber:
    """A number for the head of the page, with its name."""

    name: str
    value: str


@dataclass(frozen=True)
class Alert:
    """What nobody may overlook: one sentence, which the head of the page says too, and more."""

    sentence: str
    more: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: alerts, text, one paragraph a line, then pictures, then tables."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = field(default=())
    tables: Sequence[Table] = field(default=())
    alerts: Sequence[Alert] = field(default=())

    @property
    def anchor(self) -> str:
        """Name that links within the page go to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def paragraphs(self) -> list[str]:
        """The lines of the text that hold something."""
        return [line for line in self.text.splitlines() if line.strip()]


def render_page(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    footer: str,
    *,
    key_numbers: Sequence[KeyNumber] = (),
) -> str:
    """Return the whole page; every text is escaped, whatever it holds."""
    template = resources.files("vasculome.report").joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        footer=footer,
        key_numbers=key_numbers,
    )
