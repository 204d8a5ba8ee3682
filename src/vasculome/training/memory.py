"""The most memory that learning takes, measured alike for every network of a device."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from vasculome.compute.device import peak_rss_bytes


class PeakMemory:
    """Counts from where it is made: on CUDA what torch has allocated, on a CPU the process's peak.

    On a CPU torch keeps no count, and gives large tensors back to the system at once, so the
    kernel's high-water mark of the process, set back here, less what the process had before, is the
    allocator's peak. Where it cannot be set back (other systems than Linux) it is 0 until the
    process grows beyond its earlier peak.
    """

    def __init__(self, device: str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            marks = Path("/proc/self/clear_refs")
            if marks.exists():
                marks.write_text("5")  # sets back the high-water mark
                self._before = psutil.Process().memory_info().rss
            else:
                self._before = peak_rss_bytes()

    def peak_bytes(self) -> int:
        """Return the most that was taken on top since."""
        peak = torch.cuda.max_memory_allocated() if self._cuda else peak_rss_bytes()
        return max(0, peak - self._before)
