"""Trained weights: safetensors with a JSON model card beside them. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from vasculome import __version__
from vasculome.errors import UserError
from vasculome.storage.shards import write_bytes_atomic, write_json_atomic

_REQUIRED = ("name", "architecture", "arguments", "sha256")


def write_weights(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> str:
    """Write weights as ``NAME.safetensors``, then their card as ``NAME.json``.

    Parameters
    ----------
    path
        Of the weights.
    tensors
        By name, as of ``state_dict``.
    card
        What JSON can hold: ``name``, ``architecture`` and ``arguments`` of the network at least.
        The version of the package and the SHA-256 of the weights are added.

    Returns
    -------
    The SHA-256, hexadecimal; same tensors, same sum.

    Raises
    ------
    UserError
        As `vasculome.storage.shards.write_bytes_atomic`.
    """
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    write_bytes_atomic(path, data)
    write_json_atomic(card_path(path), {**card, "version": __version__, "sha256": digest})
    return digest


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights and their card.

    Raises
    ------
    UserError
        One of the files is missing or damaged, they do not belong together, or a weight is not a
        finite number.
    """
    card = read_card(path)
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise UserError(
            f"these are not the weights that {card_path(path).name} tells of",
            where=path,
            fix="copy both files again, or train the network again",
        )
    try:
        tensors = load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(
            f"are no weights, or damaged: {error}", where=path, fix="copy the file again"
        ) from error
    broken = sorted(
        n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()
    )
    if broken:
        raise UserError(
            f"{broken[0]} holds values that are not finite", where=path, fix="train it again"
        )
    return tensors, card


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of the weights at ``path``.

    Raises
    ------
    UserError
        It is missing, damaged, or no model card.
    """
    place = card_path(path)
    try:
        card = json.loads(_read(place))
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", where=place, fix="copy the file again") from error
    missing = [key for key in _REQUIRED if not isinstance(card, dict) or key not in card]
    if missing:
        raise UserError(
            f"is no model card: it lacks {', '.join(missing)}",
            where=place,
            fix="give weights that `snakemake models` wrote, with the card beside them",
        )
    return dict(card)


def card_path(path: Path) -> Path:
    """Return where the card of the weights at ``path`` is."""
    return path.with_suffix(".json")


def shipped_weights() -> list[Path]:
    """Return the weights that come with the package, by name."""
    folder = Path(str(files("vasculome"))) / "weights"
    return sorted(folder.glob("*.safetensors"))


def shipped(name: str) -> Path:
    """Return the weights of this name that come with the package.

    Raises
    ------
    UserError
        There are none.
    """
    found = {path.stem: path for path in shipped_weights()}
    if name not in found:
        raise UserError(
            f"no weights {name!r} come with vasculome, only {', '.join(found) or 'none'}",
            where="weights",
            fix="give one of these, or the path of a .safetensors file",
        )
    return found[name]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=path, fix="check the path of the weights"
        ) from error
