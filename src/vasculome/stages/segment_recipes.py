"""From the configuration of a segmenter to its recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vasculome.config import PatchTrainingConfig, StudentConfig, TeacherConfig
from vasculome.errors import UserError
from vasculome.models.student import StudentDesign
from vasculome.models.teacher import STRIDE, Teacher, TeacherDesign
from vasculome.stages.network_load import load_network
from vasculome.stages.teachers import check_teachers_card
from vasculome.stages.training_volumes import given_patches, rendering_sources
from vasculome.stages.volume_sheet import roles_of
from vasculome.storage.weights import read_card
from vasculome.training import vessel_scenes
from vasculome.training.distill import METHODS
from vasculome.training.patch_source import PatchSource, RenderedPatches
from vasculome.training.student_recipe import StudentRecipe
from vasculome.training.teacher_recipe import TeacherRecipe
from vasculome.training.vessel_scenes import VesselScene
from vasculome.training.volume_patches import AdaptedPatches, MixedPatches


def vessel_scene_of(settings: PatchTrainingConfig) -> VesselScene:
    """Return what the patches show."""
    scene: VesselScene = getattr(vessel_scenes, settings.scene)()
    scene = replace(scene, label=settings.label, large_vessels=settings.large_vessels)
    if settings.spacing_um is not None:
        most = max(scene.most_spacing_um, settings.spacing_um[1])
        scene = replace(scene, spacing_um=settings.spacing_um, most_spacing_um=most)
    if settings.patch_voxels is not None:
        scene = replace(scene, shape=(settings.patch_voxels,) * 3)
    return scene


def student_recipe(settings: StudentConfig, *, where: str, teacher: Path | None) -> StudentRecipe:
    """Return how a student is trained.

    Raises
    ------
    UserError
        The student or its teacher cannot take patches of this size, or the teacher is none for it.
    """
    method = replace(METHODS[settings.method], cldice=settings.cldice)
    design = StudentDesign(
        settings.widths, settings.stem_stride, settings.skip, settings.norm, settings.gamma
    )
    _check_size(settings, multiple=design.stride, where=where)
    taught_by = None
    if method.needs_teacher:
        if teacher is None:
            raise ValueError("the weights of the teacher are needed")
        _check_teachers_size(settings, where=where)
        taught_by = read_teacher(teacher, settings, where=where)
    return StudentRecipe(
        design,
        patches_of(settings),
        settings.steps,
        method,
        taught_by,
        batch_size=settings.batch_size,
        validation_patches=settings.validation_patches,
    )


def teacher_recipe(settings: TeacherConfig, *, where: str) -> TeacherRecipe:
    """Return how a teacher is trained.

    Raises
    ------
    UserError
        It cannot take patches of this size.
    """
    _check_teachers_size(settings, where=where)
    return TeacherRecipe(
        TeacherDesign(
            settings.feature_size,
            settings.depths,
            settings.heads,
            settings.student_width,
            settings.n_codes,
            settings.window,
            settings.code_scores,
            settings.gamma,
        ),
        patches_of(settings),
        settings.pretrain_steps,
        batch_size=settings.batch_size,
        validation_patches=settings.validation_patches,
        reconstruction=settings.reconstruction,
        cldice=settings.cldice,
    )


def read_teacher(path: Path, student: StudentConfig, *, where: str) -> Teacher:
    """Return the teacher of a student from its weights.

    Raises
    ------
    UserError
        They are missing, damaged or of another network, or it cannot teach this student.
    """
    card = read_card(path)
    check_teachers_card(student, path, card, where=where)
    network = load_network(path, sha256=card["sha256"], device="cpu")
    assert isinstance(network, Teacher)
    if not network.fine_tuned:
        raise UserError(
            "is a teacher that has seen no labels yet",
            where=path,
            fix="train it with more steps than pretrain_steps",
        )
    return network


def patches_of(settings: PatchTrainingConfig) -> PatchSource:
    """Return what is learnt from: rendered patches, or those of users' volumes, or both.

    Without labels among the volumes all labels are rendered.

    Raises
    ------
    UserError
        The sheet of volumes or one of its files cannot be read, or does not allow these folds.
    """
    rendered = RenderedPatches(
        vessel_scene_of(settings),
        settings.patch_seed,
        labels=settings.labelled_patches,
        others=settings.unlabelled_patches,
    )
    if settings.volumes is None:
        return rendered
    roles = roles_of(settings)
    rendered = replace(rendered, sources=rendering_sources(roles))
    if not roles.labelled and not roles.unlabelled:
        return rendered
    given = given_patches(
        roles,
        shape=rendered.scene.shape,
        seed=settings.patch_seed,
        upper_percent=settings.upper_percent,
    )
    if not roles.labelled:
        return AdaptedPatches(rendered, given)
    return MixedPatches(given, rendered, settings.rendered) if settings.rendered else given


def _check_teachers_size(settings: PatchTrainingConfig, *, where: str) -> None:
    # Of a single voxel at the coarsest level nothing would remain once it is normalized.
    _check_size(settings, multiple=STRIDE, least=2 * STRIDE, where=where)


def _check_size(
    settings: PatchTrainingConfig, *, multiple: int, where: str, least: int = 0
) -> None:
    size = vessel_scene_of(settings).shape[0]
    if size % multiple or size < least:
        limit = f", {least} at least" if least else ""
        raise UserError(
            f"the network takes patches of multiples of {multiple} voxels{limit}, not {size}",
            where=f"{where}.patch_voxels",
            fix=f"give {max(multiple * -(-size // multiple), least)}",
        )
