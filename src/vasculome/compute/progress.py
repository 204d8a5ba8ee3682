"""Progress of a map over tiles: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0


class TileProgress:
    """Counts finished tiles of ``total``; a context manager.

    Parameters
    ----------
    label
        What is being done.
    total
        Tiles in all.
    bytes_per_tile
        For the throughput; 0 shows tiles a second.
    unit
        What is counted, where it is not tiles.
    """

    def __init__(
        self, label: str, *, total: int, bytes_per_tile: float = 0, unit: str = "tiles"
    ) -> None:
        self.label = label
        self.total = total
        self.bytes_per_tile = bytes_per_tile
        self.unit = unit
        self.note = ""
        self.skipped = 0
        self.done = 0
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn(f"{{task.completed}}/{{task.total}} {self.unit} {{task.fields[speed]}}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.add_task(self.label, total=self.total, speed="")
            self._bar.start()
        else:
            log.info("%s: %d %s", self.label, self.total, self.unit)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        log.info("%s: %s", self.label, self.describe())

    def skip(self, count: int = 1) -> None:
        """Count tiles that an earlier run has done."""
        self.skipped += count
        self._show()

    def advance(self, note: str = "") -> None:
        """Count a tile that is done now; ``note`` is shown beside the count until the next."""
        self.done += 1
        self.note = note
        self._show()

    def describe(self) -> str:
        """Return count, throughput and time left, e.g. ``"3/8 tiles (1 from before), 42 MB/s"``."""
        text = f"{self.done + self.skipped}/{self.total} {self.unit}"
        if self.skipped:
            text += f" ({self.skipped} from before)"
        if self.done == 0:
            return text
        elapsed_s = max(time.monotonic() - self._started, 1e-6)
        left = self.total - self.done - self.skipped
        text += f", {self._speed(elapsed_s)}, {_duration(elapsed_s)}"
        text += f", {_duration(left * elapsed_s / self.done)} left" if left > 0 else ""
        return text + (f", {self.note}" if self.note else "")

    def _speed(self, elapsed_s: float) -> str:
        if self.bytes_per_tile:
            return f"{self.done * self.bytes_per_tile / elapsed_s / 1e6:.1f} MB/s"
        return f"{self.done / elapsed_s:.2f} {self.unit}/s"

    def _show(self) -> None:
        now = time.monotonic()
        if self._bar is not None:
            speed = self._speed(max(now - self._started, 1e-6)) if self.done else ""
            speed += f", {self.note}" if self.note else ""
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self.done + self.skipped, speed=speed)
        elif now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            log.info("%s: %s", self.label, self.describe())


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
