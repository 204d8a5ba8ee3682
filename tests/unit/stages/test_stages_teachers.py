"""Teachers that cannot teach, and volumes that cannot be, end a run before it begins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vasculome.config import parse_config
from vasculome.errors import UserError
from vasculome.models.teacher import Teacher, TeacherDesign
from vasculome.stages.recipes import data_of
from vasculome.stages.teachers import check_segmenters
from vasculome.storage.weights import write_weights

DESIGN = TeacherDesign(12, (1, 1, 1, 1), (1, 1, 1, 1), student_width=4, n_codes=4, window=2)
STUDENT = {"network": "student", "widths": [2, 4]}
TEACHER = {"network": "teacher", "steps": 5, "student_width": 4, "pretrain_steps": 2}


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[:, 3] = 1
    lines = ["image\tlabel\tspacing_um"]
    for k in range(4):
        tifffile.imwrite(tmp_path / f"v{k}.tif", np.arange(512, dtype=np.uint16).reshape(8, 8, 8))
        tifffile.imwrite(tmp_path / f"m{k}.tif", mask)
        lines.append(f"{tmp_path}/v{k}.tif\t{tmp_path}/m{k}.tif\t6,{1 + k},1.5")
    path = tmp_path / "volumes.tsv"
    path.write_text("\n".join(lines))
    return path


def config(**models):
    return parse_config({"samples": None, "models": models}, where="")


def weights(path: Path, settings, /, **card) -> Path:
    teacher = Teacher(DESIGN)
    teacher.fine_tuned.fill_(True)
    known = {"name": "t", "architecture": "teacher", "arguments": asdict(DESIGN)}
    write_weights(path, teacher.state_dict(), known | data_of(settings) | card)
    return path


def test_good_ones_are_let_through(tmp_path: Path, sheet: Path) -> None:
    taught = STUDENT | {"method": "vpbsd", "teacher": "t", "volumes": str(sheet), "folds": 2}
    check_segmenters(config(s=taught, t=TEACHER | {"volumes": str(sheet), "folds": 2}))
    check_segmenters(config(s=STUDENT | {"method": "kd", "teacher": "t"}, t=TEACHER))


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (
            {"t": TEACHER | {"pretrain_steps": 0}, "s": {"method": "vpbsd"}},
            r"models\.s: method vpbsd learns codes, and those of t are random",
        ),
        (
            {"t": TEACHER | {"student_width": 5}, "s": {"method": "without_semi"}},
            "codes have 5 channels, the student's deepest level 4",
        ),
        (
            {"t": TEACHER | {"label": "seen"}, "s": {"method": "kd"}},
            "teacher t has learnt masks that are seen, the student's are painted",
        ),
        ({"t": STUDENT, "s": {"method": "kd"}}, r"models\.s\.teacher: t is a student, not"),
        ({"s": {"method": "kd"}}, "t.*cannot be read"),
    ],
)
def test_entries_that_cannot_teach_are_refused(models: dict, says: str) -> None:
    models["s"] = STUDENT | {"teacher": "t"} | models["s"]
    with pytest.raises(UserError, match=says):
        check_segmenters(config(**models))


def test_any_trained_teacher_can_teach_what_needs_no_codes() -> None:
    fitnets = STUDENT | {"method": "fitnets", "teacher": "t"}
    check_segmenters(config(s=fitnets, t=TEACHER | {"pretrain_steps": 0}))
    check_segmenters(config(s=fitnets, t=TEACHER | {"label": "seen"}))


def test_labels_of_rendered_vessels_count_where_some_are_learnt(
    tmp_path: Path, sheet: Path
) -> None:
    own = {"volumes": str(sheet), "folds": 2}
    alone = own | {"rendered": 0}
    student, teacher = STUDENT | {"method": "kd", "teacher": "t"}, TEACHER | {"label": "seen"}
    check_segmenters(config(s=student | own, t=teacher | alone))
    check_segmenters(config(s=student | alone, t=teacher | own))
    with pytest.raises(UserError, match="masks that are seen"):
        check_segmenters(config(s=student | own, t=teacher | own))
    # So for weights.
    for volumes, refused in ((alone, False), (own, True)):
        settings = config(t=teacher | volumes).models["t-fold-0"]
        path = weights(tmp_path / f"{refused}.safetensors", settings)
        taught = config(s=student | own | {"teacher": str(path), "folds": None, "fold": [0, 2]})
        if refused:
            with pytest.raises(UserError, match="masks that are seen"):
                check_segmenters(taught)
        else:
            check_segmenters(taught)


def test_a_teacher_that_has_seen_what_is_held_out_is_refused(tmp_path: Path, sheet: Path) -> None:
    found = config(t=TEACHER | {"volumes": str(sheet), "folds": 2}).models
    paths = [weights(tmp_path / f"t{k}.safetensors", found[f"t-fold-{k}"]) for k in (0, 1)]
    student = STUDENT | {"method": "kd", "volumes": str(sheet), "fold": [0, 2]}
    check_segmenters(config(s=student | {"teacher": str(paths[0])}))
    with pytest.raises(UserError, match=r"has learnt from .*v\d\.tif, which the student is tested"):
        check_segmenters(config(s=student | {"teacher": str(paths[1])}))
    # Another sheet with the same images is no way out, of weights or of entries.
    copy = tmp_path / "copy.tsv"
    copy.write_text(sheet.read_text() + "\n# a note")
    other = student | {"volumes": str(copy)}
    with pytest.raises(UserError, match="has learnt from"):
        check_segmenters(config(s=other | {"teacher": str(paths[1])}))
    teacher = TEACHER | {"volumes": str(sheet), "fold": [1, 2]}
    with pytest.raises(UserError, match="has learnt from"):
        check_segmenters(config(s=other | {"teacher": "t"}, t=teacher))


def test_weights_whose_codes_are_random_are_refused(tmp_path: Path) -> None:
    settings = config(t=TEACHER).models["t"]
    path = weights(tmp_path / "t.safetensors", settings, settings={"pretrain_steps": 0})
    check_segmenters(config(s=STUDENT | {"method": "kd", "teacher": str(path)}))
    with pytest.raises(UserError, match="are random"):
        check_segmenters(config(s=STUDENT | {"method": "vpbsd", "teacher": str(path)}))


def test_faults_of_a_sheet_are_found(tmp_path: Path, sheet: Path) -> None:
    student = STUDENT | {"volumes": str(sheet)}
    check_segmenters(config(s=student))
    with pytest.raises(UserError, match="too few for 5 folds"):
        check_segmenters(config(s=student | {"folds": 5}))
    (tmp_path / "m2.tif").unlink()
    with pytest.raises(UserError, match=r"m2\.tif: does not exist"):
        check_segmenters(config(s=student))
    sheet.unlink()
    with pytest.raises(UserError, match=r"volumes\.tsv: does not exist"):
        check_segmenters(config(s=student))


def test_a_card_tells_of_rows_and_of_all_voxel_sizes(sheet: Path) -> None:
    student = STUDENT | {"volumes": str(sheet), "fold": [1, 2], "rendered": 0}
    data = data_of(config(s=student).models["s"])["data"]
    volumes = data["volumes"]
    tested = {row["image"] for row in volumes["held_out"]}
    learnt = {row["image"] for row in volumes["labelled"]}
    assert len(tested) == len(learnt) == 2
    assert not tested & learnt
    assert set(volumes["learnt_from"]) == {str(Path(name).resolve()) for name in learnt}
    sizes = [1 + int(Path(name).stem[1:]) for name in learnt]
    assert data["spacing_um"] == [min(1.5, *sizes), max(1.5, *sizes)]
    assert data["most_spacing_um"] == 6
    # With rendered patches theirs count as well.
    mixed = data_of(config(s=student | {"rendered": 0.5}).models["s"])["data"]
    assert mixed["spacing_um"] == [1.0, max(4.0, *sizes)]
    assert mixed["most_spacing_um"] == 6
    assert len(volumes["digest"]) == 32
