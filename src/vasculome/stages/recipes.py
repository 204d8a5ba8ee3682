"""From the configuration of a network to its recipe and plan."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vasculome.config import (
    BubbleNetConfig,
    ModelConfig,
    MovieTrainingConfig,
    SiteFinderConfig,
    StudentConfig,
    StulmConfig,
    TeacherConfig,
)
from vasculome.errors import UserError
from vasculome.models.bubble_net import BubbleNetDesign
from vasculome.models.build import build
from vasculome.models.site_finder import SiteFinder, SiteFinderDesign
from vasculome.models.stulm import TIME_STRIDE, StulmDesign
from vasculome.stages.segment_recipes import student_recipe, teacher_recipe, vessel_scene_of
from vasculome.stages.volume_sheet import Roles, label_learnt, roles_of, volumes_card
from vasculome.storage.weights import fill, read_weights
from vasculome.training import scenes
from vasculome.training.bubble_recipe import BubbleRecipe
from vasculome.training.loop import Plan, Recipe
from vasculome.training.scenes import UlmScene
from vasculome.training.site_recipe import SiteRecipe
from vasculome.training.stulm_recipe import Sparsify, StulmRecipe
from vasculome.training.vessel_scenes import VesselScene

_DENSE_FRAMES, _DENSE_PX = 128, 4
"""What frames and pixels of dense movies are multiples of."""


def scene_of(settings: MovieTrainingConfig) -> UlmScene:
    """Return what the movies show."""
    scene: UlmScene = getattr(scenes, settings.scene)()
    if settings.frames is not None:
        scene = replace(scene, n_frames=settings.frames)
    if settings.patch_px is not None:
        scene = replace(scene, shape_px=(settings.patch_px,) * scene.n_dims)
    if settings.bubbles is not None:
        scene = replace(scene, bubbles=settings.bubbles)
    return scene


def data_of(settings: ModelConfig) -> dict[str, Any]:
    """Return what a card says of what was learnt from, and of its voxels or pixels."""
    if isinstance(settings, MovieTrainingConfig):
        movies = scene_of(settings)
        data = {"scene": settings.scene, "movie_seed": settings.movie_seed, **asdict(movies)}
        return {"data": data, "spacing_wavelengths": list(movies.spacing)}
    patches = vessel_scene_of(settings)
    data = {"scene": settings.scene, "patch_seed": settings.patch_seed, **asdict(patches)}
    roles = roles_of(settings)
    data["label"] = label_learnt(settings, roles)
    if settings.volumes is not None:
        shown = patches if data["label"] else None
        data |= {"volumes": volumes_card(settings), **_voxel_sizes(roles, shown)}
    return {"data": data}


def _voxel_sizes(roles: Roles, scene: VesselScene | None) -> dict[str, Any]:
    """Return the voxels of all that is shown: of users' volumes, and of rendered patches if any."""
    rows = [*roles.labelled, *roles.unlabelled]
    across = [size for row in rows for size in row.spacing_um[1:]]
    along = [row.spacing_um[0] for row in rows]
    if scene is not None:
        across += scene.spacing_um
        along += [scene.most_spacing_um]
    return {"spacing_um": [min(across), max(across)], "most_spacing_um": max(along)}


def plan_of(settings: ModelConfig) -> Plan:
    """Return how long and how fast the network learns."""
    plan = Plan(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        validate_every=settings.validate_every,
        checkpoint_every_s=settings.checkpoint_every_s,
    )
    if isinstance(settings, MovieTrainingConfig):
        makers = settings.movie_threads
        plan = replace(plan, drops=settings.drops, restart=settings.restart)
    else:
        makers = settings.patch_threads
        plan = replace(plan, decay_to=settings.decay_to)
    if isinstance(settings, TeacherConfig) and settings.pretrain_steps:
        plan = replace(plan, restart=(settings.pretrain_steps, settings.fine_tune_rate))
    return replace(plan, ahead=2 * makers, makers=makers)


def recipe_of(settings: ModelConfig, *, where: str, teacher: Path | None = None) -> Recipe:
    """Return what is trained on what.

    Parameters
    ----------
    settings
        Of the network.
    where
        Its place in the configuration, for errors.
    teacher
        Weights of the network that a student learns from, if it does.

    Raises
    ------
    UserError
        The network cannot take movies or patches of this size, or not learn from this teacher.
    """
    if isinstance(settings, BubbleNetConfig):
        return _bubble_net(settings)
    if isinstance(settings, SiteFinderConfig):
        return _site_finder(settings, where=where)
    if isinstance(settings, StudentConfig):
        return student_recipe(settings, where=where, teacher=teacher)
    if isinstance(settings, TeacherConfig):
        return teacher_recipe(settings, where=where)
    return _stulm(settings, where=where)


def _bubble_net(settings: BubbleNetConfig) -> BubbleRecipe:
    return BubbleRecipe(
        BubbleNetDesign(settings.n_dims, settings.channels, settings.threshold),
        scene_of(settings),
        settings.movie_seed,
        batch_size=settings.batch_size,
        validation_movies=settings.validation_movies,
    )


def _site_finder(settings: SiteFinderConfig, *, where: str) -> SiteRecipe:
    scene = scene_of(settings)
    if scene.n_frames % 2:
        raise UserError(
            f"the network takes an even number of frames, not {scene.n_frames}",
            where=f"{where}.frames",
            fix="give one more or one fewer",
        )
    return SiteRecipe(
        SiteFinderDesign(settings.n_dims, settings.channels, settings.depth),
        scene,
        settings.movie_seed,
        batch_size=settings.batch_size,
        validation_movies=settings.validation_movies,
        around_px=settings.around_px,
    )


def _stulm(settings: StulmConfig, *, where: str) -> StulmRecipe:
    scene = scene_of(settings)
    if scene.n_frames > TIME_STRIDE:
        raise UserError(
            f"the network takes {TIME_STRIDE} frames at the most, not {scene.n_frames}",
            where=f"{where}.frames",
            fix="give fewer",
        )
    is_fit = scene.n_frames % _DENSE_FRAMES == 0 and scene.shape_px[0] % _DENSE_PX == 0
    if settings.engine == "dense" and not is_fit:
        raise UserError(
            f"the dense network takes multiples of {_DENSE_FRAMES} frames and of {_DENSE_PX} "
            f"pixels, not {scene.n_frames} and {scene.shape_px[0]}",
            where=where,
            fix="set frames and patch_px, or another engine",
        )
    return StulmRecipe(
        StulmDesign(
            settings.n_dims,
            settings.engine,
            intermediate_loss=settings.intermediate_loss,
            pruning=settings.pruning,
            keep_above=settings.keep_above,
        ),
        scene,
        settings.movie_seed,
        _sparsify(settings, where=where),
        batch_size=settings.batch_size,
        validation_movies=settings.validation_movies,
        dilated_steps=settings.dilated_steps,
        dilation_px=settings.dilation_px,
        cascade_steps=settings.cascade_steps,
        repeat_after=settings.repeat_after,
    )


def _sparsify(settings: StulmConfig, *, where: str) -> Sparsify:
    value = {
        "threshold": settings.threshold,
        "top_k": settings.top_k,
        "cnn": settings.cnn,
        "none": 0.0,
    }[settings.sparsify]
    if settings.finder is None:
        return Sparsify(settings.sparsify, value)
    path = Path(settings.finder)
    tensors, card = read_weights(path)
    if card["architecture"] != "site_finder" or card["arguments"]["n_dims"] != settings.n_dims:
        raise UserError(
            f"are weights of {card['architecture']}, not of a site_finder for {settings.n_dims}-D",
            where=path,
            fix=f"give {where}.finder others",
        )
    finder = build(card["architecture"], card["arguments"])
    assert isinstance(finder, SiteFinder)
    fill(finder, tensors, path=path)
    return Sparsify("cnn", value, finder.eval())
