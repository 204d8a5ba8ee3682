import json
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from vasculome.errors import UserError
from vasculome.storage import lease as lease_module
from vasculome.storage.lease import Lease, lease_path
from vasculome.storage.shards import fenced, write_bytes_atomic

HOLD = (
    "import sys, time, pathlib\n"
    "from vasculome.storage.lease import Lease\n"
    "with Lease(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)

# Tries at a moment, and keeps what it gets until it is told to go.
RACE = (
    "import sys, time, pathlib\n"
    "from vasculome.errors import UserError\n"
    "from vasculome.storage.lease import Lease\n"
    "print('ready', flush=True)\n"
    "moment = float(sys.stdin.readline())\n"
    "while time.time() < moment: pass\n"
    "try:\n"
    "    with Lease(pathlib.Path(sys.argv[1])) as lease:\n"
    "        print('won', flush=True)\n"
    "        sys.stdin.readline()\n"
    "        print('kept' if lease.token in lease.path.read_text() else 'lost', flush=True)\n"
    "except UserError: print('refused', flush=True)\n"
)


def _dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _put_lease(store, **changes):
    content = {"host": socket.gethostname(), "pid": 1, "started": 0.0, "token": "old"} | changes
    lease_path(store).write_text(json.dumps(content))


def test_a_live_holder_is_named_and_its_death_frees_the_lease(tmp_path):
    store = tmp_path / "s.zarr"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(store)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on"), Lease(store):
            pass
    finally:
        holder.kill()
        holder.wait()
    with Lease(store) as taken:
        assert json.loads(lease_path(store).read_text())["token"] == taken.token
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_that_nobody_has_reaped_is_dead(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "s")], stdout=-1)
    holder.stdout.readline()
    holder.kill()
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with Lease(tmp_path / "s"):
        pass
    holder.wait()


def test_a_reused_pid_is_not_the_holder(tmp_path):
    _put_lease(tmp_path / "s", pid=os.getpid(), started=psutil.Process().create_time() - 1000)
    with Lease(tmp_path / "s"):
        pass


@pytest.mark.parametrize(("silent_s", "refused"), [(5, True), (600, False)])
def test_another_host_counts_as_dead_when_long_silent(tmp_path, silent_s, refused):
    _put_lease(tmp_path / "s", host="elsewhere", pid=os.getpid())
    then = time.time() - silent_s
    os.utime(lease_path(tmp_path / "s"), (then, then))
    if refused:
        with pytest.raises(UserError, match="on elsewhere"), Lease(tmp_path / "s"):
            pass
    else:
        with Lease(tmp_path / "s"):
            pass


def test_a_lease_torn_by_a_crash_is_taken_over(tmp_path):
    path = lease_path(tmp_path / "s")
    path.write_text('{"host": "x')
    os.utime(path, (0, 0))
    with Lease(tmp_path / "s") as taken:
        assert taken.token in path.read_text()


def test_a_successor_that_died_half_way_is_succeeded(tmp_path):
    dead = _dead_pid()
    _put_lease(tmp_path / "s", pid=dead, token="first")
    claim = lease_path(tmp_path / "s").with_name("s.lease.json.after-first")
    claim.write_text(
        json.dumps({"host": socket.gethostname(), "pid": dead, "started": 0, "token": "second"})
    )
    with Lease(tmp_path / "s") as taken:
        assert taken.token in taken.path.read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_start_at_once_one_wins(tmp_path, stale):
    store = tmp_path / "s"
    if stale:
        _put_lease(store, pid=_dead_pid())
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(store)], stdin=-1, stdout=-1, text=True)
        for _ in range(4)
    ]
    assert {racer.stdout.readline() for racer in racers} == {"ready\n"}
    moment = time.time() + 0.1
    for racer in racers:
        racer.stdin.write(f"{moment}\n")
        racer.stdin.flush()
    outcomes = sorted(racer.stdout.readline().strip() for racer in racers)
    last_words = [racer.communicate("go\n")[0].strip() for racer in racers]
    assert outcomes == ["refused"] * 3 + ["won"]
    assert sorted(last_words) == ["", "", "", "kept"]
    assert list(tmp_path.iterdir()) == []


def test_leases_nest_in_one_process(tmp_path):
    with Lease(tmp_path / "s") as outer:
        with Lease(tmp_path / "s") as inner:
            assert inner is outer
        assert outer.path.exists()
    assert not outer.path.exists()


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "HEARTBEAT_S", 0.05)
    with Lease(tmp_path / "s") as taken:
        os.utime(taken.path, (0, 0))
        deadline = time.monotonic() + 5
        while taken.path.stat().st_mtime < 1000 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert taken.path.stat().st_mtime > time.time() - 60


def test_an_orphan_of_a_dead_run_cannot_write_after_takeover(tmp_path):
    store = tmp_path / "s"
    _put_lease(store, pid=_dead_pid(), token="dead")
    with fenced(lease_path(store), "dead"):
        write_bytes_atomic(store / "shard", b"before")
        with Lease(store):
            pass
    code = (
        "import sys, pathlib\n"
        "from vasculome.storage.shards import fenced, write_bytes_atomic\n"
        "lease, shard = map(pathlib.Path, sys.argv[1:])\n"
        "with fenced(lease, 'dead'): write_bytes_atomic(shard, b'orphan')\n"
    )
    with Lease(store):
        command = [sys.executable, "-c", code, str(lease_path(store)), str(store / "shard")]
        orphan = subprocess.run(command, check=False, capture_output=True, text=True)
        write_bytes_atomic(store / "other", b"mine")
    assert "taken over" in orphan.stderr
    assert (store / "shard").read_bytes() == b"before"
    assert sorted(p.name for p in store.iterdir()) == ["other", "shard"]


def test_taking_a_lease_removes_half_written_files(tmp_path):
    (tmp_path / "s" / "0" / "c").mkdir(parents=True)
    (tmp_path / "s" / "0" / "c" / ".7.1a2b3c4d.tmp").write_bytes(b"half")
    (tmp_path / "s" / "0" / "c" / "7").write_bytes(b"whole")
    (tmp_path / "s" / "0" / ".1a2b3c4d.tmp" / "c").mkdir(parents=True)
    (tmp_path / "s" / "0" / ".1a2b3c4d.tmp" / "c" / "8").write_bytes(b"staged")
    (tmp_path / ".s.ledger.jsonl.1a2b3c4d.tmp").write_bytes(b"half")
    (tmp_path / ".other.1a2b3c4d.tmp").write_bytes(b"not ours")
    with Lease(tmp_path / "s"):
        pass
    left = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert left == [".other.1a2b3c4d.tmp", "7"]
