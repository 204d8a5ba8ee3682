"""Rules of the house that the import contracts in pyproject.toml cannot hold."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
ROOMS = sorted(
    path.parent.name + "/" if path.name == "__init__.py" else path.name
    for path in [*ROOT.glob("src/vasculome/*.py"), *ROOT.glob("src/vasculome/*/__init__.py")]
    if path.parent.name != "vasculome" or path.name != "__init__.py"
)

MAX_SOURCE_LINES = 400
MAX_SCRIPT_LINES = 20
NAMELESS_MODULES = {"utils", "helpers", "common", "misc"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec"}
# A path that exists on one machine only; not a part of a relative path or of an address.
MACHINE_PATH = re.compile(r"(?<![\w.~}*-])/(?:work|root|tmp|home|Users)/")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unsafe_uses(source: str) -> Iterator[str]:
    """Yield every import or call that would run code stored in a data file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            allowed = [k for k in node.keywords if k.arg == "allow_pickle"]
            if call in UNSAFE_CALLS:
                yield f"line {node.lineno}: {call}"
            if any(ast.unparse(k.value) != "False" for k in allowed):
                yield f"line {node.lineno}: allow_pickle"
            continue
        else:
            continue
        for name in names:
            if name.split(".")[0] in UNPICKLERS:
                yield f"line {node.lineno}: import {name}"


def text_files() -> list[Path]:
    """List the text files of the project that are, or would be, committed."""
    try:
        answer = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: the list of the project's files is unknown")
    paths = [ROOT / name for name in answer.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_module_has_a_telling_name_and_fits_on_some_screens(path: Path) -> None:
    assert path.stem not in NAMELESS_MODULES
    assert len(path.read_text().splitlines()) <= MAX_SOURCE_LINES


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_in_the_picture_of_the_house(room: str) -> None:
    assert re.search(rf"\b{re.escape(room)}", (ROOT / "docs/architecture.md").read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_workflow_script_only_unpacks_and_calls(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_SCRIPT_LINES


@pytest.mark.parametrize("path", SOURCES + SCRIPTS, ids=relative)
def test_nothing_runs_code_from_data(path: Path) -> None:
    assert list(unsafe_uses(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "weights = torch.load(path)",
        "tree = yaml.load(text, Loader)",
        "a = np.load(path, allow_pickle=True)",
        "a = np.load(path, allow_pickle=trusted)",
    ],
)
def test_the_check_for_unsafe_uses_can_fail(source: str) -> None:
    assert len(list(unsafe_uses(source))) == 1


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if MACHINE_PATH.search(line) and "MACHINE_PATH" not in line
    ]
    assert found == []
