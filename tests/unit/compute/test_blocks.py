import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import psutil
import pytest

from vasculome.compute.blocks import TileResult, map_tiles, scan_blocks, state_path
from vasculome.compute.cluster import InlineCluster, open_cluster
from vasculome.compute.pyramid import finish_pyramid
from vasculome.config import ComputeConfig
from vasculome.errors import UserError
from vasculome.geometry import Box, TileGrid
from vasculome.storage.ledger import lease_path, ledger_path, void_tiles
from vasculome.storage.omezarr import ImageSpec, create_image, open_image
from vasculome.storage.shards import checksum, write_bytes_atomic
from vasculome.storage.verify import verify

GRID = TileGrid(Box.of_shape((30, 20)), (4, 5), (0, 0))


@pytest.fixture(scope="module")
def two_workers():
    with open_cluster(ComputeConfig(scheduler="local", workers=2)) as cluster:
        yield cluster


@pytest.fixture(params=["inline", "two workers"])
def cluster(request):
    if request.param == "inline":
        return InlineCluster()
    return request.getfixturevalue("two_workers")


def _write(store, tile):
    """Write a file a tile, and note that it was done."""
    with (store.parent / "journal").open("a") as journal:
        journal.write(tile.id + "\n")
    data = f"tile {tile.id}".encode() * 10
    write_bytes_atomic(store / tile.id, data)
    return TileResult({tile.id: checksum(data)}, {"voxels": tile.core.size})


def _map(store, work, cluster, tiles=GRID, digest="d", **options):
    work = functools.partial(work, store)
    return map_tiles(
        work, tiles, total=24, store=store, digest=digest, cluster=cluster, label="test", **options
    )


def _journal(store):
    path = store.parent / "journal"
    done = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(done)


def _bytes(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_tile_is_done_once_and_a_rerun_does_nothing(tmp_path, cluster):
    store = tmp_path / "store"
    results = _map(store, _write, cluster)
    assert list(results) == [tile.id for tile in GRID]
    assert sum(r.record["voxels"] for r in results.values()) == 600
    assert _journal(store) == sorted(tile.id for tile in GRID)
    assert _map(store, _write, cluster) == results
    assert _journal(store) == []
    assert not lease_path(store).exists()


def test_inline_and_workers_leave_the_same_bytes(tmp_path, two_workers):
    for name, cluster in {"a": InlineCluster(), "b": two_workers}.items():
        _map(tmp_path / name / "store", _write, cluster)
        _journal(tmp_path / name / "store")
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_only_what_is_missing_or_damaged_is_redone(tmp_path, cluster):
    store = tmp_path / "store"
    whole = _map(store, _write, cluster)
    _journal(store)
    (store / "1.2").unlink()
    (store / "3.0").write_bytes(b"cut")
    changed = bytearray((store / "5.1").read_bytes())
    changed[3] ^= 1
    (store / "5.1").write_bytes(changed)
    damages = verify(store)
    assert {d.tile: d.fault.split()[1] for d in damages} == {
        "1.2": "missing",
        "3.0": "cut",
        "5.1": "changed",
    }
    void_tiles(store, [d.tile for d in damages])
    assert _map(store, _write, cluster) == whole
    assert _journal(store) == ["1.2", "3.0", "5.1"]
    assert verify(store) == []


def test_another_digest_does_everything_again(tmp_path):
    store = tmp_path / "store"
    _map(store, _write, InlineCluster())
    _journal(store)
    _map(store, _write, InlineCluster(), digest="other")
    assert len(_journal(store)) == len(GRID)


def _write_but_fail(kind, fails, store, tile):
    """Fail ``fails`` times on one tile, then work."""
    failures = store.parent / "failures"
    done = len(failures.read_text()) if failures.exists() else 0
    if tile.id == "2.1" and done < fails:
        failures.write_text("x" * (done + 1))
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"os": OSError(5, "Input/output error"), "code": KeyError("bug")}[kind]
    return _write(store, tile)


def test_a_killed_worker_is_replaced_and_its_tile_retried(tmp_path, two_workers):
    store = tmp_path / "store"
    work = functools.partial(_write_but_fail, "killed", 2)
    results = _map(store, work, two_workers)
    assert list(results) == [tile.id for tile in GRID]
    assert verify(store) == []


def test_a_tile_that_kills_every_worker_is_named(tmp_path, two_workers):
    work = functools.partial(_write_but_fail, "killed", 9)
    with pytest.raises(UserError, match=r"tile 2\.1: its worker process died"):
        _map(tmp_path / "store", work, two_workers, retries=1)


def test_os_errors_are_retried_but_not_forever(tmp_path, cluster):
    work = functools.partial(_write_but_fail, "os", 2)
    assert len(_map(tmp_path / "a" / "store", work, cluster)) == len(GRID)
    work = functools.partial(_write_but_fail, "os", 3)
    with pytest.raises(UserError, match=r"tile 2\.1: reading or writing failed"):
        _map(tmp_path / "b" / "store", work, cluster)


def test_a_bug_is_not_retried_and_names_its_tile(tmp_path, cluster):
    work = functools.partial(_write_but_fail, "code", 1)
    with pytest.raises(RuntimeError, match=r"tile 2\.1: KeyError\('bug'\)") as caught:
        _map(tmp_path / "store", work, cluster)
    assert isinstance(caught.value.__cause__, KeyError)
    # What was done before is kept, and the lease is free.
    _journal(tmp_path / "store")
    _map(tmp_path / "store", _write, cluster)
    assert 0 < len(_journal(tmp_path / "store")) < len(GRID)


def _raise_user_error(store, tile):
    raise UserError("no space", where=store / tile.id, fix="free some")


def test_a_user_error_comes_out_as_itself(tmp_path, cluster):
    with pytest.raises(UserError) as caught:
        _map(tmp_path / "store", _raise_user_error, cluster)
    assert caught.value.what == "no space"
    assert caught.value.fix == "free some"


class _LostCluster(InlineCluster):
    def submit(self, function, /, *args):
        future = super().submit(function, *args)
        if args[1].id == "2.1":
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
        return future


def test_a_lost_scheduler_is_told(tmp_path):
    with pytest.raises(UserError, match=r"tile 2\.1: the Dask scheduler was lost"):
        _map(tmp_path / "store", _write, _LostCluster())


class _CountingCluster(InlineCluster):
    workers = 4
    most = drawn = done = 0

    def submit(self, function, /, *args):
        future = super().submit(function, *args)
        self.done += 1
        return future


def test_tiles_are_streamed_not_queued(tmp_path):
    cluster = _CountingCluster()

    def watched():
        for tile in GRID:
            cluster.drawn += 1
            cluster.most = max(cluster.most, cluster.drawn - cluster.done)
            yield tile

    _map(tmp_path / "store", _write, cluster, tiles=watched())
    assert cluster.drawn == len(GRID)
    assert cluster.most == 1


def test_two_tiles_of_one_name_are_refused(tmp_path):
    tiles = [GRID.tile((0, 0)), GRID.tile((0, 0))]
    with pytest.raises(ValueError, match="two tiles"):
        _map(tmp_path / "store", _write, InlineCluster(), tiles=tiles)


KILLED_RUN = textwrap.dedent(
    """
    import functools, sys, time
    from pathlib import Path
    from vasculome.compute.blocks import TileResult, map_tiles
    from vasculome.compute.cluster import open_cluster
    from vasculome.config import ComputeConfig
    from vasculome.geometry import Box, TileGrid
    from vasculome.storage.shards import checksum, write_bytes_atomic

    def work(store, tile):
        time.sleep(0.05)
        with (store.parent / "journal").open("a") as journal:
            journal.write(tile.id + "\\n")
        data = f"tile {tile.id}".encode() * 10
        write_bytes_atomic(store / tile.id, data)
        return TileResult({tile.id: checksum(data)}, {"voxels": tile.core.size})

    store = Path(sys.argv[1])
    grid = TileGrid(Box.of_shape((30, 20)), (4, 5), (0, 0))
    # No `if __name__ == "__main__"`: a workflow script has none either.
    with open_cluster(ComputeConfig(scheduler=sys.argv[2], workers=2)) as cluster:
        map_tiles(functools.partial(work, store), grid, total=len(grid), store=store,
                  digest="d", cluster=cluster, label="test")
    """
)


@pytest.mark.parametrize("scheduler", ["inline", "local"])
def test_a_killed_run_carries_on_where_it_stopped(tmp_path, scheduler):
    script, store = tmp_path / "run.py", tmp_path / "killed" / "store"
    script.write_text(KILLED_RUN)
    run = subprocess.Popen([sys.executable, str(script), str(store), scheduler])
    ledger = ledger_path(store)
    while run.poll() is None and (not ledger.exists() or len(ledger.read_bytes().split()) < 6):
        time.sleep(0.01)
    workers = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    # Workers of a dead run end by themselves.
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    before = _journal(store)
    assert 5 <= len(before) < len(GRID)
    _map(store, _write, InlineCluster())
    twice = set(before) & set(_journal(store))
    assert len(twice) <= (1 if scheduler == "inline" else 2)
    _map(tmp_path / "whole" / "store", _write, InlineCluster())
    _journal(tmp_path / "whole" / "store")
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")


def test_a_run_that_has_lost_its_lease_stops(tmp_path):
    store = tmp_path / "store"

    def work(store, tile):
        if tile.id == "1.0":
            lease_path(store).write_text(json.dumps({"token": "another"}))
        return _write(store, tile)

    with pytest.raises(UserError, match="taken over"):
        _map(store, work, InlineCluster())
    assert lease_path(store).exists()


# Sequential scans.


@dataclass(frozen=True)
class Block:
    number: int

    @property
    def id(self):
        return str(self.number)


BLOCKS = [Block(n) for n in range(8)]


def _add(store, stop_at, state, block):
    """Sum block numbers; a file holds the sum so far."""
    if block.number == stop_at:
        raise KeyError("stopped")
    with (store.parent / "journal").open("a") as journal:
        journal.write(block.id + "\n")
    total = state["total"] + block.number
    data = total.tobytes()
    write_bytes_atomic(store / block.id, data)
    return {"total": total}, TileResult({block.id: checksum(data)}, {"total": int(total[0])})


def _scan(store, stop_at=None, digest="d"):
    return scan_blocks(
        functools.partial(_add, store, stop_at),
        BLOCKS,
        total=len(BLOCKS),
        initial_state={"total": np.zeros(1, "int64")},
        store=store,
        digest=digest,
        label="test",
    )


SUMS = list(itertools.accumulate(range(8)))


def test_a_scan_carries_its_state(tmp_path):
    state, results = _scan(tmp_path / "store")
    assert state["total"] == 28
    assert [r.record["total"] for r in results.values()] == SUMS
    again = _scan(tmp_path / "store")
    assert again[0]["total"] == 28
    assert again[1] == results
    assert len(_journal(tmp_path / "store")) == 8


def test_a_scan_resumes_at_the_last_durable_block(tmp_path):
    store = tmp_path / "stopped" / "store"
    with pytest.raises(RuntimeError, match="tile 5"):
        _scan(store, stop_at=5)
    assert _journal(store) == ["0", "1", "2", "3", "4"]
    state, _ = _scan(store)
    assert state["total"] == 28
    assert _journal(store) == ["5", "6", "7"]
    _scan(tmp_path / "whole" / "store")
    _journal(tmp_path / "whole" / "store")
    assert _bytes(tmp_path / "stopped") == _bytes(tmp_path / "whole")


def test_a_scan_whose_state_is_behind_redoes_one_block(tmp_path):
    store = tmp_path / "store"
    with pytest.raises(RuntimeError):
        _scan(store, stop_at=4)
    behind = state_path(store).read_bytes()
    with pytest.raises(RuntimeError):
        _scan(store, stop_at=5)
    state_path(store).write_bytes(behind)
    _journal(store)
    assert _scan(store)[0]["total"] == 28
    assert _journal(store) == ["4", "5", "6", "7"]


@pytest.mark.parametrize("damage", ["state", "file", "digest"])
def test_a_scan_begins_anew_where_its_past_is_lost(tmp_path, damage):
    store = tmp_path / "store"
    _scan(store)
    _journal(store)
    if damage == "state":
        state_path(store).write_bytes(b"PK broken")
    elif damage == "file":
        (store / "3").unlink()
    state, results = _scan(store, digest="other" if damage == "digest" else "d")
    assert state["total"] == 28
    assert [r.record["total"] for r in results.values()] == SUMS
    assert len(_journal(store)) == 8


# A real image through the map.


def _fill(image, tile):
    rng = np.random.default_rng(tile.index)
    values = rng.integers(0, 1000, tile.core.shape).astype("uint16")
    return TileResult(image.write(tile.core, values))


def _build(path, cluster):
    spec = ImageSpec(
        (40, 50, 60),
        "uint16",
        ("z", "y", "x"),
        (4.0, 2.0, 2.0),
        (8,) * 3,
        (16,) * 3,
        "mean",
        "image",
    )
    image = create_image(path, spec)
    grid = TileGrid(Box.of_shape(spec.shape), spec.shard, (0, 0, 0))
    options = {"digest": "d", "cluster": cluster}
    results = map_tiles(
        functools.partial(_fill, image), grid, total=len(grid), store=path, label="fill", **options
    )
    return results | finish_pyramid(image, label="fill", **options)


def test_an_image_is_the_same_by_any_workers_and_mended_where_damaged(tmp_path, two_workers):
    results = _build(tmp_path / "a" / "i.ome.zarr", InlineCluster())
    assert _build(tmp_path / "b" / "i.ome.zarr", two_workers) == results
    whole = _bytes(tmp_path / "a")
    assert _bytes(tmp_path / "b") == whole
    path = tmp_path / "b" / "i.ome.zarr"
    coarsest = len(open_image(path).levels) - 1
    for name in ("0/c/1/2/3", "1/c/0/1/0", f"{coarsest}/c/0/0/0"):
        (path / name).write_bytes((path / name).read_bytes()[:-5])
    void_tiles(path, [damage.tile for damage in verify(path)])
    _build(path, two_workers)
    assert _bytes(tmp_path / "b") == whole
    assert verify(path) == []
