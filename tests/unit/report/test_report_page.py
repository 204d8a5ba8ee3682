import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from vasculome.report.page import Figure, KeyNumber, Section, Table, render_page


def _png(size=(4, 3)):
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "png")
    return stream.getvalue()


class _Reader(HTMLParser):
    """Collects tags with attributes, the text, and the cells of each table."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.tables, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def _read(html):
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


EVIL = "<script>alert('x')</script> & \"rat\" <02>"


def _page():
    table = Table(EVIL, ("name", "n"), [(EVIL, "1,234"), ("b", "–")])
    section = Section("Maps & more", f"first line\n\n{EVIL}", [Figure(_png(), EVIL, EVIL)], [table])
    return render_page(
        EVIL, EVIL, [section, Section("Empty")], EVIL, key_numbers=[KeyNumber(EVIL, EVIL)]
    )


def test_text_of_users_stays_text():
    html = _page()
    reader = _read(html)
    assert reader.named("script") == []
    assert "<script" not in html.lower()
    assert "".join(reader.text).count(EVIL) == 10
    (image,) = reader.named("img")
    assert image["alt"] == EVIL


def test_nothing_is_loaded_from_elsewhere():
    html = _page()
    reader = _read(html)
    assert reader.named("link") == []
    for _, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/png;base64,", "#"))
    assert not re.search(r"https?:|@import|url\(", html)


def test_pictures_are_inside_with_their_size():
    (image,) = _read(_page()).named("img")
    png = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(png)).size == (4, 3)
    assert (image["width"], image["height"]) == ("4", "3")


def test_tables_have_their_cells_in_place():
    reader = _read(_page())
    assert reader.tables == [[["name", "n"], [EVIL, "1,234"], ["b", "–"]]]
    assert {attrs.get("scope") for attrs in reader.named("th")} == {"col", "row"}
    assert [attrs.get("class") for attrs in reader.named("td")] == ["number", "number"]


def test_links_lead_to_sections_once():
    reader = _read(_page())
    targets = [attrs["id"] for attrs in reader.named("section")]
    assert [attrs["href"] for attrs in reader.named("a")] == [f"#{target}" for target in targets]
    assert len(set(targets)) == len(targets)


def test_the_page_is_for_readers_of_all_kinds():
    html = _page()
    (root,) = _read(html).named("html")
    assert root["lang"] == "en"
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["1", "2.5"], True),
        (["-3.2e-05", "12,345"], True),
        (["–", "7 %"], True),
        (["1, 2", "3"], False),
        (["mouse-01", "2"], False),
    ],
)
def test_columns_of_numbers_are_known(cells, numeric):
    assert Table("", ("a",), [[cell] for cell in cells]).numeric == [numeric]


def test_a_row_as_long_as_the_header_is_needed():
    with pytest.raises(ValueError, match="2 cells"):
        Table("t", ("a", "b"), [("1",)])


def test_a_picture_must_be_png():
    with pytest.raises(ValueError, match="not a PNG"):
        Figure(b"GIF89a", "", "alt")


def test_wide_pictures_take_a_row():
    assert Figure(_png((40, 10)), "", "").wide
    assert not Figure(_png((10, 10)), "", "").wide
