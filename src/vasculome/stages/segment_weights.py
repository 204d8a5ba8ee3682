"""The network that segments: whether it fits a sample, where it looks, what memory it takes.

The workflow asks before anything runs, so torch, which takes seconds to import, is not needed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from vasculome.config import SegmentConfig
from vasculome.errors import UserError
from vasculome.models.windows import WindowPlan, seen_voxels
from vasculome.stages import network_card
from vasculome.stages.network_card import checked_card, weights_path
from vasculome.storage.weights import card_path

_KEY = "microscopy.segment.segmenter"
_NETWORK = "microscopy.segment.network"
_SHIPPED = ("student", "teacher")

_EXACT_STEP = 256
"""Voxels that a window of blend exact answers for along each axis: with less the margins, hundreds
of voxels, would cost even more."""

_BATCH_SIZE = {"cpu": 2, "cuda": 32}
"""Windows at once: more of them leave a processor's cache; 17 ms for each of 2, 25 of 8."""

_TEACHER_STRIDE, _TEACHER_LEAST = 32, 64
"""What the teacher's windows are multiples of, and their least size."""

_STUDENT_BYTES, _LOGIT_BYTES = 34, 20
"""Of a channel of a voxel of a student's finest level, and of a voxel of the image beside it:
measured were 34 a voxel with a stem of stride 2 (5/8 channels), and 158 without (5)."""

_TEACHER_BYTES = 60
"""Of a channel of a voxel of a teacher's finest level: measured."""


_TOLERANCE = 1.1
"""By which voxels may differ from those of training."""


class _StudentArguments(BaseModel):
    widths: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=2)]
    stem_stride: Literal[1, 2]
    norm: Literal["group", "batch"]

    @property
    def stride(self) -> int:
        return self.stem_stride * int(2 ** (len(self.widths) - 1))


class _TeacherArguments(BaseModel):
    feature_size: Annotated[int, Field(gt=0)]


class _Metrics(BaseModel):
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class _Data(BaseModel):
    """Finest and coarsest voxels of training along y and x, and the coarsest along z."""

    spacing_um: tuple[float, float] | None = None
    most_spacing_um: float | None = None


class _Card(BaseModel):
    """What must be in the card of a network that segments."""

    architecture: Literal["student", "teacher"]
    arguments: dict[str, Any]
    metrics: _Metrics = _Metrics()
    data: _Data = _Data()


@dataclass(frozen=True)
class Segmenter:
    """A network and how it goes over a volume; it can go to other processes.

    Attributes
    ----------
    weights, sha256
        The file, and what it holds.
    architecture
        ``student`` or ``teacher``.
    plan
        Where its windows lie.
    threshold
        Probability from which a voxel is vessel.
    background_contrast
        See `vasculome.models.vessel_tiles.vessel_probability`.
    batch_size
        Windows that go through the network at once; on a GPU fewer where its memory is short.
    window_bytes
        Memory that the network takes for one of them.
    threads, share
        Of torch on the processor, and the part of a GPU's memory that a worker may take.
    device
        Of torch.
    spacing_as_trained
        Whether the network has seen such voxels in training; None where its card does not say.
    """

    weights: Path
    sha256: str
    architecture: Literal["student", "teacher"]
    plan: WindowPlan
    threshold: float
    background_contrast: float
    batch_size: int
    window_bytes: int
    threads: int
    share: float
    device: Literal["cpu", "cuda"]
    spacing_as_trained: bool | None


def segmenter_digest(chosen: SegmentConfig) -> str:
    """Return what identifies the content of the weights, whether they are good or not."""
    return network_card.weights_digest(*_place(chosen))


def segmenter_for(
    chosen: SegmentConfig,
    *,
    shape: Sequence[int],
    spacing_um: Sequence[float],
    threads: int,
    workers: int,
) -> Segmenter:
    """Return how a network is used on a volume.

    Parameters
    ----------
    chosen
        Settings, whose segmenter is a network.
    shape, spacing_um
        Of the volume, (z, y, x).
    threads
        Of torch, in each worker.
    workers
        That may share a GPU.

    Raises
    ------
    UserError
        The weights are missing or damaged, those of another kind of network, or they tell no
        threshold and none is given; or the network cannot take such windows.
    """
    path = weights_path(*_place(chosen))
    card, sha256 = checked_card(path, _Card, what="a network that segments vessels", key=_KEY)
    plan, per_window = _plan(chosen, card, path, shape)
    return Segmenter(
        path,
        sha256,
        card.architecture,
        plan,
        _threshold(chosen, card, path),
        chosen.network.background_contrast,
        chosen.network.batch_size or _BATCH_SIZE[chosen.network.device],
        per_window,
        threads,
        1 / workers,
        chosen.network.device,
        _is_as_trained(spacing_um, card.data),
    )


def segmenter_bytes(core: Sequence[int], segmenter: Segmenter) -> int:
    """Return the memory for a tile: its probabilities, layers of windows, and the network's.

    A layer is seen while the next one is read and rescaled.
    """
    layer, _ = seen_voxels(core, segmenter.plan)
    windows = math.prod(segmenter.plan.shape)
    # Sums and weights, a copy in bytes, and classes of the core; weights of a window.
    kept = math.prod(core) * (4 + 4 + 4 + 1 + 1) + 4 * windows
    # Cut out and stacked, probabilities, and their product with the weights.
    batch = max(2, segmenter.batch_size) * (segmenter.window_bytes + 12 * windows)
    return kept + layer * (4 + 4 + 4) + batch


def _place(chosen: SegmentConfig) -> tuple[str, str]:
    """Return the weights that are chosen: as given, and the name of those that ship."""
    given = chosen.segmenter
    return ("shipped", given) if given in _SHIPPED else (given, "")


def _plan(
    chosen: SegmentConfig, card: _Card, path: Path, shape: Sequence[int]
) -> tuple[WindowPlan, int]:
    how = chosen.network
    window, overlap = how.window, round(how.overlap * how.window)
    blend: Literal["gaussian", "crop"] = "gaussian" if how.blend == "gaussian" else "crop"
    if card.architecture == "student":
        student = _arguments(_StudentArguments, card, path)
        stride, least = student.stride, student.stride
        if how.blend == "exact":
            margin = _margin(student, path)
            window, overlap = _EXACT_STEP + 2 * margin, 2 * margin
        per_voxel = _student_bytes(student)
    else:
        if how.blend == "exact":
            raise _never_exact(path)
        stride, least = _TEACHER_STRIDE, _TEACHER_LEAST
        per_voxel = _teacher_bytes(_arguments(_TeacherArguments, card, path))
    if window % stride or window < least or overlap > window - stride:
        raise UserError(
            f"the network takes windows of multiples of {stride} voxels, {least} at least, that "
            f"share {stride} fewer at the most; not {window} that share {overlap}",
            where=f"config: {_NETWORK}.window",
            fix="give another window or overlap",
        )
    plan = WindowPlan(tuple(shape), window, overlap, stride, blend, least)
    return plan, math.ceil(per_voxel * math.prod(plan.shape))


Arguments = TypeVar("Arguments", bound=BaseModel)


def _arguments(kind: type[Arguments], card: _Card, path: Path) -> Arguments:
    try:
        return kind.model_validate(card.arguments)
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(
            f"is no card of a {card.architecture}: arguments."
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}",
            where=card_path(path),
            fix="give weights that this version of vasculome trained",
        ) from None


def _margin(student: _StudentArguments, path: Path) -> int:
    """Return how far a student sees, in whole strides."""
    if student.norm != "batch":
        raise _never_exact(path)
    # It imports torch, which only this rare choice needs.
    from vasculome.models.student import StudentDesign  # noqa: PLC0415

    design = StudentDesign(student.widths, student.stem_stride, norm=student.norm)
    return math.ceil(design.reach_voxels / student.stride) * student.stride


def _never_exact(path: Path) -> UserError:
    return UserError(
        "the network normalizes by what is in each window, so that no margin makes it exact",
        where=path,
        fix=f"set {_NETWORK}.blend to gaussian or crop, or train a student with norm: batch",
    )


def _threshold(chosen: SegmentConfig, card: _Card, path: Path) -> float:
    if chosen.network.threshold is not None:
        return chosen.network.threshold
    if card.metrics.threshold is None:
        raise UserError(
            "tells of no threshold",
            where=card_path(path),
            fix=f"set {_NETWORK}.threshold, such as 0.5",
        )
    return card.metrics.threshold


def _is_as_trained(spacing_um: Sequence[float], data: _Data) -> bool | None:
    """Return whether the voxels are no larger and no smaller than in training, to a tenth."""
    if data.spacing_um is None:
        return None
    finest, coarsest = data.spacing_um
    along_z, *others = spacing_um
    return (
        min(spacing_um) > finest / _TOLERANCE
        and max(others) < coarsest * _TOLERANCE
        and along_z < (data.most_spacing_um or coarsest) * _TOLERANCE
    )


def _student_bytes(student: _StudentArguments) -> float:
    """Return the memory of a voxel in the network."""
    finest = student.widths[0] / student.stem_stride**3
    return _STUDENT_BYTES * finest + _LOGIT_BYTES


def _teacher_bytes(teacher: _TeacherArguments) -> float:
    """Return the memory of a voxel in the network."""
    return _TEACHER_BYTES * teacher.feature_size
