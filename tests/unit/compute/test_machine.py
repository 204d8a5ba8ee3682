import io
import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from vasculome.compute.device import peak_rss_bytes, pick_device, pin_threads, thread_environment
from vasculome.compute.memory import MemoryBound
from vasculome.compute.progress import TileProgress
from vasculome.errors import UserError
from vasculome.storage.shards import codec_context


class _Torch:
    """As much of torch as is used, since torch itself takes seconds to import."""

    def __init__(self, has_gpu):
        self.cuda = self
        self.is_available = lambda: has_gpu
        self.threads = None

    def set_num_threads(self, threads):
        self.threads = threads


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", _Torch(has_gpu=False))
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(UserError, match="CUDA"):
        pick_device("cuda")
    monkeypatch.setitem(sys.modules, "torch", _Torch(has_gpu=True))
    assert pick_device("auto") == pick_device("cuda") == "cuda"
    assert pick_device("cpu") == "cpu"


def test_threads_are_pinned_here_and_in_processes_to_come(monkeypatch):
    torch = _Torch(has_gpu=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    for name in thread_environment(1):
        monkeypatch.setenv(name, "1")
    pin_threads(3)
    assert torch.threads == 3
    assert {os.environ[name] for name in thread_environment(3)} == {"3"}
    assert codec_context().spec.to_json()["data_copy_concurrency"] == {"limit": 3}
    monkeypatch.undo()
    codec_context.cache_clear()


def test_peak_memory_sees_what_was_taken_and_freed():
    before = peak_rss_bytes()
    block = np.ones(50_000_000, "uint8")
    del block
    assert peak_rss_bytes() >= before
    code = (
        "import numpy as np\n"
        "from vasculome.compute.device import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "np.ones(200_000_000, 'uint8')\n"
        "print((peak_rss_bytes() - before) / 1e6)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 190 < float(done.stdout) < 230


def test_peak_memory_counts_children():
    alone = peak_rss_bytes()
    code = (
        "import numpy, sys\nx = numpy.ones(10**8, 'uint8')\nprint(1, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        assert peak_rss_bytes() - alone > 100e6
        child.stdin.close()


def test_memory_bound_adds_up():
    bound = MemoryBound(bytes_per_worker=100_000_000, workers=3, base_bytes=50_000_001)
    assert bound.total_bytes == 500_000_004
    assert bound.total_mb == 501
    assert str(bound) == "501 MB (3 × 100 MB of data, 4 × 50 MB of program)"
    bound = replace(bound, main_bytes=29_000_000)
    told = "530 MB (3 × 100 MB of data, 29 MB in the main process, 4 × 50 MB of program)"
    assert str(bound) == told


def test_progress_lines_tell_throughput_and_time_left(caplog, monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 6.0))
    monkeypatch.setattr("vasculome.compute.progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    with TileProgress("mask", total=4, bytes_per_tile=12e6) as progress:
        progress.skip()
        progress.advance()
        progress.advance()
        progress.advance()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "mask: 4 tiles"
    assert lines[1].startswith("mask: 2/4 tiles (1 from before), ")
    assert "MB/s" in lines[1]
    assert lines[1].endswith("left")
    assert lines[-1].startswith("mask: 4/4 tiles (1 from before), ")
    assert "left" not in lines[-1]


def test_progress_counts_other_things_and_says_how_they_go(caplog, monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 5.0))
    monkeypatch.setattr("vasculome.compute.progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    with TileProgress("training", total=100, unit="steps") as progress:
        progress.skip(97)
        progress.advance("loss 0.5000")
        progress.advance("loss 0.2500")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "training: 100 steps"
    # Two of three in 30 s on this clock, which goes on 5 s whenever it is read.
    said = "99/100 steps (97 from before), 0.07 steps/s, 30.0 s, 15.0 s left, loss 0.2500"
    assert lines[-1] == f"training: {said}"
