"""The networks that segment vessels: a light student, and the teacher that it may learn from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vasculome.config.settings import Fraction, Percent, PositiveFloat, PositiveInt
from vasculome.config.training import Count, TrainingConfig

SegmentMethod = Literal[
    "vpbsd",
    "light_unet",
    "kd",
    "fitnets",
    "vid",
    "ab",
    "mean_teacher",
    "uamt",
    "entropy",
    "without_distillation",
    "without_semi",
    "mid",
    "semi_mid",
]

LabelKind = Literal["painted", "brushed", "seen", "lumen"]

# With smaller ones most patches show no vessel, with larger ones vessels are no wider than a voxel.
_VoxelUm = Annotated[float, Field(ge=0.2, le=20)]

WITHOUT_TEACHER = {"light_unet", "mean_teacher", "uamt", "entropy"}
"""Methods that no trained teacher helps."""

WITH_CODES = {"vpbsd", "without_semi"}
"""Methods that learn a teacher's codes."""

WITH_MASKS = {"vpbsd", "without_distillation", "semi_mid", "kd"}
"""Methods that learn what a teacher takes for vessels."""


class PatchTrainingConfig(TrainingConfig):
    """What trainings on patches of vessels have."""

    scene: Literal["light_sheet", "two_photon", "broad"] = Field(
        "broad", description="Rendered patches: of one kind of microscope, or as broad as it gets."
    )
    patch_voxels: PositiveInt | None = Field(
        None, description="Voxels of a patch along each axis; null: 64, as the scene has it."
    )
    spacing_um: tuple[_VoxelUm, _VoxelUm] | None = Field(
        None,
        description="Smallest and largest voxel size along y and x of rendered patches, in µm, "
        "from 0.2 to 20; null: as the scene has them.",
    )
    large_vessels: Fraction = Field(
        0.0,
        description="Part of the rendered patches that an artery or a vein goes through beside "
        "smaller vessels, or that lie in one, 20 to 100 µm in radius.",
    )
    patch_seed: Count = Field(0, description="Of the patches, the same for all seeds.")
    labelled_patches: PositiveInt | None = Field(
        None,
        description="Patches with labels, after which they come again, mirrored; null: no end.",
    )
    unlabelled_patches: PositiveInt | None = Field(
        None,
        description="Patches without labels, after which they come again; null: no end. What a "
        "teacher says of the first 256 patches is remembered.",
    )
    volumes: str | None = Field(
        None, description="Sheet of your own volumes (config/README.md); null: rendered ones alone."
    )
    fold: tuple[Count, PositiveInt] | None = Field(
        None,
        description="volumes: which fold is held out for validation, of how many; null: about a "
        "fifth of the volumes with labels.",
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(
        None, description="volumes: one network for each of as many folds, NAME-fold-0 and so on."
    )
    rendered: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25,
        description="volumes: part of the patches that are rendered, beside those with labels.",
    )
    upper_percent: Percent = Field(
        99.5, description="volumes: intensities above become 1, as in microscopy.normalize."
    )
    batch_size: PositiveInt = Field(2, description="Patches a step.")
    validation_patches: PositiveInt = Field(16, description="Patches that the score is taken on.")
    patch_threads: PositiveInt = Field(
        1, description="Threads that render patches meanwhile; more where a GPU waits for them."
    )
    decay_to: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01,
        description="Part of the learning rate that is left at the end, falling exponentially.",
    )
    label: LabelKind = Field(
        "painted",
        description="What masks of rendered vessels mark: what annotators paint, which is wide "
        "where vessels are bright and leaves the dimmest out; the same over a smoothed picture and "
        "from a higher level on, which leaves more of the dim ones out; half of the height of each "
        "vessel's picture; or the vessel itself.",
    )
    gamma: PositiveFloat = Field(
        1.0,
        description="Power that intensities are raised to first: below 1 it lifts dim vessels "
        "beside bright ones.",
    )
    cldice: Fraction = Field(
        0.0, description="Part of soft-clDice in the loss on labels; the rest is Dice."
    )

    @model_validator(mode="after")
    def _spacing_rises(self) -> Self:
        if self.spacing_um is not None and self.spacing_um[0] > self.spacing_um[1]:
            raise ValueError("spacing_um is the smallest voxel size and the largest, in this order")
        return self

    @model_validator(mode="after")
    def _folds_are_of_volumes(self) -> Self:
        if self.volumes is None and (self.fold or self.folds) is not None:
            raise ValueError("folds are of volumes: give volumes, too")
        if self.fold is not None and self.fold[0] >= self.fold[1]:
            raise ValueError(f"there is no fold {self.fold[0]} of {self.fold[1]}, from 0")
        return self


class StudentConfig(PatchTrainingConfig):
    """The light U-Net of VpbSD, taught by one of the methods that its paper compares."""

    network: Literal["student"]
    widths: tuple[PositiveInt, ...] = Field(
        (5, 6, 20, 44), min_length=2, description="Channels of each level, from the finest."
    )
    stem_stride: Literal[1, 2] = Field(
        2, description="2: the finest level has half the voxels along each axis; 1: all of them."
    )
    skip: Literal["add", "concatenate"] = Field(
        "add", description="How what was seen on the way down joins what comes up."
    )
    norm: Literal["group", "batch"] = Field(
        "group", description="Statistics of the patch, as in the paper, or learnt ones."
    )
    learning_rate: PositiveFloat = Field(1e-2, description="Of Adam, at its highest.")
    method: SegmentMethod = Field(
        "light_unet",
        description="vpbsd, or what it is compared with: light_unet (labels alone), kd, fitnets, "
        "vid, ab, mean_teacher, uamt, entropy; or a part of it: without_distillation, "
        "without_semi, mid, semi_mid.",
    )
    teacher: str | None = Field(
        None,
        description="For methods with a teacher: an entry of models, 'shipped', or the path of "
        "weights (.safetensors).",
    )

    @model_validator(mode="after")
    def _teacher_and_method(self) -> Self:
        if (self.method in WITHOUT_TEACHER) != (self.teacher is None):
            needs = "has no" if self.teacher else "needs a"
            raise ValueError(f"method {self.method} {needs} teacher")
        return self


class TeacherConfig(PatchTrainingConfig):
    """Swin UNETR with a codebook of vessel patterns."""

    network: Literal["teacher"]
    feature_size: int = Field(
        12, ge=12, multiple_of=12, description="Channels of the finest level; 48 in the paper."
    )
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
        (2, 2, 2, 2), description="Transformer blocks of each level."
    )
    heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
        (3, 6, 12, 24), description="Attention heads of each level; they share its channels."
    )
    window: int = Field(
        4,
        ge=2,
        description="Edge of the windows of its attention, in voxels of each level; 7 in "
        "the paper.",
    )
    student_width: PositiveInt = Field(
        44, description="Channels of the codes: the last of the student's widths."
    )
    n_codes: int = Field(512, ge=2, description="Codes of the codebook.")
    code_scores: Literal["relative", "squared_distance", "distance"] = Field(
        "relative",
        description="What codes are drawn by while they are learnt: minus their squared distance "
        "over twice the variance of features about codes, minus their squared distance, or minus "
        "their distance, as equation 8 of the paper prints it.",
    )
    pretrain_steps: Count = Field(
        0,
        description="First steps, in which it learns codes by building images with them; 0: none, "
        "and the codes stay random, so that it cannot teach vpbsd or without_semi.",
    )
    fine_tune_rate: PositiveFloat = Field(
        1e-5,
        description="Learning rate that the steps with labels begin with after pretrain_steps; "
        "without those it is learning_rate.",
    )
    reconstruction: Literal["squared", "absolute"] = Field(
        "squared", description="Error of the images; the paper says the one and prints the other."
    )

    @model_validator(mode="after")
    def _shapes_and_steps(self) -> Self:
        if self.pretrain_steps >= self.steps:
            raise ValueError(f"pretrain_steps leave none of the {self.steps} steps for labels")
        for level, heads in enumerate(self.heads):
            if self.feature_size * 2**level % heads:
                raise ValueError(
                    f"{heads} heads do not share {self.feature_size * 2**level} channels"
                )
        return self
