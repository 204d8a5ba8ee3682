"""What a network computes and moves, against what a device can do at the most."""

from __future__ import annotations

from typing import Any

import torch
from student_on import milliseconds
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, were nothing kept in between."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            moved = (*tree_iter(args), *tree_iter(kwargs or {}), *tree_iter(out))
            self.bytes += sum(x.nbytes for x in moved if isinstance(x, Tensor))
        return out


def work(network: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return the floating-point operations of a voxel, and the bytes that they move.

    A product and its sum are two operations; norms and activations, which move bytes but compute
    next to nothing, are not counted.
    """
    with FlopCounterMode(display=False) as flops:
        network(x)
    with Traffic() as traffic:
        network(x)
    return flops.get_total_flops() / x.numel(), traffic.bytes / x.numel()


def measured_flops(device: str) -> float:
    """Return the operations a second of a product of matrices."""
    n = 8192
    a, b = (torch.rand(n, n, device=device, dtype=torch.float16) for _ in range(2))
    return 2e3 * n**3 / milliseconds(lambda: a @ b, device=device, turns=5)


def measured_bytes(device: str) -> float:
    """Return the bytes a second that a copy reads and writes."""
    source = torch.empty(1 << 30, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    spent = milliseconds(lambda: target.copy_(source), device=device, turns=5)
    return 2e3 * source.numel() / spent


def bounds(flops: float, moved: float, *, peak_flops: float, peak_bytes: float) -> dict[str, float]:
    """Return the voxels a second that computing and moving allow, in millions."""
    return {
        "roof_of_compute_mvoxels_per_s": round(peak_flops / flops / 1e6, 1),
        "roof_of_memory_mvoxels_per_s": round(peak_bytes / moved / 1e6, 1),
    }


def roofline(network: nn.Module, x: Tensor, *, ms: float, peaks: dict[str, Any]) -> dict[str, Any]:
    """Return voxels a second, and how near they are to the lower of both roofs.

    Parameters
    ----------
    network, x
        Where they compute, and windows to see.
    ms
        Milliseconds for a window.
    peaks
        ``peak_tflops`` and ``peak_gb_per_s`` of the device; what is None is measured.
    """
    device, tflops, gb = x.device.type, peaks["peak_tflops"], peaks["peak_gb_per_s"]
    peak_flops = measured_flops(device) if tflops is None else 1e12 * tflops
    peak_bytes = measured_bytes(device) if gb is None else 1e9 * gb
    flops, moved = work(network, x)
    roofs = bounds(flops, moved, peak_flops=peak_flops, peak_bytes=peak_bytes)
    speed = x[0].numel() / ms / 1e3
    return {
        "mvoxels_per_s": round(speed, 1),
        "flops_per_voxel": round(flops),
        "bytes_per_voxel": round(moved),
        "peak_tflops": round(peak_flops / 1e12, 1),
        "peak_gb_per_s": round(peak_bytes / 1e9),
        **roofs,
        "of_the_roof": round(speed / min(roofs.values()), 3),
    }
