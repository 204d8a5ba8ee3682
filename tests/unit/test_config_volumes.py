import pytest

from vasculome.config import parse_config, parse_volumes
from vasculome.errors import UserError

HEADER = "image\tlabel\tspacing_um\tbackground\tfold\n"


def parse(*rows: str):
    return parse_volumes(HEADER + "\n".join(rows), where="volumes.tsv")


def test_rows_are_read() -> None:
    labelled, bare, tissue, geometry = parse(
        "a.tif\ta.nii.gz\t3,1.625,1.625\t\t0",
        "b.ome.zarr\t\t5,2,2",
        "planes\t\t\tyes",
        "\tvessels.nii.gz\t3,3,3",
    )
    assert labelled.labelled
    assert labelled.fold == 0
    assert labelled.spacing_um == (3.0, 1.625, 1.625)
    assert not bare.labelled
    assert bare.label is None
    assert tissue.background
    assert geometry.image is None


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "no volumes"),
        (["a.tif\t\t5,2"], "line 2.*spacing_um"),
        (["a.tif\t\t5,2,0"], "line 2.*spacing_um"),
        (["\t\t5,2,2"], "needs image, label or both"),
        (["a.tif\t\t"], "line 2.*needs spacing_um"),
        (["a.tif\t\t5,2,2", "./b/../a.tif\ta.nii\t5,2,2"], "line 3.*twice"),
        (["a.tif\ta.nii\t5,2,2\tyes"], "without a label"),
        (["\ta.nii\t5,2,2\tyes"], "without a label"),
        (["a.tif\t\t5,2,2\t\t1"], "fold is for an image with a label"),
        (["a.tif\t\t5,2,2", "# note", "a.tif\ta.nii\t5,2,2"], "line 4.*twice"),
        (["a.tif\ta.nii\t5,2,2\t\t0", "b.tif\tb.nii\t5,2,2"], "fold is given for 1 of 2"),
        (
            ["a.tif\tm.nii\t5,2,2\t\t0", "b.tif\t./m.nii\t5,2,2\t\t1"],
            "line 3.*m.nii is in fold 0 with a.tif, and in fold 1 with b.tif",
        ),
        (["a.tif\t\t5,2,2\t\t\tmore"], "6 cells under 5 columns"),
    ],
)
def test_faults_are_named(rows: list[str], what: str) -> None:
    with pytest.raises(UserError, match=what):
        parse(*rows)


def test_columns_are_checked() -> None:
    with pytest.raises(UserError, match="unknown column 'mask'"):
        parse_volumes("image\tmask\tspacing_um\na\tb\t1,1,1\n", where="volumes.tsv")
    with pytest.raises(UserError, match=r"line 2.*needs spacing_um"):
        parse_volumes("image\tlabel\na\tb\n", where="volumes.tsv")


def models(**entries):
    return parse_config({"models": entries}, where="config").models


STUDENT = {"network": "student", "volumes": "v.tsv", "steps": 10}
TEACHER = {"network": "teacher", "volumes": "v.tsv", "steps": 10}


def test_folds_are_one_network_each_with_the_teacher_of_the_fold() -> None:
    found = models(
        big=TEACHER | {"folds": 3},
        small=STUDENT | {"folds": 3, "method": "vpbsd", "teacher": "big"},
        plain={"network": "student", "steps": 10},
    )
    names = [f"{name}-fold-{k}" for name in ("big", "small") for k in range(3)]
    assert list(found) == [*names, "plain"]
    assert found["small-fold-2"].fold == (2, 3)
    assert found["small-fold-2"].teacher == "big-fold-2"
    assert found["small-fold-2"].folds is None


def test_entries_in_folds_are_known() -> None:
    config = parse_config(
        {
            "models": {
                "a": STUDENT | {"folds": 3},
                "b": STUDENT | {"fold": [0, 2]},
                "c-fold-0": STUDENT | {"fold": [0, 2]},
                "d-fold-0": STUDENT,
            }
        },
        where="",
    )
    assert config.folds == {"a": ("a-fold-0", "a-fold-1", "a-fold-2")}


def test_teachers_of_the_same_fold_or_of_other_images_teach() -> None:
    taught = STUDENT | {"method": "vpbsd", "teacher": "t"}
    found = models(
        t=TEACHER | {"fold": [1, 3]},
        same=taught | {"fold": [1, 3]},
        rendered={"network": "teacher", "steps": 10},
        other=taught | {"fold": [0, 3], "teacher": "rendered"},
    )
    assert found["same"].teacher == "t"
    assert found["other"].teacher == "rendered"


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"a": {"network": "student", "folds": 3}}, r"models\.a: folds are of volumes"),
        ({"a": STUDENT | {"folds": 3, "fold": [0, 3]}}, r"models\.a: has both"),
        ({"a": STUDENT | {"folds": 1}}, r"models\.a\.folds"),
        ({"a": STUDENT | {"fold": [3, 3]}}, r"models\.a: there is no fold 3"),
        ({"a": STUDENT | {"spacing_um": [4, 1]}}, r"models\.a: spacing_um is the smallest"),
        ({"a": STUDENT | {"spacing_um": [0.01, 1]}}, r"models\.a\.spacing_um.*0\.2"),
        ({"a": STUDENT | {"spacing_um": [1, 100]}}, r"models\.a\.spacing_um.*20"),
        ({"a": STUDENT | {"folds": 2, "widths": []}}, r"models\.a-fold-0\.widths"),
        (
            {
                "a": STUDENT | {"method": "vpbsd", "teacher": "b", "folds": 2},
                "b": TEACHER | {"folds": 3},
            },
            r"models\.a: teacher b is trained in 3 folds",
        ),
        (
            {"a": STUDENT | {"method": "vpbsd", "teacher": "b"}, "b": TEACHER | {"folds": 3}},
            r"models\.a: teacher b is trained in 3 folds",
        ),
        (
            {"a": STUDENT | {"method": "vpbsd", "teacher": "b", "folds": 2}, "b": TEACHER},
            r"models\.a-fold-0: teacher b learns from the volumes that a-fold-0 is tested on",
        ),
        (
            {
                "a": STUDENT | {"method": "vpbsd", "teacher": "b-fold-1", "fold": [0, 2]},
                "b": TEACHER | {"folds": 2},
            },
            r"models\.a: teacher b-fold-1 learns from .* fold \[1, 2\]",
        ),
        (
            {"a": STUDENT | {"method": "kd", "teacher": "b"}, "b": TEACHER | {"fold": [0, 2]}},
            r"models\.a: teacher b learns from .* a fifth is held out",
        ),
        (
            {"a-fold-0": STUDENT, "a": STUDENT | {"folds": 2}},
            r"models\.a-fold-0: is the name of two",
        ),
        (
            {"a": STUDENT | {"folds": 2}, "a-fold-1": STUDENT},
            r"models\.a-fold-1: is the name of two",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(entries: dict, what: str) -> None:
    with pytest.raises(UserError, match=what):
        models(**entries)
