"""Sparse tensors of 2 to 4 axes, space and time, with their convolutions and other layers."""

from __future__ import annotations

import importlib
from types import ModuleType

from vasculome.errors import UserError
from vasculome.sparse import layers
from vasculome.sparse.tensor import SparseTensor

__all__ = ["SparseTensor", "backend", "layers"]


def backend(name: str = "vasculome") -> ModuleType:
    """Return the module of layers, and of their ``SparseTensor``, of an engine.

    Parameters
    ----------
    name
        ``vasculome`` (this package; CPU and CUDA) or ``minkowski`` (MinkowskiEngine).

    Raises
    ------
    UserError
        If there is no such engine, or MinkowskiEngine is not installed.
    """
    if name == "vasculome":
        return layers
    if name != "minkowski":
        raise UserError(
            f"there is no sparse engine {name!r}",
            where="sparse engine",
            fix="take vasculome or minkowski",
        )
    try:
        return importlib.import_module("vasculome.sparse.minkowski")
    except ImportError as error:
        raise UserError(
            f"MinkowskiEngine cannot be imported: {error}",
            where="sparse engine minkowski",
            fix="build it with `make minkowski`, or take the engine vasculome",
        ) from error
