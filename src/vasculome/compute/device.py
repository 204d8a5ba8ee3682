"""The machine under a stage: processor or GPU, threads, memory taken."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Literal

import psutil

from vasculome.errors import UserError
from vasculome.storage.shards import limit_threads

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLOSC_NTHREADS",
)


def pick_device(name: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """Return the torch device to compute on; ``"auto"`` takes the GPU if there is one.

    Raises
    ------
    UserError
        ``"cuda"`` is asked for where there is none.
    """
    if name == "cpu":
        return "cpu"
    # torch takes seconds to import: only where a stage needs it.
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise UserError(
            "no CUDA device is available", where="device: cuda", fix="use device: auto or cpu"
        )
    return "cpu"


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment that limits BLAS, OpenMP, numba and torch in a new process."""
    limit = {name: str(threads) for name in _THREAD_VARIABLES}
    return {**limit, "VASCULOME_CODEC_THREADS": str(threads)}


def pin_threads(threads: int) -> None:
    """Limit the threads of this process, as far as libraries are not loaded yet; torch always."""
    os.environ.update(thread_environment(threads))
    limit_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def peak_rss_bytes() -> int:
    """Return the most memory that this process and its living children have each taken, summed.

    An upper bound of what they took at once.
    """
    own = psutil.Process()
    return sum(_peak_of(process) for process in [own, *own.children(recursive=True)])


def _peak_of(process: psutil.Process) -> int:
    try:
        # The kernel's high-water mark; unlike ru_maxrss it does not begin with the parent's.
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if process.pid == os.getpid():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
