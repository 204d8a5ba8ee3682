"""After a crash: find the stages that outlived their run, and wait for them or end them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

from vasculome.errors import UserError
from vasculome.storage.lease import Holder, read_holders

_POLL_S = 0.5
_GRACE_S = 20.0
_SCRIPTS = ".snakemake/scripts"


def settle_orphans(results: Path, *, directory: Path, end: bool) -> None:
    """Return once nothing works under ``results`` any more.

    A stage whose Snakemake has died works on, and what it finishes is not lost: by default it
    is waited for. Orphans are known by the leases they hold, and by the script they run, since
    one that has just been started holds no lease yet.

    Parameters
    ----------
    results
        Folder of the run's results.
    directory
        Folder in which Snakemake runs.
    end
        End the orphans instead of waiting for them.

    Raises
    ------
    UserError
        If a run is going on in ``directory``, or a stage belongs to a Snakemake that is alive,
        runs on another machine, or cannot be ended.
    """
    announced: set[int] = set()
    while True:
        _refuse_a_live_run(directory)
        orphans = _orphans(results, directory)
        if not orphans:
            return
        for process, work in orphans.items():
            if process.pid not in announced:
                announced.add(process.pid)
                doing = "ending" if end else "waiting for"
                print(f"{doing} process {process.pid}, which works on {work}", flush=True)
            if end:
                _end(process, work)
        if not end:
            time.sleep(_POLL_S)


def _refuse_a_live_run(directory: Path) -> None:
    """Raise UserError where a Snakemake runs in ``directory``: its lock is not to be removed."""
    for process in psutil.process_iter():
        if _is_snakemake(process) and _works_in(process, directory):
            raise _run_goes_on(process, where=directory)


def _orphans(results: Path, directory: Path) -> dict[psutil.Process, str]:
    """Return every stage without a Snakemake on this machine, and what it works on."""
    orphans: dict[psutil.Process, str] = {}
    for store, holder in read_holders(results):
        with contextlib.suppress(psutil.NoSuchProcess):
            orphans.setdefault(_process_of(holder, store), str(store))
    known = {child for process in orphans for child in _family(process)}
    for process in psutil.process_iter():
        script = _script_of(process)
        if script and process not in known and _works_in(process, directory):
            orphans[process] = script
    for process, work in orphans.items():
        for parent in _ancestors(process):
            if _is_snakemake(parent):
                raise _run_goes_on(parent, where=work)
    return orphans


def _process_of(holder: Holder, store: Path) -> psutil.Process:
    if not holder.is_here():
        raise UserError(
            f"process {holder.pid} on {holder.host} is working on it",
            where=store,
            fix="wait for it, or end it there, then resume",
        )
    return psutil.Process(holder.pid)


def _end(process: psutil.Process, work: str) -> None:
    """End a stage kindly, so that it cleans up behind itself; then kill what is left of it."""
    family = _family(process)
    try:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
            process.resume()  # one that was stopped hears nothing
        psutil.wait_procs([process], timeout=_GRACE_S)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=_GRACE_S)
    except psutil.AccessDenied:
        raise UserError(
            f"process {process.pid} is another user's and cannot be ended",
            where=work,
            fix="wait for it: resume without --end-orphans",
        ) from None


def _family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return [process]


def _ancestors(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.parents()
    return []


def _is_snakemake(process: psutil.Process) -> bool:
    """Tell whether a process is Snakemake, started by its command or by ``python -m``."""
    program, *words = [Path(word).name for word in _words(process)[:4]] or [""]
    return program == "snakemake" or (program.startswith("python") and "snakemake" in words)


def _script_of(process: psutil.Process) -> str | None:
    """Return the workflow script that a process runs, or None where it runs none."""
    words = _words(process)
    is_python = bool(words) and Path(words[0]).name.startswith("python")
    scripts = [word for word in words[1:4] if f"{_SCRIPTS}/" in word]
    return scripts[0] if is_python and scripts else None


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def _works_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return Path(process.cwd()) == directory.resolve() and process.pid != os.getpid()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _run_goes_on(process: psutil.Process, *, where: str | Path) -> UserError:
    return UserError(
        f"a run is going on (snakemake is process {process.pid})",
        where=where,
        fix="wait for it, or end it, then resume",
    )
