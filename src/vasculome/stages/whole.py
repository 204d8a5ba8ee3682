"""Small outputs that one piece of work writes in this process, with ledger and lease as others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasculome.compute.blocks import TileResult, map_tiles
from vasculome.compute.cluster import InlineCluster


@dataclass(frozen=True)
class _Whole:
    """The only piece of work."""

    id: str = "all"


def write_whole(
    work: Callable[[], tuple[Mapping[str, str], dict[str, Any]]], *, store: Path, digest: str
) -> TileResult:
    """Call ``work`` unless the ledger of ``store`` proves that it is done.

    ``work`` returns the checksums of the files that it wrote into ``store``, and a record.
    """
    results = map_tiles(
        lambda _: TileResult(*work()),
        [_Whole()],
        total=1,
        store=store,
        digest=digest,
        cluster=InlineCluster(),
        label=store.name,
    )
    (result,) = results.values()
    return result
