"""Workers from the configuration: this process, processes of this machine, or a Dask scheduler."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, Protocol

import dask
from distributed import Client, LocalCluster

from vasculome.compute.device import pin_threads, thread_environment
from vasculome.config import ComputeConfig
from vasculome.errors import UserError

_CONNECT_TIMEOUT_S = 10
# One heap for all threads of a worker, which keeps freed blocks of up to 32 MB for the next tile
# instead of fetching them anew from the system, page by page: 7 against 16 s/GB on a loaded virtual
# machine. Larger blocks do go back: kept, they leave gaps, and memory grew by a third in 3 GB.
_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}


class Cluster(Protocol):
    """Anything that runs functions on workers.

    Attributes
    ----------
    workers
        Tiles computed at once.
    """

    @property
    def workers(self) -> int: ...  # noqa: D102

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(*args)`` on a worker; the future holds what it returns or raises."""
        ...


class InlineCluster:
    """No workers at all: functions run in this process, as they are submitted."""

    workers = 1

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(*args)`` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args))
        # What it raises is for the caller to judge, as from a worker.
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class DaskCluster:
    """Workers of a Dask scheduler."""

    executor: Executor
    workers: int

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(*args)`` on a worker."""
        return self.executor.submit(function, *args)


@contextlib.contextmanager
def open_cluster(compute: ComputeConfig) -> Iterator[Cluster]:
    """Give the workers that ``compute`` asks for; they end with the context.

    Raises
    ------
    UserError
        The scheduler at ``compute.address`` does not answer or has no workers.
    ValueError
        The scheduler is unknown.
    """
    if compute.scheduler == "inline":
        pin_threads(compute.threads_per_worker)
        yield InlineCluster()
    elif compute.scheduler == "local":
        with _local_cluster(compute) as cluster:
            yield cluster
    elif compute.scheduler == "address":
        with _cluster_at(compute.address or "") as cluster:
            yield cluster
    else:
        raise ValueError(f"unknown scheduler {compute.scheduler!r}")


@contextlib.contextmanager
def _local_cluster(compute: ComputeConfig) -> Iterator[Cluster]:
    workers = compute.workers or os.cpu_count() or 1
    settings = {
        # A tile that waits on the scheduler is not lost, nor blamed, when a worker dies.
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.scheduler.allowed-failures": 0,
        # Bounds are computed beforehand; swapping tiles to disk would only hide a wrong one.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
    }
    with (
        dask.config.set(settings),
        _main_module_hidden(),
        _environment(thread_environment(compute.threads_per_worker) | _ALLOCATOR),
        tempfile.TemporaryDirectory(prefix="vasculome-") as folder,
        _start_local(workers, folder) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
        client.get_executor(pure=False) as executor,
    ):
        yield DaskCluster(executor, workers)


def _start_local(workers: int, folder: str) -> LocalCluster:
    """Start a scheduler and workers that leave Ctrl-C to this process, which then ends them.

    Threads and processes inherit the signals that are blocked where they are started.
    """
    # It would be started with the first worker, and unblock the signal there.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
            memory_limit=0,
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def _cluster_at(address: str) -> Iterator[Cluster]:
    try:
        client = Client(address, timeout=_CONNECT_TIMEOUT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers: {error}",
            where=f"config: compute.address: {address}",
            fix="start one with `dask scheduler`, or use scheduler: local",
        ) from error
    with client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        if workers == 0:
            raise UserError(
                "the Dask scheduler has no workers",
                where=f"config: compute.address: {address}",
                fix="start some with `dask worker`",
            )
        with client.get_executor(pure=False) as executor:  # type: ignore[no-untyped-call]
            yield DaskCluster(executor, workers)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started within, later replacements included."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep new worker processes from running the main script once more.

    Starting a process by "spawn" imports the parent's main module, and a workflow script is
    top-level code. Nothing on a worker needs it: functions come by their own modules.
    """
    names: dict[str, object] = sys.modules["__main__"].__dict__
    hidden = {str(name): names.pop(name) for name in ("__file__", "__spec__") if name in names}
    names["__spec__"] = None
    try:
        yield
    finally:
        names.update(hidden)
