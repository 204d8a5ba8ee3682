"""States of a training in single files: tensors, and the little that is not a tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save
from torch import Tensor

from vasculome.errors import UserError
from vasculome.storage.shards import write_bytes_atomic

_STATE = "state"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write named tensors and a state that JSON can hold: complete, or not at all.

    Raises
    ------
    UserError
        As `vasculome.storage.shards.write_bytes_atomic`.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes_atomic(path, save(kept, {_STATE: json.dumps(dict(state))}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the state of a checkpoint.

    Raises
    ------
    UserError
        The file is missing or damaged, or no checkpoint.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as kept:
            state = json.loads((kept.metadata() or {})[_STATE])
            return {name: kept.get_tensor(name) for name in kept.keys()}, state  # noqa: SIM118
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(
            f"is no checkpoint of a training, or damaged: {error}",
            where=path,
            fix="delete it to train from the beginning",
        ) from error
