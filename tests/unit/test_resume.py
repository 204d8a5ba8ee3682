"""Orphans are told from live runs, waited for or ended; Snakemake gets what it needs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vasculome import app, resume
from vasculome.errors import UserError
from vasculome.resume import settle_orphans
from vasculome.storage.lease import lease_path

HOLD = (
    "import pathlib, signal, sys, time\n"
    "from vasculome.storage.lease import Lease\n"
    "with Lease(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(float(sys.argv[2]))\n"
)
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
# A stage and its Snakemake, as the one's parent; with a shell between, as in a real run.
RUN = (
    "import subprocess, sys\n"
    "subprocess.run(['bash', '-c', '\"$@\"; true', '-', *sys.argv[1:]], check=False)\n"
)


@pytest.fixture
def started(tmp_path):
    """Start processes that say when they are up, and end what is left of them."""
    processes = []

    def start(*words: str, cwd: Path = tmp_path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        processes.append(process)
        assert process.stdout.readline() in (b"held\n", b"up\n")
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results/brain").mkdir(parents=True)
    return tmp_path / "results"


def _settle(results, *, end=False):
    settle_orphans(results, directory=results.parent, end=end)


def test_nothing_to_settle(tmp_path):
    _settle(tmp_path / "results")


def test_an_orphan_is_waited_for_and_told_of_once(results, started, capsys):
    orphan = started("-c", HOLD, results / "brain/mask.ome.zarr", 1.5)
    before = time.monotonic()
    _settle(results)
    assert time.monotonic() - before > 0.5
    assert not lease_path(results / "brain/mask.ome.zarr").exists()
    assert capsys.readouterr().out == (
        f"waiting for process {orphan.pid}, which works on {results}/brain/mask.ome.zarr\n"
    )


@pytest.mark.parametrize("store", ["brain/mask.ome.zarr", "brain/maps/speed.ome.zarr"])
def test_an_orphan_is_ended_on_demand(results, started, capsys, store):
    orphan = started("-c", HOLD, results / store, 60)
    _settle(results, end=True)
    assert not psutil.pid_exists(orphan.pid)
    assert f"ending process {orphan.pid}, which works on {results / store}\n" in (
        capsys.readouterr().out
    )


def test_an_orphan_that_is_stopped_is_ended_too(results, started):
    orphan = started("-c", HOLD, results / "brain/s", 60)
    orphan.send_signal(signal.SIGSTOP)
    before = time.monotonic()
    _settle(results, end=True)
    assert not psutil.pid_exists(orphan.pid)
    assert time.monotonic() - before < resume._GRACE_S / 2


def test_an_orphan_that_will_not_end_is_killed(results, started, monkeypatch):
    monkeypatch.setattr(resume, "_GRACE_S", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    orphan = started("-c", deaf + HOLD, results / "brain/s", 60)
    _settle(results, end=True)
    assert not psutil.pid_exists(orphan.pid)


def test_an_orphan_without_a_lease_is_known_by_its_script(results, started, capsys):
    script = results.parent / ".snakemake/scripts/tmp1.mask.py"
    script.parent.mkdir(parents=True)
    script.write_text(SLEEP)
    orphan = started(script)
    elsewhere = results.parent / "elsewhere"
    elsewhere.mkdir()
    stranger = started(script, cwd=elsewhere)
    _settle(results, end=True)
    assert not psutil.pid_exists(orphan.pid)
    assert f"ending process {orphan.pid}, which works on {script}" in capsys.readouterr().out
    assert stranger.poll() is None


def test_what_an_orphan_has_started_ends_with_it(results, started):
    script = results.parent / ".snakemake/scripts/tmp1.mask.py"
    script.parent.mkdir(parents=True)
    worker = f"[sys.executable, '-c', {SLEEP!r}]"
    script.write_text(f"import subprocess, sys\nsubprocess.Popen({worker}).wait()")
    orphan = started(script)
    (child,) = psutil.Process(orphan.pid).children()
    _settle(results, end=True)
    assert not child.is_running()


def test_a_snakemake_at_work_in_the_folder_is_left_alone(results, started):
    (results.parent / "snakemake.py").write_text(SLEEP)
    run = started("-m", "snakemake", "--cores", "2")
    with pytest.raises(UserError, match=rf"a run is going on \(snakemake is process {run.pid}\)"):
        _settle(results, end=True)
    assert run.poll() is None
    with pytest.raises(UserError, match="a run is going on"):
        settle_orphans(results / "other", directory=results.parent, end=True)
    # One that works elsewhere is none of our business.
    settle_orphans(results, directory=results, end=True)


def test_a_stage_of_a_live_snakemake_elsewhere_is_left_alone(results, started, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "snakemake.py").write_text(RUN)
    stage = (sys.executable, "-c", HOLD, results / "brain/s", 60)
    run = started("-m", "snakemake", *stage, cwd=elsewhere)
    with pytest.raises(UserError, match=f"brain/s: a run is going on .*{run.pid}"):
        _settle(results, end=True)
    assert run.poll() is None


def test_a_stage_on_another_machine_is_left_to_the_user(results):
    holder = {"host": "node7", "pid": 12, "started": 0.0, "token": "t"}
    lease = lease_path(results / "brain/s")
    lease.write_text(json.dumps(holder))
    with pytest.raises(UserError, match="brain/s: process 12 on node7 is working on it"):
        _settle(results)
    os.utime(lease, (0, 0))
    _settle(results)


def test_what_the_dead_have_left_is_no_orphan(results, started):
    dead = started("-c", HOLD, results / "brain/s", 60)
    dead.kill()
    dead.wait()
    assert lease_path(results / "brain/s").exists()
    _settle(results)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A configured folder; Snakemake is called, but only noted down."""
    (tmp_path / "run.yaml").write_text("results: out\n")
    calls = []

    def snakemake(*options):
        calls.append(options)
        return statuses.pop(0)

    statuses = [0, 0, 0]
    monkeypatch.setattr(app, "_snakemake", snakemake)
    monkeypatch.chdir(tmp_path)
    return tmp_path, calls, statuses


def _lock(folder):
    (folder / ".snakemake/locks").mkdir(parents=True)
    (folder / ".snakemake/locks/0.input.lock").write_text("")


def test_resume_unlocks_only_what_is_locked(project):
    folder, calls, _ = project
    assert app.main(["resume", "--configfile", "run.yaml"]) == 0
    run = ("--cores", "all", "--configfile", "run.yaml")
    assert calls == [(*run, "--rerun-incomplete")]
    _lock(folder)
    assert app.main(["resume", "--configfile", "run.yaml"]) == 0
    assert calls[1] == (*run, "--unlock")


def test_resume_ends_where_unlocking_fails(project):
    folder, calls, statuses = project
    _lock(folder)
    statuses[:] = [1]
    assert app.main(["resume", "--configfile", "run.yaml"]) == 1
    assert len(calls) == 1


@pytest.mark.parametrize("limit", [["--cores", "3"], ["-c3"], ["-j", "3"], ["--profile", "slurm"]])
def test_resume_hands_on_targets_and_options(project, tmp_path, limit):
    _, calls, _ = project
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    _lock(elsewhere)
    options = ["maps", "--directory", str(elsewhere), "-s", "Snakefile", *limit]
    assert app.main(["resume", "--configfile", "run.yaml", "--", *options]) == 0
    run = (*options, "--configfile", "run.yaml")
    assert calls == [(*run, "--unlock"), (*run, "--rerun-incomplete")]


def test_resume_looks_for_orphans_where_the_run_was(project, tmp_path):
    holder = {"host": "node7", "pid": 12, "started": 0.0, "token": "t"}
    (tmp_path / "elsewhere/out").mkdir(parents=True)
    lease_path(tmp_path / "elsewhere/out/s").write_text(json.dumps(holder))
    assert app.main(["resume", "--configfile", "run.yaml"]) == 0
    assert app.main(["resume", "--configfile", "run.yaml", "--", "-d", "elsewhere"]) == 2


def test_resume_with_a_bad_config_calls_nothing(project, capsys):
    _, calls, _ = project
    assert app.main(["resume", "--configfile", "none.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert calls == []


@pytest.fixture
def hears_ctrl_c():
    """Undo what a shell does to tests in the background: they, and what they start, are deaf."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_leaves_snakemake_the_time_to_end_its_jobs(tmp_path):
    (tmp_path / "run.yaml").write_text("results: out\n")
    (tmp_path / "snakemake.py").write_text(
        "import pathlib, sys, time\n"
        "try:\n    print('up', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(1)\n    pathlib.Path('ended').touch()\n    sys.exit(7)\n"
    )
    command = [sys.executable, "-m", "vasculome.app", "resume", "--configfile", "run.yaml"]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        start_new_session=True,
    )
    assert run.stdout.readline() == b"up\n"
    os.killpg(run.pid, signal.SIGINT)
    assert run.communicate(timeout=30)[1] == b""
    assert run.returncode == 7
    assert (tmp_path / "ended").exists()


def test_ctrl_c_while_waiting_ends_in_one_line(monkeypatch, capsys, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "settle_orphans", interrupted)
    (tmp_path / "run.yaml").write_text("results: out\n")
    assert app.main(["resume", "--configfile", str(tmp_path / "run.yaml")]) == 130
    assert capsys.readouterr().err == "vasculome: interrupted\n"
