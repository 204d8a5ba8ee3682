"""Weights of a project's own network that are no good, and what is to be said of them."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = "mine/net.safetensors"


def missing(folder: Path) -> tuple[str, ...]:
    (folder / WEIGHTS).unlink()
    return WEIGHTS, "cannot be read", "check the path of the weights"


def truncated(folder: Path) -> tuple[str, ...]:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    return WEIGHTS, "these are not the weights that net.json tells of"
