"""What identifies a result: a digest of settings, inputs and of the code that made it."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

_PACKAGE = "vasculome"
# Settings are in a digest by value; messages, bookkeeping and scheduling change no result.
_NOT_CODE = ("config", "errors", "compute", "stages.job", "stages.catalog", "stages.digest")


def digest_of(content: Any) -> str:
    """Return a short hexadecimal digest of anything that JSON can hold."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.cache
def code_digest(module: str) -> str:
    """Return a digest of the source of ``module`` and of every module of ours it imports."""
    sources = {name: _source(name).read_bytes() for name in sorted(_closure(module))}
    return digest_of({n: hashlib.blake2b(s).hexdigest() for n, s in sources.items()})


def _closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or _changes_no_result(name):
            continue
        seen.add(name)
        waiting.extend(_imports(name))
    return seen


def _changes_no_result(module: str) -> bool:
    name = module.removeprefix(f"{_PACKAGE}.")
    return any(name == part or name.startswith(f"{part}.") for part in _NOT_CODE)


# The stages share most of their modules: each is parsed once.
@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    names = []
    for node in ast.walk(ast.parse(_source(module).read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # ``from package import name`` may name a module or something inside one.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(n for n in names if n.startswith(f"{_PACKAGE}.") and _is_module(n))


@functools.cache
def _is_module(name: str) -> bool:
    return _file(name) is not None


def _source(module: str) -> Path:
    file = _file(module)
    assert file is not None
    return file


def _file(module: str) -> Path | None:
    """Return the file of a module of ours; to find it nothing is imported but the package."""
    package, *parts = module.split(".")
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    place = Path(spec.origin).parent.joinpath(*parts)
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in files if file.is_file()), None)
