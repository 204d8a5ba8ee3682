"""The stages and what each needs: the workflow's shape, said once.

A stage's module has the same name: ``run(job)``, ``bound(job)`` and ``settings(config)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vasculome.config import RunConfig, Sample, SliceStack


@dataclass(frozen=True)
class StageEntry:
    """One stage of one modality and the stages whose outputs it reads.

    Attributes
    ----------
    modality
        Of the samples that have the stage; ``"slices"`` for volumes that slices make together.
    inputs
        Stages that come before it, where the sample has them; of a volume: stages of its slices.
    tiled
        Whether only samples have the stage that are made of tiles.
    wanted
        Whether a configuration asks for the stage; None: every one does.
    """

    modality: str
    inputs: tuple[str, ...]
    tiled: bool = False
    wanted: Callable[[RunConfig], bool] | None = None


def _names_a_network(config: RunConfig) -> bool:
    return config.ultrasound.superresolve.network is not None


CATALOG: dict[str, StageEntry] = {
    "register": StageEntry("microscopy", (), tiled=True),
    "place": StageEntry("microscopy", ("register",), tiled=True),
    "illuminate": StageEntry("microscopy", ("place",), tiled=True),
    "ingest_image": StageEntry("microscopy", ("place", "illuminate")),
    "normalize": StageEntry("microscopy", ("ingest_image",)),
    "enhance": StageEntry("microscopy", ("ingest_image", "normalize")),
    "mask": StageEntry("microscopy", ("enhance",)),
    "skeleton": StageEntry("microscopy", ("mask",)),
    "graph": StageEntry("microscopy", ("skeleton",)),
    "vessel_maps": StageEntry("microscopy", ("mask", "skeleton")),
    "ingest_iq": StageEntry("ultrasound", ()),
    "calibrate": StageEntry("ultrasound", ("ingest_iq",)),
    "localize": StageEntry("ultrasound", ("ingest_iq", "calibrate")),
    "track": StageEntry("ultrasound", ("ingest_iq", "localize")),
    "ulm_maps": StageEntry("ultrasound", ("ingest_iq", "localize", "track")),
    "ulm_quality": StageEntry("ultrasound", ("ingest_iq", "localize", "track")),
    "superresolve": StageEntry("ultrasound", ("ingest_iq", "calibrate"), wanted=_names_a_network),
    "join_slices": StageEntry("slices", ("ulm_maps",)),
}


def stages_of(sample: Sample | SliceStack, config: RunConfig | None = None) -> tuple[str, ...]:
    """Return the names of the sample's stages, in the order in which they run.

    Without a configuration: those that every one asks for.
    """
    return tuple(
        name
        for name, entry in CATALOG.items()
        if entry.modality == sample.modality
        and (sample.tiled or not entry.tiled)
        and (entry.wanted is None or (config is not None and entry.wanted(config)))
    )


def inputs_of(stage: str, sample: Sample) -> tuple[str, ...]:
    """Return the stages of the sample whose outputs ``stage`` reads."""
    stages = stages_of(sample)
    return tuple(name for name in CATALOG[stage].inputs if name in stages)
