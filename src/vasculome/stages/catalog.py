"""The stages and what each needs: the workflow's shape, said once.

A stage's module has the same name: ``run(job)``, ``bound(job)`` and ``settings(config)``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageEntry:
    """One stage of one modality and the stages whose outputs it reads."""

    modality: str
    inputs: tuple[str, ...]


CATALOG: dict[str, StageEntry] = {
    "ingest_image": StageEntry("microscopy", ()),
    "normalize": StageEntry("microscopy", ("ingest_image",)),
    "enhance": StageEntry("microscopy", ("ingest_image", "normalize")),
    "mask": StageEntry("microscopy", ("enhance",)),
    "skeleton": StageEntry("microscopy", ("mask",)),
    "vessel_maps": StageEntry("microscopy", ("mask", "skeleton")),
    "ingest_iq": StageEntry("ultrasound", ()),
    "localize": StageEntry("ultrasound", ("ingest_iq",)),
    "track": StageEntry("ultrasound", ("ingest_iq", "localize")),
    "ulm_maps": StageEntry("ultrasound", ("ingest_iq", "localize", "track")),
}


def stages_of(modality: str) -> tuple[str, ...]:
    """Return the names of the modality's stages, in the order in which they run."""
    return tuple(name for name, entry in CATALOG.items() if entry.modality == modality)
