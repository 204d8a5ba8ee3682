"""Whether the installation is whole, and whether a store is what its ledger says."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
from pathlib import Path

import psutil
import torch

from vasculome.storage.ledger import verify, void_tiles


def check_installation() -> int:
    """Print what is installed and what the machine has; return 1 where something is missing."""
    cores = len(os.sched_getaffinity(0))
    print(f"Python {platform.python_version()} on {platform.platform()}")
    print(f"{cores} cores, {psutil.virtual_memory().total / 1e9:.1f} GB of memory")
    print(f"{shutil.disk_usage('.').free / 1e9:.0f} GB free in {Path.cwd()}")
    print(f"GPU: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    missing = 0
    for requirement in importlib.metadata.requires("vasculome") or []:
        name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
        if "extra ==" in requirement:
            continue
        try:
            print(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing += 1
            print(f"  {name}: MISSING (pip install {name!r})")
    print("The installation is whole." if not missing else f"{missing} packages are missing.")
    return int(missing > 0)


def verify_store(store: Path) -> int:
    """Compare a store's files with its ledger; mark damaged tiles to be redone by the next run.

    Returns 1 where something is damaged.

    Raises
    ------
    UserError
        Where there is no ledger, or a live run holds the store.
    """
    damages = verify(store)
    for damage in damages:
        print(f"{damage.file}: {damage.fault}")
    if not damages:
        print(f"{store}: every file is as it was written.")
        return 0
    tiles = sorted({damage.tile for damage in damages if damage.tile})
    void_tiles(store, tiles)
    for manifest in _manifests_of(store):
        manifest.unlink()
        print(f"{manifest}: removed, so that the next run redoes {len(tiles)} tiles")
    return 1


def _manifests_of(store: Path) -> list[Path]:
    """Return the manifests that vouch for ``store``, in the folder of its sample."""
    store = Path(store).absolute()
    return [
        path
        for folder in store.parents
        for path in sorted((folder / "manifests").glob("*.json"))
        if str(store.relative_to(folder)) in json.loads(path.read_text())["stores"]
    ]
