"""Tiny real runs: raw files on disk, the real Snakefile, a real `snakemake` process."""

from __future__ import annotations

import shutil

import pytest
from tiny_project import BRAIN, MOSAIC, MOUSE, Project, copy_of, write_raw


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A project that has run to the end, uninterrupted; not to be changed."""
    project = Project(tmp_path_factory.mktemp("finished"))
    write_raw(project.folder)
    project.write_config()
    project.write_samples(BRAIN, MOSAIC, MOUSE)
    done = project.run()
    assert done.returncode == 0, done.stderr[-4000:]
    return project


@pytest.fixture(scope="session")
def _shared(finished, tmp_path_factory) -> Project:
    return copy_of(finished, tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(_shared, finished, monkeypatch):
    """A finished project to add the faulty sample `new` to; its results must stay as they were."""
    _shared.write_config()
    _shared.write_samples(BRAIN, MOSAIC, MOUSE)
    monkeypatch.chdir(_shared.folder)
    yield _shared
    shutil.rmtree(_shared.folder / "results/new", ignore_errors=True)
    for path in (_shared.folder / "raw").glob("new*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    assert _shared.results() == finished.results()
