"""After a crash: find the stages that outlived their run, and wait for them or end them."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from vasculome.errors import UserError
from vasculome.storage.lease import Holder, read_holders

_POLL_S = 1.0


def settle_orphans(results: Path, *, end: bool) -> None:
    """Return once no stage works under ``results`` any more.

    A stage whose Snakemake has died works on, and what it finishes is not lost: by default it
    is waited for.

    Parameters
    ----------
    results
        Folder of the run's results.
    end
        End the orphans instead of waiting for them.

    Raises
    ------
    UserError
        If a stage belongs to a Snakemake that is alive, or runs on another machine.
    """
    announced: set[int] = set()
    while holders := list(read_holders(results)):
        for store, holder in holders:
            process = _process_of(store, holder)
            if process is None:
                continue
            if holder.pid not in announced:
                announced.add(holder.pid)
                doing = "ending" if end else "waiting for"
                print(f"{doing} process {holder.pid}, which works on {store}", flush=True)
                if end:
                    process.terminate()
        time.sleep(_POLL_S)


def _process_of(store: Path, holder: Holder) -> psutil.Process | None:
    """Return the orphan that holds ``store``, or None where it has just ended."""
    if not holder.is_here():
        raise UserError(
            f"process {holder.pid} on {holder.host} is working on it",
            where=store,
            fix="wait for it, or end it there, then resume",
        )
    try:
        process = psutil.Process(holder.pid)
        for parent in process.parents():
            if "snakemake" in " ".join(parent.cmdline()):
                raise UserError(
                    f"a run is going on (snakemake is process {parent.pid})",
                    where=store,
                    fix="wait for it, or end it, then resume",
                )
    except psutil.NoSuchProcess:
        return None
    return process
