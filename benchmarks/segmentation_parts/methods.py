"""Trained networks, as the stage `enhance` uses them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from segmentation_parts.measures import Mask, Volume

from vasculome.config import SegmentConfig
from vasculome.config.segment import SegmentNetworkConfig
from vasculome.geometry import Box
from vasculome.models.window_sums import classify
from vasculome.stages.segment_network import tile_probability
from vasculome.stages.segment_weights import segmenter_for
from vasculome.storage.omezarr import Image
from vasculome.storage.weights import read_card, shipped_weights

_SEGMENTERS = {"student", "teacher"}
LABEL_KIND = "painted"
"""Of networks whose cards tell none."""

_FOLD = re.compile(r"(.+)-fold-\d+")


@dataclass(frozen=True)
class Network:
    """Weights of one training.

    Attributes
    ----------
    path
        Where they are.
    flips
        Whether the mean over the eight mirror images of each window is taken.
    """

    path: Path
    flips: bool = False

    def segment(self, volume: Volume) -> Mask:
        """Return the mask that the stage makes with its default settings, small objects included.

        Raises
        ------
        UserError
            As the stage: its weights are no good, or tell no threshold.
        """
        shape = volume.image.shape
        segmenter = segmenter_for(
            SegmentConfig(segmenter=str(self.path), network=SegmentNetworkConfig(flips=self.flips)),
            shape=shape,
            spacing_um=volume.spacing_um,
            chunk=shape,
            shard=shape,
            threads=torch.get_num_threads(),
            workers=1,
        )
        vessel, parts_of_255 = (np.empty(shape, np.uint8) for _ in range(2))

        def take(first: int, planes: NDArray[np.float32]) -> None:
            here = slice(first, first + len(planes))
            limit = segmenter.threshold
            classify(planes, vessel[here], parts_of_255[here], threshold=limit, value=1)

        source = cast(Image, _InMemory(volume.image))
        tile_probability(source, Box.of_shape(shape), segmenter, take, low=0.0, high=1.0)
        return vessel > 0

    @property
    def label_kind(self) -> str:
        """What the masks of the rendered patches marked that it has learnt from, if any were."""
        return str(read_card(self.path).get("data", {}).get("label") or LABEL_KIND)

    def has_seen(self, files: Collection[Path]) -> bool:
        """Return whether its card says that it has learnt from one of these, or was chosen by it.

        Cards name files where they were when it was trained.
        """
        volumes: Mapping[str, Any] = read_card(self.path).get("data", {}).get("volumes") or {}
        names = list(volumes.get("learnt_from", ()))
        names += [row[key] for row in volumes.get("held_out", ()) for key in ("image", "label")]
        seen = {Path(name).resolve() for name in names}
        return any(file.resolve() in seen for file in files)


@dataclass(frozen=True, eq=False)
class _InMemory:
    """What the stage reads of an image on disk."""

    image: NDArray[np.float32]

    def read(self, box: Box) -> NDArray[np.float32]:
        return self.image[box.slices]


Methods = list[tuple[str, list[Network]]]


def shipped_networks() -> Methods:
    """Return the segmenters that come with vasculome."""
    return [(path.stem, [Network(path)]) for path in shipped_weights() if _segments(path)]


def trained_networks(folder: Path, *, only: Sequence[str] = ()) -> Methods:
    """Return the segmenters of a folder that `snakemake models` filled, each with all trainings.

    Seeds of one entry of ``models`` are one method, and so are all its folds. Where there is an
    entry of the same name without folds, too, the folds are called ``NAME, folds``.
    """
    entries: dict[str, list[Path]] = {}
    for card in sorted(folder.glob("*/*.json")):
        name, chosen = card.parent.name, card.with_suffix(".safetensors")
        if card.stem == name and chosen.exists() and _segments(chosen):
            entries[name] = sorted(card.parent.glob("seed-*/*.safetensors")) or [chosen]
    methods: dict[str, list[Network]] = {}
    for name, paths in entries.items():
        fold = _FOLD.fullmatch(name)
        method = name if fold is None else fold[1]
        if fold is not None and method in entries:
            method += ", folds"
        methods.setdefault(method, []).extend(map(Network, paths))
    return [(name, found) for name, found in methods.items() if not only or name in only]


def _segments(path: Path) -> bool:
    return read_card(path)["architecture"] in _SEGMENTERS
