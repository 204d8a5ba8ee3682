"""The resumable maps: independent tiles by many workers, and blocks in order with a state."""

from __future__ import annotations

import io
import itertools
import logging
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from distributed import KilledWorker

from vasculome.compute.cluster import Cluster
from vasculome.compute.progress import TileProgress
from vasculome.errors import UserError
from vasculome.storage.ledger import Lease, Ledger, TileResult
from vasculome.storage.shards import check_fences, fenced, write_bytes_atomic

__all__ = ["State", "TileResult", "map_tiles", "scan_blocks"]

log = logging.getLogger(__name__)

State = dict[str, npt.NDArray[Any]]
"""What is carried from block to block: named arrays."""


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Identified)


def map_tiles(
    work: Callable[[T], TileResult],
    tiles: Iterable[T],
    *,
    total: int,
    store: Path,
    digest: str,
    cluster: Cluster,
    label: str,
    bytes_per_tile: float = 0,
    retries: int = 2,
) -> dict[str, TileResult]:
    """Do ``work`` on every tile that the store's ledger does not prove done.

    Tiles are streamed, so ``tiles`` may be a generator of millions. A tile is recorded after its
    files are durable, and a worker gets the next one only then: whenever a run is killed, no
    worker has more than one tile that must be done again.

    Parameters
    ----------
    work
        Writes a tile's files (they must be durable when it returns), and tells their checksums;
        it must be picklable, and give the same files for the same tile.
    tiles
        What has an ``id``, unique and the same in every run.
    total
        How many, for the progress.
    store
        Store that the ledger and the lease stand beside.
    digest
        Of everything that the outputs depend on; entries under another digest are void.
    cluster
        Workers.
    label
        What is being done, for the progress.
    bytes_per_tile
        For the throughput.
    retries
        How many more times a tile is tried after its worker died or it raised OSError.

    Returns
    -------
    dict
        Result of each tile by its id, in the order of ``tiles``.

    Raises
    ------
    UserError
        From ``work``, as it is; or another run holds the store; or a tile failed for good by
        OSError or by the death of its worker.
    RuntimeError
        Any other exception of ``work``, as its cause; names the tile.
    """
    order: dict[str, None] = {}
    with (
        Lease(store) as lease,
        TileProgress(label, total=total, bytes_per_tile=bytes_per_tile) as progress,
    ):
        ledger = Ledger(store, digest)
        left = _not_done(tiles, ledger, order, progress)
        pending: dict[Future[TileResult], tuple[T, int]] = {}

        def hand_over(tile: T, failures: int) -> None:
            future = cluster.submit(_run_fenced, work, tile, lease.path, lease.token)
            pending[future] = tile, failures

        try:
            while True:
                for tile in itertools.islice(left, cluster.workers - len(pending)):
                    hand_over(tile, 0)
                if not pending:
                    break
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    tile, failures = pending.pop(future)
                    result = _result_or_none(future, tile, label, may_retry=failures < retries)
                    check_fences()
                    if result is None:
                        hand_over(tile, failures + 1)
                    else:
                        ledger.record(tile.id, result)
                        progress.advance()
        finally:
            for future in pending:
                future.cancel()
        ledger.settle()
    return {tile_id: ledger.done[tile_id] for tile_id in order}


def scan_blocks(
    step: Callable[[State, T], tuple[State, TileResult]],
    blocks: Iterable[T],
    *,
    total: int,
    initial_state: Mapping[str, npt.NDArray[Any]],
    store: Path,
    digest: str,
    label: str,
    bytes_per_block: float = 0,
) -> tuple[State, dict[str, TileResult]]:
    """Do ``step`` on every block in order, carrying a state from block to block.

    The state is kept in ``<store>.state.npz`` after each block, so that a rerun carries on with
    the first block that is not durable. Where a file of an earlier block is damaged, the scan
    begins anew: its state is gone.

    Parameters
    ----------
    step
        ``step(state, block)`` writes the block's files durably, and returns the next state and
        the block's result. It runs in this process, and must not change the state it is given.
    blocks
        What has an ``id``; the same in every run.
    total, store, digest, label, bytes_per_block
        As in :func:`map_tiles`.
    initial_state
        Named arrays.

    Returns
    -------
    state
        After the last block.
    results
        Result of each block by its id, in order.

    Raises
    ------
    UserError, RuntimeError
        As :func:`map_tiles`.
    """
    order: dict[str, None] = {}
    path = state_path(store)
    with (
        Lease(store),
        TileProgress(label, total=total, bytes_per_tile=bytes_per_block) as progress,
    ):
        ledger = Ledger(store, digest)
        saved = _load_state(path, digest)
        whole = all(ledger.proves(block_id) for block_id in list(ledger.done))
        if saved is None or not whole or saved[0] > len(ledger.done):
            saved = 0, dict(initial_state)
        first, state = saved
        for number, block in enumerate(blocks):
            _note(order, block.id)
            if number < first and block.id in ledger.done:
                progress.skip()
                continue
            try:
                state, result = step(state, block)
            except Exception as error:
                raise _failure(error, block, label) from error
            # The ledger first: a block is redone from its state, but a state not without it.
            ledger.record(block.id, result)
            _save_state(path, digest, number + 1, state)
            progress.advance()
        ledger.settle()
    return state, {block_id: ledger.done[block_id] for block_id in order}


def state_path(store: Path) -> Path:
    """Return where the state of a scan over ``store`` is kept."""
    store = Path(store).absolute()
    return store.with_name(f"{store.name}.state.npz")


def _run_fenced(work: Callable[[T], TileResult], tile: T, lease: Path, token: str) -> TileResult:
    with fenced(lease, token):
        return work(tile)


def _not_done(
    tiles: Iterable[T], ledger: Ledger, order: dict[str, None], progress: TileProgress
) -> Iterable[T]:
    for tile in tiles:
        _note(order, tile.id)
        if ledger.proves(tile.id):
            progress.skip()
        else:
            yield tile


def _note(order: dict[str, None], tile_id: str) -> None:
    if tile_id in order:
        raise ValueError(f"two tiles have the id {tile_id!r}")
    order[tile_id] = None


def _result_or_none(
    future: Future[TileResult], tile: _Identified, label: str, *, may_retry: bool
) -> TileResult | None:
    """Return what the tile returned, or None if it is to be tried again."""
    try:
        error = future.exception()
    except CancelledError:
        raise UserError(
            "the Dask scheduler was lost",
            where=f"{label}, tile {tile.id}",
            fix="see that it runs and can be reached, then rerun",
        ) from None
    if error is None:
        return future.result()
    if isinstance(error, OSError | KilledWorker) and may_retry:
        log.warning("%s: tile %s is tried again after %r", label, tile.id, error)
        return None
    raise _failure(error, tile, label) from error


def _failure(error: BaseException, tile: _Identified, label: str) -> BaseException:
    """Return what to raise for good: the user's faults as they are, others with the tile named."""
    if isinstance(error, UserError):
        return error
    where = f"{label}, tile {tile.id}"
    if isinstance(error, KilledWorker):
        return UserError(
            "its worker process died again and again, most likely for want of memory",
            where=where,
            fix="use fewer workers or smaller storage.shard_zyx, then rerun",
        )
    if isinstance(error, OSError):
        return UserError(
            f"reading or writing failed again and again: {error}",
            where=where,
            fix="check disk and network, then rerun",
        )
    return RuntimeError(f"{where}: {error!r}")


def _save_state(path: Path, digest: str, blocks: int, state: State) -> None:
    buffer = io.BytesIO()
    arrays = {f"state.{name}": values for name, values in state.items()}
    np.savez(buffer, digest=np.array(digest), blocks=np.array(blocks), **arrays)  # type: ignore[arg-type]
    write_bytes_atomic(path, buffer.getvalue())


def _load_state(path: Path, digest: str) -> tuple[int, State] | None:
    """Return how many blocks are done and the state after them; None where there is none."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["digest"]) != digest:
                return None
            names = [name for name in saved.files if name.startswith("state.")]
            state = {name.removeprefix("state."): saved[name] for name in names}
            return int(saved["blocks"]), state
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s): the scan begins anew", path, error)
        return None
