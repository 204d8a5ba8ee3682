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
from vasculome.models.windows import WindowPlan, seen_plane_voxels
from vasculome.stages import network_card
from vasculome.stages.network_card import checked_card, weights_path
from vasculome.stages.segment_memory import (
    StudentArguments,
    TeacherArguments,
    engine_bytes,
    student_bytes,
    teacher_bytes,
)
from vasculome.storage.weights import card_path

_KEY = "microscopy.segment.segmenter"
_NETWORK = "microscopy.segment.network"

_EXACT_STEP, _LEAST_EXACT_STEP = 256, 128
"""Voxels that a window of blend exact answers for along each axis: with less the margins, hundreds
of voxels, would cost even more."""

_BLOCK = 512
"""Longest edge of what a worker does at once, if shards are no longer: windows at its borders are
asked about by both sides, so that windows of 64 that share a quarter, and begin at multiples of 16,
are asked about 1.7 times with edges of 256 and 1.3 times with 512, (19 / 16)³ and (35 / 32)³."""

_BLOCKS = 64
"""Blocks are not made so large that there would be fewer: there must be enough for all workers, and
a run that is killed loses those at hand. It is no number of workers, so that their ids stay."""

_BATCH_SIZE = {"cpu": 2, "cuda": 32}
"""Windows at once: more of them leave a processor's cache; 17 ms for each of 2, 25 of 8."""

_TEACHER_STRIDE, _TEACHER_LEAST = 32, 64
"""What the teacher's windows are multiples of, and their least size."""


_TOLERANCE = 1.1
"""By which voxels may differ from those of training."""


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
    background_contrast, flips
        See `vasculome.models.vessel_tiles.scan_probability`.
    block
        Voxels that a worker does at once, (z, y, x): whole shards.
    planes_together
        Planes that are read together: of a chunk.
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
    flips: bool
    block: tuple[int, ...]
    planes_together: int
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
    chunk: Sequence[int],
    shard: Sequence[int],
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
    chunk, shard
        Voxels of each on disk.
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
    block = _block(shape, shard)
    plan, per_window = _plan(chosen, card, path, shape, block)
    return Segmenter(
        path,
        sha256,
        card.architecture,
        plan,
        _threshold(chosen, card, path),
        chosen.network.background_contrast,
        chosen.network.flips,
        block,
        chunk[0],
        _batch_size(chosen, card, threads),
        per_window,
        threads,
        1 / workers,
        chosen.network.device,
        _is_as_trained(spacing_um, card.data),
    )


def segmenter_bytes(segmenter: Segmenter) -> int:
    """Return the memory for a block: what comes out, sums, planes that are seen, the network's."""
    plan, block = segmenter.plan, segmenter.block
    windows = math.prod(plan.shape)
    blends = plan.blend == "gaussian"
    # Classes and a copy in bytes; coarser levels, and a shard as it is encoded.
    out = math.prod(block) * (1 + 1 + 1)
    # Sums, what is moved on of them, and with weights the sums of those.
    depth = min(block[0], plan.shape[0])
    sums = math.prod((depth, *block[1:])) * (4 + 4 + 4 * blends)
    # Planes as they are put together from those of before and those that were read, raw and scaled.
    planes = plan.shape[0] + segmenter.planes_together
    seen = seen_plane_voxels(block, plan) * planes * (4 + 4 + 4 + 4)
    # Cut out, stacked, and answered; mirrored, there and back; weights of a window.
    window = 4 + 4 + 4 + (4 + 4) * segmenter.flips
    batch = segmenter.batch_size * (segmenter.window_bytes + window * windows)
    batch += 12 * windows * blends
    return out + sums + seen + batch


def _block(shape: Sequence[int], shard: Sequence[int]) -> tuple[int, ...]:
    """Return the voxels of the largest blocks of whole shards of which there are enough."""
    block = tuple(shard)
    for times in range(2, _BLOCK // min(shard) + 1):
        larger = tuple(max(1, min(times, _BLOCK // n)) * n for n in shard)
        if math.prod(-(-n // edge) for n, edge in zip(shape, larger, strict=True)) < _BLOCKS:
            break
        block = larger
    return block


def _batch_size(chosen: SegmentConfig, card: _Card, threads: int) -> int:
    """Return how many windows there are at once; on a processor a student sees one a thread."""
    if chosen.network.device == "cpu" and card.architecture == "student":
        return threads
    # A processor is asked about two even where there is but one.
    least = 2 if chosen.network.device == "cpu" else 1
    return max(least, chosen.network.batch_size or _BATCH_SIZE[chosen.network.device])


def _place(chosen: SegmentConfig) -> tuple[str, str]:
    """Return the weights that are chosen: as given, and the name of those that ship."""
    given = chosen.segmenter
    return (given, "") if given.endswith(".safetensors") else ("shipped", given)


def _plan(
    chosen: SegmentConfig,
    card: _Card,
    path: Path,
    shape: Sequence[int],
    block: Sequence[int],
) -> tuple[WindowPlan, int]:
    how = chosen.network
    window, overlap = how.window, round(how.overlap * how.window)
    blend: Literal["gaussian", "crop"] = "gaussian" if how.blend == "gaussian" else "crop"
    if card.architecture == "student":
        student = _arguments(StudentArguments, card, path)
        stride, least = student.stride, student.stride
        if how.blend == "exact":
            margin = _margin(student, path)
            step = _exact_step(shape, block, student.stride)
            window, overlap = step + 2 * margin, 2 * margin
    else:
        if how.blend == "exact":
            raise _never_exact(path)
        stride, least = _TEACHER_STRIDE, _TEACHER_LEAST
        teacher = _arguments(TeacherArguments, card, path)
    if window % stride or window < least or overlap > window - stride:
        raise UserError(
            f"the network takes windows of multiples of {stride} voxels, {least} at least, that "
            f"share {stride} fewer at the most; not {window} that share {overlap}",
            where=f"config: {_NETWORK}.window",
            fix="give another window or overlap",
        )
    exact = how.blend == "exact"
    plan = WindowPlan(tuple(shape), window, overlap, stride, blend, least, aligned=exact)
    if card.architecture == "teacher":
        return plan, math.ceil(teacher_bytes(teacher) * math.prod(plan.shape))
    if how.device == "cpu":
        return plan, engine_bytes(student, plan.shape)
    return plan, math.ceil(student_bytes(student) * math.prod(plan.shape))


def _exact_step(shape: Sequence[int], block: Sequence[int], stride: int) -> int:
    """Return for how much a window answers: so that blocks consist of such steps, if they can."""
    step = math.gcd(_EXACT_STEP, *(b for n, b in zip(shape, block, strict=True) if n > b))
    return _EXACT_STEP if step % stride or step < _LEAST_EXACT_STEP else step


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


def _margin(student: StudentArguments, path: Path) -> int:
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
