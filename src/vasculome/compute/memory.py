"""How much memory a stage may take, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass

PROCESS_BYTES = 300_000_000
"""Interpreter and libraries of one process, before any data."""

TORCH_BYTES = 250_000_000
"""What a process takes for torch besides."""


@dataclass(frozen=True)
class MemoryBound:
    """The most memory that a stage takes.

    Attributes
    ----------
    bytes_per_worker
        Data that one worker holds at once: tile, halo, copies.
    workers
        Worker processes.
    base_bytes
        What each process takes before any data; the main process counts as one more.
    main_bytes
        Data that the main process holds.
    """

    bytes_per_worker: int
    workers: int
    base_bytes: int = PROCESS_BYTES
    main_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Bytes of all processes together."""
        data = self.bytes_per_worker * self.workers + self.main_bytes
        return data + self.base_bytes * (self.workers + 1)

    @property
    def total_mb(self) -> int:
        """Megabytes (10⁶ bytes) of all processes together, rounded up."""
        return -(-self.total_bytes // 10**6)

    def __str__(self) -> str:
        main = f"{self.main_bytes / 1e6:.0f} MB in the main process, " if self.main_bytes else ""
        return (
            f"{self.total_mb} MB ({self.workers} × {self.bytes_per_worker / 1e6:.0f} MB of data, "
            f"{main}{self.workers + 1} × {self.base_bytes / 1e6:.0f} MB of program)"
        )
