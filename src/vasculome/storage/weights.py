"""Trained weights: safetensors with a JSON model card beside them. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from vasculome import __version__
from vasculome.errors import UserError
from vasculome.storage.shards import write_bytes_atomic, write_json_atomic

if TYPE_CHECKING:
    from torch import Tensor, nn

# torch takes seconds to import, and a card is read wherever a workflow is planned: only what holds
# tensors imports it.

_REQUIRED = ("name", "architecture", "arguments", "sha256")


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any], *, half: bool = False
) -> str:
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
    half
        Whether float32 is stored as float16, in half the space.

    Returns
    -------
    The SHA-256, hexadecimal; same tensors, same sum.

    Raises
    ------
    UserError
        As `vasculome.storage.shards.write_bytes_atomic`.
    """
    import torch  # noqa: PLC0415
    from safetensors.torch import save  # noqa: PLC0415

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if half:
        stored = {n: t.half() if t.dtype == torch.float32 else t for n, t in stored.items()}
    data = save(stored)
    digest = hashlib.sha256(data).hexdigest()
    write_bytes_atomic(path, data)
    write_json_atomic(card_path(path), {**card, "version": __version__, "sha256": digest})
    return digest


def copy_weights(source: Path, path: Path, told: Mapping[str, Any]) -> str:
    """Write the same weights elsewhere, with more told in their card; return their SHA-256.

    Raises
    ------
    UserError
        As :func:`check_weights` and :func:`write_weights`.
    """
    card, data = _checked(source)
    write_bytes_atomic(path, data)
    write_json_atomic(card_path(path), {**card, **told})
    return str(card["sha256"])


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights and their card; what is stored as float16 becomes float32.

    Raises
    ------
    UserError
        One of the files is missing or damaged, they do not belong together, or a weight is not a
        finite number.
    """
    import torch  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    card, data = _checked(path)
    try:
        tensors = load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"are no weights, or damaged: {error}", where=path, fix="copy the file again"
        ) from error
    broken = sorted(n for n, t in tensors.items() if not torch.isfinite(t).all())
    if broken:
        raise UserError(
            f"{broken[0]} holds values that are not finite", where=path, fix="train it again"
        )
    return {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}, card


def fill(network: nn.Module, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    """Put weights into a network.

    Parameters
    ----------
    network
        Of the architecture that the card tells of.
    tensors, path
        From :func:`read_weights`, and of what file.

    Raises
    ------
    UserError
        They are of another network: names, shapes or types differ.
    """
    own = network.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors:
            fault = f"{name} is missing"
        elif name not in own:
            fault = f"it has no {name}"
        elif own[name].shape != tensors[name].shape:
            fault = f"{name} is {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        elif own[name].dtype != tensors[name].dtype:
            fault = f"{name} is {tensors[name].dtype} instead of {own[name].dtype}"
        else:
            continue
        raise UserError(
            f"are not weights of the network that {card_path(path).name} tells of: {fault}",
            where=path,
            fix="give weights that this version of vasculome trained, with the card beside them",
        )
    network.load_state_dict(dict(tensors))


def check_weights(path: Path) -> dict[str, Any]:
    """Return the card of weights, whose file is the one that it tells of; no tensor is made.

    Raises
    ------
    UserError
        One of the files is missing or damaged, or they do not belong together.
    """
    return _checked(path)[0]


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


def _checked(path: Path) -> tuple[dict[str, Any], bytes]:
    card, data = read_card(path), _read(path)
    if hashlib.sha256(data).hexdigest() != card["sha256"]:
        raise UserError(
            f"these are not the weights that {card_path(path).name} tells of",
            where=path,
            fix="copy both files again, or train the network again",
        )
    return card, data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=path, fix="check the path of the weights"
        ) from error
