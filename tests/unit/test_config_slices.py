"""Rows of a sample sheet that make a volume together, and rows that do not."""

import pytest

from vasculome.config import parse_samples, stacks_of
from vasculome.errors import UserError

HEADER = "sample\tmodality\tpath\tformat\tspacing_um\taxes\tvolume\televation_mm"
SLICE = ("ultrasound", "a.npy", "iq", "49,49", "tzx")


def _sheet(*rows):
    return "\n".join([HEADER, *("\t".join(row) for row in rows)])


def test_slices_are_gathered_by_volume_and_sorted_by_elevation():
    rows = [
        ("a", *SLICE, "v", "0.3"),
        ("alone", *SLICE),
        ("b", *SLICE, "w", "-1"),
        ("c", *SLICE, "v", "-0.1"),
        ("d", *SLICE, "w", "0"),
    ]
    samples = parse_samples(_sheet(*rows), where="s.tsv")
    v, w = stacks_of(samples)
    assert (v.sample, [row.sample for row in v.slices]) == ("v", ["c", "a"])
    assert (w.sample, [row.sample for row in w.slices]) == ("w", ["b", "d"])
    assert v.elevation_um == (-100.0, 300.0)
    assert stacks_of(samples[1:2]) == ()


def test_spacings_may_differ_by_a_percent():
    near = ("ultrasound", "a.npy", "iq", "49.3,49", "tzx")
    sheet = _sheet(("a", *SLICE, "v", "0"), ("b", *near, "v", "1"))
    assert len(stacks_of(parse_samples(sheet, where="s.tsv"))) == 1


A = ("a", *SLICE, "v", "0.1")
BRAIN = ("m", "microscopy", "p", "tiff_stack", "5,2,2", "")
MATRIX = ("m", "ultrasound", "a.npy", "iq", "49,49,49", "tzyx")
WIDE = ("ultrasound", "a.npy", "iq", "49,55", "tzx")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([A, ("b", *SLICE, "v", "0.10")], "line 3: elevation_mm: 0.1 is that of 'a' (line 2)"),
        ([A, ("b", *SLICE, "v", "0"), ("v", *SLICE)], "line 3: volume: 'v' is the name of a"),
        ([("v", *SLICE, "v", "0"), A], "line 2: volume: 'v' is the name of a sample"),
        ([("b", *SLICE), A], "line 3: volume: 'v' has this slice only"),
        ([("b", *SLICE, "", "0.5")], "line 2: elevation_mm is for slices of a volume"),
        ([("b", *SLICE, "v", "")], "line 2: volume needs elevation_mm"),
        ([("b", *SLICE, "v", "nan"), A], "line 2: elevation_mm: Input should be a finite number"),
        ([("b", *SLICE, "a/b", "0"), A], "line 2: volume: String should match"),
        ([(*BRAIN, "v", "0.5"), A], "line 2: volume, elevation_mm is for ultrasound samples"),
        ([(*MATRIX, "v", "0.5"), A], "line 2: volume is for 2-D slices"),
        ([A, ("b", *WIDE, "v", "1")], "line 3: spacing_um: 55 along x, but 49 in 'a' (line 2)"),
    ],
)
def test_rows_that_make_no_volume_are_refused_by_line_and_column(rows, says):
    with pytest.raises(UserError) as caught:
        parse_samples(_sheet(*rows), where="s.tsv")
    message = str(caught.value)
    assert message.startswith("s.tsv, ") and says in message and "\n" not in message
