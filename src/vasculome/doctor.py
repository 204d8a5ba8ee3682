"""Whether the installation is whole, and whether a store is what its ledger says."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
from pathlib import Path

import psutil

from vasculome.errors import UserError
from vasculome.stages.catalog import CATALOG
from vasculome.storage.ledger import Lease, tile_order, void_tiles
from vasculome.storage.verify import verify_all
from vasculome.storage.weights import check_weights, shipped_weights


def check_installation() -> int:
    """Print what is installed and what the machine has; return 1 where something is amiss."""
    print(f"Python {platform.python_version()} on {platform.platform()}")
    print(f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.1f} GB of memory")
    print(f"{shutil.disk_usage('.').free / 1e9:.0f} GB free in {Path.cwd()}")
    print(f"GPU: {_gpu()}")
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
    damaged = _check_shipped_weights()
    if missing:
        print(f"{missing} packages are missing.")
    if damaged:
        print(f"{damaged} weights are damaged: install vasculome again.")
    if not missing and not damaged:
        print("The installation is whole.")
    return int(missing + damaged > 0)


def _check_shipped_weights() -> int:
    """Print what networks come with the package; return how many are damaged."""
    damaged = 0
    for path in shipped_weights():
        try:
            card = check_weights(path)
            print(f"  weights {path.stem}: {card['architecture']}, {card['sha256'][:12]}")
        except UserError as error:
            damaged += 1
            print(f"  weights {path.stem}: DAMAGED ({error})")
    return damaged


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "unknown, for want of torch"
    # torch takes seconds to import, which is long for a look at a store.
    import torch  # noqa: PLC0415

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def verify_store(path: Path) -> int:
    """Compare files with the ledgers that tell of them; the next run redoes what is damaged.

    Parameters
    ----------
    path
        A store, a folder that holds stores, or a file of one.

    Returns
    -------
    int
        1 where something is damaged, else 0.

    Raises
    ------
    UserError
        Where no ledger tells of ``path``, a live run holds a damaged store, or a file cannot be
        read.
    """
    found = {store: damages for store, damages in verify_all(path).items() if damages}
    for store, damages in found.items():
        for damage in damages:
            print(f"{damage.file}: {damage.fault}")
        tiles = sorted({damage.tile for damage in damages if damage.tile}, key=tile_order)
        with Lease(store):
            # The ledger last: should we be ended before, the damage is still found.
            for manifest in _manifests_after(store):
                manifest.unlink(missing_ok=True)
            void_tiles(store, tiles)
        print(f"{store}: will be mended by the next run, which redoes {len(tiles)} tiles")
    if not found:
        print(f"{path}: every file is as it was written.")
    return int(bool(found))


def _manifests_after(store: Path) -> list[Path]:
    """Return the manifests of the stage that made ``store`` and of all stages after it.

    With an old manifest after it, Snakemake would not miss that of an earlier stage.
    """
    manifests: list[Path] = []
    for folder in store.parents:
        found = {path.stem: path for path in (folder / "manifests").glob("*.json")}
        stale = {
            stage
            for stage, path in found.items()
            if stage in CATALOG and str(store.relative_to(folder)) in _stores_in(path)
        }
        for stage, entry in CATALOG.items():
            if stale & {stage, *entry.inputs}:
                stale.add(stage)
        manifests += [found[stage] for stage in CATALOG if stage in stale & set(found)]
    return manifests


def _stores_in(manifest: Path) -> list[str]:
    try:
        return list(json.loads(manifest.read_text())["stores"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            "is no manifest", where=manifest, fix="delete it, then run snakemake again"
        ) from None
