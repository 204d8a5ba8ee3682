"""pyproject.toml, the conda environment and the pip pins ask for the same things."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"dask": "dask-core", "matplotlib": "matplotlib-base", "torch": "pytorch"}
PYTHONS = ("3.11", "3.12", "3.13")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [
    Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra
]


def pins() -> list[Requirement]:
    lines = (ROOT / "envs/constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def conda_requirements() -> dict[str, Requirement]:
    entries = yaml.safe_load((ROOT / "envs/vasculome.yaml").read_text())["dependencies"]
    plain = [entry for entry in entries if isinstance(entry, str)]
    from_pip = [text for entry in entries if isinstance(entry, dict) for text in entry["pip"]]
    wanted = [Requirement(text) for text in plain + from_pip if not text.startswith("-")]
    return {requirement.name: requirement for requirement in wanted}


@pytest.mark.parametrize("wanted", RUNTIME, ids=str)
def test_conda_environment_asks_for_what_pyproject_asks(wanted: Requirement) -> None:
    name = CONDA_NAMES.get(wanted.name, wanted.name)
    assert conda_requirements()[name].specifier == wanted.specifier


def test_conda_environment_asks_for_nothing_else() -> None:
    ours = {CONDA_NAMES.get(wanted.name, wanted.name) for wanted in RUNTIME}
    assert set(conda_requirements()) - ours == {"python", "pip"}
    assert conda_requirements()["python"].specifier == SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("wanted", RUNTIME + EXTRAS, ids=str)
def test_pins_satisfy_pyproject(wanted: Requirement, python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    versions = [
        next(iter(pin.specifier)).version
        for pin in pins()
        if canonicalize_name(pin.name) == canonicalize_name(wanted.name)
        and (pin.marker is None or pin.marker.evaluate(here))
    ]
    assert len(versions) == 1, f"{wanted.name} needs one pin for Python {python}: {versions}"
    assert wanted.specifier.contains(versions[0])


def test_pins_are_exact_public_versions() -> None:
    for pin in pins():
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)), pin


def test_make_installs_the_pinned_torch() -> None:
    [pin] = [str(pin) for pin in pins() if pin.name == "torch"]
    assert f"{pin}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("wanted", RUNTIME + EXTRAS, ids=str)
def test_dependency_is_explained(wanted: Requirement) -> None:
    rows = (ROOT / "docs/dependencies.md").read_text().splitlines()
    named = {
        name.strip() for row in rows if row.startswith("|") for name in row.split("|")[1].split(",")
    }
    assert wanted.name in named
