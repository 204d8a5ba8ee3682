"""A digest changes with what changes a result, and with nothing else."""

import sys

import pytest

from vasculome.stages import digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like ours: a stage that imports an algorithm, and messages that it imports too."""
    folder = tmp_path / "likeours"
    (folder / "stages").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "algorithm.py": "from likeours import constant\n",
        "constant.py": "VALUE = 1\n",
        "errors.py": "TEXT = 'a'\n",
        "unrelated.py": "X = 1\n",
        "stages/__init__.py": "",
        "stages/stage.py": "import likeours.errors\nfrom likeours.algorithm import constant\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(digest, "_PACKAGE", "likeours")
    yield folder
    for name in [n for n in sys.modules if n.startswith("likeours")]:
        del sys.modules[name]


def _digest() -> str:
    digest.code_digest.cache_clear()
    digest._is_module.cache_clear()
    return digest.code_digest("likeours.stages.stage")


@pytest.mark.parametrize("name", ["stages/stage.py", "algorithm.py", "constant.py"])
def test_code_that_a_stage_reaches_is_in_its_digest(package, name):
    before = _digest()
    path = package / name
    path.write_text(path.read_text() + "\nY = 2\n")
    assert _digest() != before


@pytest.mark.parametrize("name", ["errors.py", "unrelated.py"])
def test_code_that_changes_no_result_is_not(package, name):
    before = _digest()
    (package / name).write_text("Y = 2\n")
    assert _digest() == before


def test_digest_of_settings_ignores_their_order():
    assert digest.digest_of({"a": 1, "b": [2]}) == digest.digest_of({"b": [2], "a": 1})
    assert digest.digest_of({"a": 1}) != digest.digest_of({"a": 2})


def test_microscopy_is_segmented_again_for_no_change_to_ultrasound():
    reached = digest._closure("vasculome.stages.enhance")
    assert "vasculome.vessels.enhance" in reached
    assert not [name for name in reached if "ultrasound" in name or "rf_images" in name]
